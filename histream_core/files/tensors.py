"""Safetensors files whose bytes follow from their content: the library writes metadata in another order every time."""

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
"""The names of dtypes in a header."""

Layout = Mapping[str, tuple[torch.dtype, Sequence[int]]]
"""Dtype and shape of each tensor, in the order in which they lie in the file."""


def aligned(layout: Layout) -> dict[str, tuple[torch.dtype, Sequence[int]]]:
    """The layout with wide elements first, then by name, so that every tensor is aligned."""
    return dict(sorted(layout.items(), key=lambda item: (-item[1][0].itemsize, item[0])))


def header(layout: Layout, metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a file, before those of its tensors: the length of the header, and the header."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    for (name, (dtype, shape)), (start, end) in zip(layout.items(), _spans(layout), strict=True):
        entries[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _spans(layout: Layout) -> Iterator[tuple[int, int]]:
    """Where the bytes of each tensor begin and end, counted from the end of the header."""
    end = 0
    for dtype, shape in layout.values():
        start, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        yield start, end


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The values of a tensor as they lie in a file."""
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A whole file."""
    layout = aligned({name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()})
    return b"".join([header(layout, metadata), *(tensor_bytes(tensors[name]) for name in layout)])
