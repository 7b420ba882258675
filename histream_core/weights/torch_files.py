"""Files of torch.save: a zip archive, or an older plain pickle followed by the values.

What the file claims is compared with its size before torch opens it; nothing in it is ever executed. torch maps the
tensors of an archive; those of the older form it reads.
"""

import os
import re
import struct
import warnings
import zipfile
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import torch

from ..files.reading import open_file, printable
from .errors import CheckpointError, damaged
from .instructions import MAX_PICKLE, ObjectsError, check_instructions

ZIP, PICKLE = b"PK\x03\x04", b"\x80"
"""First bytes of the two forms."""

UnpicklingError: type[Exception] = vars(torch.serialization)["pickle"].UnpicklingError
"""The error of torch for a refused pickle, without an import of the module: nothing here may unpickle."""

DAMAGE = (
    RuntimeError, EOFError, OSError, LookupError, ValueError, AttributeError, TypeError, AssertionError, struct.error,
    ArithmeticError, MemoryError, zipfile.BadZipFile,
)  # fmt: skip
"""Errors for a damaged file."""

_MAX_DIRECTORY, _MAX_ENTRIES = 2**24, 100_000
_END, _LOCATOR, _WIDE_END = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
_OLD_PICKLES = 5
"""Those before the values: a number, a version, the machine, the tensors, and the order of their values."""


def load_torch(path: Path) -> object:
    """The content of a file of torch.save, on the CPU: tensors, numbers and texts in lists and dictionaries.

    Raises CheckpointError for one that is damaged, holds anything else, or claims more than the file can hold.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        mapped = file.read(len(ZIP)) == ZIP
        try:
            if mapped:
                check_instructions(_pickle_in(path, file, size), size)
            else:
                file.seek(0)
                for _ in range(_OLD_PICKLES):
                    check_instructions(file, size)
            file.seek(0)
            by_name = mapped and path.suffix != ".safetensors"  # which torch.load would not read as an archive
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what torch says of tensors that are refused, or left out
                return torch.load(path if by_name else file, map_location="cpu", weights_only=True, mmap=by_name)
        except CheckpointError:
            raise
        except ObjectsError as error:
            raise _objects(path, error) from error
        except UnpicklingError as error:
            if "truncated" in str(error):
                raise damaged(path, size) from error
            found = re.search(r"GLOBAL (\S+)", str(error))
            raise _objects(path, found[1] if found else "") from error
        except DAMAGE as error:
            raise damaged(path, size, error) from error


def _objects(path: Path, what: object) -> CheckpointError:
    told = f" ({printable(str(what))})" if str(what) else ""
    return CheckpointError(
        f"{path} holds code or objects other than tensors{told}, and nothing of it was executed: "
        "take the weights as .safetensors"
    )


def _pickle_in(path: Path, file: BinaryIO, size: int) -> BytesIO:
    """The pickle in an archive, whose entries are checked."""
    _check_directory(file, size)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if any("/code/" in name for name in names):
            raise CheckpointError(f"{path} is a TorchScript program, not weights; nothing of it was executed")
        pickled = f"{names[0].split('/')[0]}/data.pkl" if names else ""
        if pickled not in names:
            raise CheckpointError(f"{path} is a zip archive without weights: unpack it and give the file inside")
        _check_entries(path, entries, size)
        return BytesIO(archive.read(pickled))


def _check_entries(path: Path, entries: list[zipfile.ZipInfo], size: int) -> None:
    """Check that all entries together fit into the file."""
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size for entry in entries):
        raise CheckpointError(
            f"{path} is a compressed archive, which torch.save does not write: take the weights as .safetensors"
        )
    if len(entries) > _MAX_ENTRIES or len({entry.filename.lower() for entry in entries}) < len(entries):
        raise ValueError("its entries are too many, or there twice")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("its entries are larger than the file")
    if any(entry.file_size > MAX_PICKLE for entry in entries if "/data/" not in entry.filename):
        raise ValueError(f"beside the tensors it has more than {MAX_PICKLE} bytes")


def _check_directory(file: BinaryIO, size: int) -> None:
    """Check that an archive has one bounded directory right before its end, where every reader finds the same.

    Raises ValueError.
    """
    file.seek(max(0, size - 98))
    tail = file.read()
    end, locator, wide = tail[-22:], tail[-42:-22], tail[-98:-42]
    if not end.startswith(_END):
        raise ValueError("its directory is not at its end")
    length, start = struct.unpack("<II", end[12:20])
    stop = size - 22
    if locator.startswith(_LOCATOR):
        stop = size - 98
        if not wide.startswith(_WIDE_END) or struct.unpack("<Q", locator[8:16])[0] != stop:
            raise ValueError("its directory is not at its end")
        length, start = struct.unpack("<QQ", wide[40:56])
    if start + length != stop or length > _MAX_DIRECTORY:
        raise ValueError(f"its directory of {length} bytes is not at its end, or too long")
