"""File formats of weights: bytes to named tensors, and named tensors to safetensors.

A file is recognised by its content, never by its extension. Nothing in it is ever executed. Tensors are mapped, not
read, wherever the format allows.
"""

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..files.disk import whole_file
from ..files.reading import GIGABYTE, open_file
from ..files.tensors import (
    BUFFERS,
    DTYPES,
    MAX_TENSORS,
    Layout,
    TensorFileError,
    aligned,
    header,
    read_safetensors,
    tensor_bytes,
)  # fmt: skip
from .errors import CheckpointError, first_five
from .shards import files_of
from .torch_files import PICKLE, ZIP, load_torch

Tensors = dict[str, Tensor]

CONTAINERS = (
    "generator_ema", "ema", "ema_model", "model_ema", "generator", "model", "state_dict", "module", "transformer",
    "dit", "net", "student", "generator_lora", "lora",
)  # fmt: skip
"""Names of the dictionary of weights in a training checkpoint, the preferred one first: averaged weights are better."""

UNMERGED = "a model with a LoRA beside its weights that is not merged into them"
MERGE = "merge it (peft: merge_and_unload), save the model again and give that file"

_LONGEST_NAME, _DEEPEST, _MOST_SHARED = 512, 8, 4

_LFS = b"version https://git-lfs.github.com/spec/"
_PAGE = re.compile(rb"\s*(<!doctype|<html|<\?xml|<head|\{\s*\"(error|message)\")", re.IGNORECASE)


def open_weights(path: Path) -> tuple[Tensors, dict[str, str], str]:
    """The tensors by key name, metadata of safetensors, and the container, of a file or of the shards it belongs to.

    Raises CheckpointError.
    """
    files = files_of(path)
    tensors, metadata, container = _open_file(files[0])
    for file in files[1:]:
        more, its, _ = _open_file(file)
        if twice := tensors.keys() & more.keys():
            raise CheckpointError(f"{file} holds {first_five(sorted(twice))}, as a file before it: get the files again")
        tensors |= more
        metadata |= its
    return tensors, metadata, container if len(files) == 1 else f"{container}, {len(files)} files"


def _open_file(path: Path) -> tuple[Tensors, dict[str, str], str]:
    """`open_weights` of one file."""
    start, size = _read_start(path)
    if start.startswith(_LFS):
        raise CheckpointError(
            f"{path} is a git-LFS pointer of {size} bytes, not the weights: run `git lfs pull`, or download the file"
        )
    if _PAGE.match(start):
        raise CheckpointError(f"{path} is a web page, not weights: the download failed, fetch the file itself")
    if start.startswith(b"GGUF"):
        raise CheckpointError(f"{path} is a GGUF file: load it in ComfyUI and connect its MODEL, or take a safetensors")
    if start[8:9] == b"{":
        tensors, metadata = _open_safetensors(path)
        container = "safetensors"
    elif start.startswith((ZIP, PICKLE)):
        tensors, container = _unwrap(path, load_torch(path))
        metadata = {}
    else:
        raise CheckpointError(
            f"{path} is not a checkpoint: its first bytes are {start[:8]!r}; give a .safetensors or .pt"
        )
    _check_tensors(path, size, tensors)
    return tensors, metadata, container


def _read_start(path: Path) -> tuple[bytes, int]:
    try:
        with open_file(path) as file:
            start, size = file.read(512), os.fstat(file.fileno()).st_size
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist: check the name") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}" if error.strerror else str(error)) from error
    if size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes): download it again")
    return start, size


def _open_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    try:
        return read_safetensors(path, buffers=True)
    except (TensorFileError, OSError) as error:
        raise CheckpointError(str(error)) from error


def _check_tensors(path: Path, size: int, tensors: Tensors) -> None:
    """Check that these are plain tensors of the dtypes that we know, and that the file can hold what they claim."""
    if len(tensors) > MAX_TENSORS:
        raise CheckpointError(
            f"{path} holds {len(tensors)} tensors, and at most {MAX_TENSORS} are read: it is no model"
        )
    known = (*DTYPES, *BUFFERS, torch.complex128)
    for name, x in tensors.items():
        if len(name) > _LONGEST_NAME:
            raise CheckpointError(f"{path} has a name of {len(name)} letters ({first_five([name])}): it is no model")
        if x.layout != torch.strided or x.is_quantized or x.device.type != "cpu" or x.dtype not in known:
            kind = str(x.dtype if x.layout == torch.strided else x.layout).removeprefix("torch.")
            raise CheckpointError(f"{path} holds {first_five([name])} as {kind}: give a file with plain tensors")
    claimed = sum(x.numel() * x.element_size() for x in tensors.values())
    if claimed > _MOST_SHARED * size:
        raise CheckpointError(f"{path} has {size} bytes and its tensors would have {claimed}: take another file")


def _unwrap(path: Path, content: object) -> tuple[Tensors, str]:
    """The dictionary of weights in a training checkpoint, without everything else (optimizer, steps)."""
    container = "torch"
    for _ in range(_DEEPEST):
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} holds a {type(content).__name__}, not weights by name: give another file")
        items = dict(dict.items(content))  # whatever attributes the object has
        inner = {key: value for key, value in items.items() if isinstance(value, dict) and value}
        key = next((name for name in CONTAINERS if name in inner), next(iter(inner)) if len(inner) == 1 else None)
        if key is not None and key != "generator_lora" and f"{key}_lora" in inner:
            raise CheckpointError(f"{path} holds {UNMERGED}: {MERGE}")
        tensors = {str(name): x for name, x in items.items() if isinstance(x, Tensor)}
        if tensors and (key is None or len(tensors) > len(inner)):
            return tensors, container
        if key is None:
            raise CheckpointError(f"{path} holds no weights, only {first_five(items) or 'nothing'}: give another file")
        content, chosen = inner[key], first_five([key])
        container = f"{container}: {chosen}" if container == "torch" else f"{container}.{chosen}"
    raise CheckpointError(f"{path} holds dictionaries in each other, more than {_DEEPEST} deep: give another file")


def write_safetensors(
    target: str | Path,
    layout: Layout,
    read: Callable[[str], Tensor],
    metadata: Mapping[str, str],
    *,
    overwrite: bool = True,
) -> None:
    """Write a safetensors file atomically; `read` returns its tensors, and one is in memory at a time.

    A kill leaves at most a partial file beside the target. Raises CheckpointError for a full disk, and without
    `overwrite` for a name that something has.
    """
    target = Path(target)
    layout = aligned(layout)
    start = header(layout, metadata)
    needed = len(start) + sum(torch.Size(shape).numel() * dtype.itemsize for dtype, shape in layout.values())
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise CheckpointError(
            f"{target} needs {needed / GIGABYTE:.2f} GB and {free / GIGABYTE:.2f} GB are free: make room"
        )
    try:
        with whole_file(target, overwrite=overwrite) as file:
            file.write(start)
            for key in layout:
                file.write(tensor_bytes(read(key)))
    except OSError as error:
        raise CheckpointError(str(error)) from error
