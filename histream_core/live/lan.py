"""An address at which other computers reach the page of a live stream: by TLS alone, with a given certificate."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

FORMS = "udp://NUMBER:PORT or, on Linux, v4l2:/dev/videoN"
"""The addresses that a live stream can be sent to."""


@dataclass(frozen=True)
class Lan:
    """An address of this computer at which others reach the page, and the certificate that shows them who it is."""

    address: str
    tls: ssl.SSLContext

    @classmethod
    def of(cls, address: str, certificate: Path, key: Path) -> Lan:
        """Read a certificate and its key, PEM files. Raises ValueError or OSError."""
        number = number_in(address)
        if number is None and not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", address):
            raise ValueError(f'"{address}" is no address: use one such as 192.168.1.5, or a name, without a port')
        if number is not None and number.is_unspecified:
            raise ValueError(f"{address} is any address: name the one by which other computers reach this one")
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        for path in (certificate, key):
            if not path.is_file():
                raise FileNotFoundError(f"there is no file {path}")
        try:
            tls.load_cert_chain(certificate, key, password=lambda: b"")
        except ssl.SSLError as error:
            raise ValueError(
                f"{certificate} and {key} are no certificate and its key, as PEM files, the key without a passphrase"
            ) from error
        return cls(f"[{number.compressed}]" if number is not None and number.version == 6 else address.lower(), tls)


def how_to_certify(address: str) -> str:
    """A command that makes a certificate for an address."""
    kind = "DNS" if number_in(address) is None else "IP"
    return (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout key.pem -out certificate.pem "
        f"-subj /CN={address} -addext subjectAltName={kind}:{address}"
    )


def number_in(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address)
    return None
