"""Rates of GPUs and of the links between them, for predictions. None was measured here.

The rates of a GPU are fitted to figures that others published: a network call takes the operations of its attention
and of its matrix products at a rate each, the values that norms, rotations and additions pass through memory at a
third, and for every layer a time that does not depend on its size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Device:
    """The rates of a kind of GPU."""

    name: str
    attention: float
    """TFLOP/s of attention."""
    products: float
    """TFLOP/s of a layer's matrix products."""
    values: float
    """1e9 values of the hidden state that pass through a layer's other operations in a second."""
    layer: float
    """Seconds of a layer besides, whatever its size."""
    vae: float
    """TFLOP/s of the VAE."""
    source: str
    """The figures that it is fitted to."""


@dataclass(frozen=True, slots=True)
class LinkRates:
    """The rates of a kind of link between GPUs."""

    name: str
    bandwidth: float
    """Bytes that a GPU sends in a second while it receives as many."""
    latency: float
    """Seconds of an exchange of any size."""
    source: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A computer with several GPUs of one kind."""

    device: Device
    link: LinkRates


_H100 = Device(
    "H100",
    attention=370,
    products=600,
    values=4.2,
    layer=0.9e-3,
    vae=150,
    source="HiStream+ at 0.21 s per frame (arXiv 2512.21338), StreamDiffusionV2's frame rates (arXiv 2511.07399), "
    "attention by FlashAttention 2 (FlashAttention-3, figure)",
)

DEVICES = {
    device.name: device
    for device in (
        Device(
            "A100",
            attention=215,
            products=230,
            values=2.6,
            layer=0.9e-3,
            vae=62,
            source="HiStream and HiStream+ at 0.48 and 0.34 s per frame (arXiv 2512.21338), 81 frames of 720p decoded "
            "in 10.34 s (FastVAE, A800)",
        ),
        _H100,
        replace(
            _H100,
            name="H200",
            values=6.0,
            vae=176,
            source="the H100's, whose chip it has, with memory 1.43 times as fast (assumed); VAE: 81 frames of 480p "
            "decoded in 1.56 s (SGLang)",
        ),
        Device(
            "4090",
            attention=150,
            products=150,
            values=1.4,
            layer=1.7e-3,
            vae=56,
            source="StreamDiffusionV2's frame rates on RTX 4090 (arXiv 2511.07399)",
        ),
    )
}
"""The GPUs that predictions are made for."""

LINKS = {
    link.name: link
    for link in (
        LinkRates("nvlink", 350e9, 25e-6, "assumed: three quarters of an H100's 450 GB/s"),
        LinkRates("pcie", 10e9, 60e-6, "assumed: through main memory, as GPUs for games need it"),
    )
}
"""The links that predictions are made for."""


def find_device(name: str) -> Device:
    """The rates of a GPU by its name, such as "H100" or "NVIDIA H100 80GB HBM3". Raises ValueError."""
    for known, device in DEVICES.items():
        if known.lower() in name.lower().replace(" ", ""):
            return device
    raise ValueError(f'no rates are known for a GPU "{name[:40]}": use one of {", ".join(DEVICES)}')


def find_link(name: str) -> LinkRates:
    """The rates of a link by its name. Raises ValueError."""
    if name not in LINKS:
        raise ValueError(f'link "{name[:40]}" does not exist: use {" or ".join(LINKS)}')
    return LINKS[name]
