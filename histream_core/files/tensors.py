"""Safetensors files with reproducible bytes.

The library orders metadata differently in every process, and files of a run are compared byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

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
