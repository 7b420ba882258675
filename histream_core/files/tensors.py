"""Safetensors files: from anywhere without harm, and with reproducible bytes.

The library orders metadata differently in every process, and files of a run are compared byte by byte.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .reading import open_file, parse_json

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of the dtypes in a safetensors header."""
if hasattr(torch, "float8_e8m0fnu"):
    DTYPES[torch.float8_e8m0fnu] = "F8_E8M0"

BUFFERS = {torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64", torch.complex64: "C64"}
"""Names of further dtypes of buffers that some models are saved with; no weight has one."""

MAX_HEADER = 10_000_000
"""Largest header in bytes that is read; that of a model with 14 billion parameters has 0.2 million."""

MAX_TENSORS = 20_000

_MAX_AXES, _MAX_VALUES = 16, 2**48
_SIZES = {name: dtype.itemsize for dtype, name in DTYPES.items()}
_BUFFER_SIZES = {name: dtype.itemsize for dtype, name in BUFFERS.items()}


class TensorFileError(ValueError):
    """A file of tensors is damaged, or not one that we read; the message is a sentence that names it and says why."""


Layout = Mapping[str, tuple[torch.dtype, Sequence[int]]]
"""Dtype and shape of each tensor, in the order of their data in the file."""


def aligned(layout: Layout) -> dict[str, tuple[torch.dtype, Sequence[int]]]:
    """The layout sorted by element size, largest first, then by name: so the data of every tensor is aligned."""
    return dict(sorted(layout.items(), key=lambda item: (-item[1][0].itemsize, item[0])))


def header(layout: Layout, metadata: Mapping[str, str]) -> bytes:
    """The bytes before the tensor data: the length of the header, and the header, padded to a multiple of 8."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    for (name, (dtype, shape)), (start, end) in zip(layout.items(), _spans(layout), strict=True):
        entries[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _spans(layout: Layout) -> Iterator[tuple[int, int]]:
    """Start and end of each tensor, in bytes from the end of the header."""
    end = 0
    for dtype, shape in layout.values():
        start, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        yield start, end


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The data of a tensor in C order, not copied where it lies on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a complete file with these tensors."""
    layout = aligned({name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()})
    return b"".join([header(layout, metadata), *(tensor_bytes(tensors[name]) for name in layout)])


def read_safetensors(path: str | Path, *, buffers: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, mapped and not read, and its metadata. `buffers`: those of BUFFERS too.

    Raises OSError for what is no ordinary file, and TensorFileError before a tensor is made: the header, the number
    and the sizes of tensors are bounded by what the file holds.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            length = int.from_bytes(file.read(8), "little")
            if length > min(MAX_HEADER, size - 8):
                raise ValueError(f"its header would have {length} bytes, at most {MAX_HEADER} are read")
            sizes = _SIZES | _BUFFER_SIZES if buffers else _SIZES
            _check_header(parse_json(file.read(length).decode(), unique=True), size - 8 - length, sizes)
        except ValueError as error:
            raise _damaged(path, size, error) from error
    try:
        with safe_open(path, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except (SafetensorError, RuntimeError, LookupError, OverflowError, TypeError) as error:
        raise _damaged(path, size, error) from error


def _damaged(path: str | Path, size: int, why: Exception) -> TensorFileError:
    if isinstance(why, TensorFileError):
        return TensorFileError(f"{path} {why}")
    said = " ".join(str(why).split())[:200]
    return TensorFileError(f"{path} is truncated or damaged at {size} bytes ({said}): get it again")


def _check_header(header: object, room: int, sizes: Mapping[str, int]) -> None:
    """Check a header against the bytes that follow it. Raises ValueError that says what is wrong.

    `sizes`: bytes of a value by the name of its dtype.
    """
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    entries = dict(header)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are no texts by name")
    if len(entries) > MAX_TENSORS:
        raise TensorFileError(f"holds {len(entries)} tensors, and at most {MAX_TENSORS} are read: it is no model")
    end = 0
    for start, stop in sorted(_span(name, entry, room, sizes) for name, entry in entries.items()):
        if start < end:
            raise ValueError("its tensors overlap")
        end = stop


def _span(name: str, entry: object, room: int, sizes: Mapping[str, int]) -> tuple[int, int]:
    """Start and end of the data of a tensor in a header, checked against its shape."""
    told = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (told.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not (isinstance(dtype, str) and _whole(shape) and len(shape) <= _MAX_AXES and _whole(offsets)):
        raise ValueError(f"its entry of {name[:80]!r} is none of a tensor")
    if dtype not in sizes:
        raise TensorFileError(f"holds {name[:80]!r} as {dtype[:20]}: give a file with {', '.join(sizes)} alone")
    if math.prod(max(length, 1) for length in shape) > _MAX_VALUES:
        raise ValueError(f"its {name[:80]!r} would have the shape {str(shape)[:200]}")
    if len(offsets) != 2 or not offsets[0] <= offsets[1] <= room:
        raise ValueError(f"its {name[:80]!r} lies beyond its end")
    if offsets[1] - offsets[0] != math.prod(shape) * sizes[dtype]:
        raise ValueError(f"its {name[:80]!r} has another size than its shape {shape}")
    return offsets[0], offsets[1]


def _whole(numbers: object) -> TypeGuard[list[int]]:
    """Whether this is a list of numbers from 0 to 2**63."""
    return isinstance(numbers, list) and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
