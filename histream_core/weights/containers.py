"""File formats of weights: bytes to named tensors, and named tensors to safetensors.

A file is recognised by its content, never by its extension. Nothing in it is ever executed. Tensors are mapped, not
read, wherever the format allows.
"""

import os
import re
import shutil
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..files.tensors import Layout, aligned, header, tensor_bytes

Tensors = dict[str, Tensor]

CONTAINERS = ("generator_ema", "generator", "model", "state_dict")
"""Names of the dictionary of weights in a training checkpoint, the preferred one first: averaged weights are better."""

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")

UnpicklingError: type[Exception] = vars(torch.serialization)["pickle"].UnpicklingError
"""The error of torch for a refused pickle, without an import of the module: nothing here may unpickle."""

DAMAGE = (
    RuntimeError, EOFError, OSError, LookupError, ValueError, AttributeError, TypeError, AssertionError, struct.error
)  # fmt: skip
"""Errors of torch for a damaged file."""


class CheckpointError(ValueError):
    """A file cannot be used; the message is one sentence that says why and what to do."""


_LFS = b"version https://git-lfs.github.com/spec/"
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_PAGE = re.compile(rb"\s*(<!doctype|<html|<\?xml|<head|\{\s*\"(error|message)\")", re.IGNORECASE)


def open_weights(path: Path) -> tuple[Tensors, dict[str, str], str]:
    """The tensors of a file by key name, its safetensors metadata, and its container. Raises CheckpointError."""
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
        return _open_safetensors(path, size)
    if start.startswith(_ZIP):
        return _open_torch(path, size, mapped=True)
    if start.startswith(_PICKLE):
        return _open_torch(path, size, mapped=False)
    raise CheckpointError(f"{path} is not a checkpoint: its first bytes are {start[:8]!r}; give a .safetensors or .pt")


def _read_start(path: Path) -> tuple[bytes, int]:
    try:
        if path.is_dir():
            inside = sorted(p.name for p in path.iterdir() if p.suffix in SUFFIXES)[:3]
            hint = f"the file in it ({', '.join(inside)})" if inside else "a .safetensors or .pt file"
            raise CheckpointError(f"{path} is a folder: give {hint}")
        with path.open("rb") as file:
            start, size = file.read(512), os.fstat(file.fileno()).st_size
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist: check the name") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes): download it again")
    return start, size


def _damaged(path: Path, size: int, why: object = "") -> CheckpointError:
    detail = f" ({str(why).splitlines()[0]})" if str(why) else ""
    return CheckpointError(f"{path} is truncated or damaged at {size} bytes{detail}: download it again")


def _open_safetensors(path: Path, size: int) -> tuple[Tensors, dict[str, str], str]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}, "safetensors"  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise _damaged(path, size, error) from error


def _open_torch(path: Path, size: int, *, mapped: bool) -> tuple[Tensors, dict[str, str], str]:
    """Open a file of torch.save: a zip archive, which can be mapped, or an older plain pickle, which is read."""
    if mapped:
        _check_zip(path, size)
    mapped = mapped and path.suffix != ".safetensors"  # with this suffix torch.load would not read it as a zip
    try:
        with path.open("rb") as file:
            content = torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as error:
        if "truncated" in str(error):
            raise _damaged(path, size) from error
        raise _refuse_code(path, error) from error
    except DAMAGE as error:
        raise _damaged(path, size, error) from error
    tensors, container = _unwrap(path, content)
    return tensors, {}, container


def _check_zip(path: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise _damaged(path, size) from error
    if any("/code/" in name for name in names):
        raise CheckpointError(f"{path} is a TorchScript program, not weights; nothing of it was executed")
    if not any(name.endswith("/data.pkl") for name in names):
        raise CheckpointError(f"{path} is a zip archive without weights: unpack it and give the file inside")


def _refuse_code(path: Path, error: Exception) -> CheckpointError:
    found = re.search(r"GLOBAL (\S+)", str(error))
    what = f" ({found[1]})" if found else ""
    return CheckpointError(
        f"{path} holds code or objects other than tensors{what}, and nothing of it was executed: "
        "take the weights as .safetensors"
    )


def _unwrap(path: Path, content: object) -> tuple[Tensors, str]:
    """The dictionary of weights in a training checkpoint, without everything else (optimizer, steps)."""
    container = "torch"
    while isinstance(content, dict):
        inner = {key: value for key, value in content.items() if isinstance(value, dict) and value}
        key = next((name for name in CONTAINERS if name in inner), next(iter(inner)) if len(inner) == 1 else None)
        tensors = {str(name): x for name, x in content.items() if isinstance(x, Tensor)}
        if len(tensors) > len(inner) or key is None:
            break
        content, container = inner[key], f"{container}: {key}" if container == "torch" else f"{container}.{key}"
    else:
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not weights by name: give another file")
    if not tensors:
        names = ", ".join(str(name) for name in list(content)[:5])
        raise CheckpointError(f"{path} holds no weights, only {names or 'nothing'}: give another file")
    return tensors, container


def write_safetensors(
    target: str | Path,
    layout: Layout,
    read: Callable[[str], Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write a safetensors file atomically; `read` returns its tensors, and one is in memory at a time.

    The file is written as ".NAME.partial", synchronised and renamed. A kill leaves at most that partial file, which the
    next attempt overwrites. Raises CheckpointError for a full disk.
    """
    target = Path(target)
    layout = aligned(layout)
    start = header(layout, metadata)
    needed = len(start) + sum(torch.Size(shape).numel() * dtype.itemsize for dtype, shape in layout.values())
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise CheckpointError(f"{target} needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free: make room")
    partial = target.with_name(f".{target.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(start)
            for key in layout:
                file.write(tensor_bytes(read(key)))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        raise CheckpointError(f"{target} could not be written, and nothing was left: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
