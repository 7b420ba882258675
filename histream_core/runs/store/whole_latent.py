"""All latents of a run as one tensor on the disk, memory-mapped: only the parts that are used are read.

The file has the host's own format (.latent: safetensors with one tensor), so that it can also be loaded by hand.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...files.disk import File, whole_file
from ...files.reading import open_file, parse_json
from ...files.tensors import MAX_HEADER, header
from ...plan.schedule import Scale
from .folder import inside
from .journal import Journal
from .manifest import kept_frames
from .segments import is_file

NAME = "video.latent"
_TENSOR = "latent_tensor"


def write_latent(journal: Journal, convert: Callable[[Tensor], Tensor]) -> Path:
    """Write the latents of a finished run, cropped to its length, chunk by chunk; return the path.

    `convert` turns a chunk [1, C, T, H, W] into the values to store. An existing file of the same run is kept. Raises
    ValueError for a batch and OSError for a full disk; nothing is left then.
    """
    path = inside(journal.folder / NAME)
    plan, last = journal.manifest.plan, journal.recipe(journal.finished - 1)
    batch, channels = journal.read(0).shape[:2]
    if batch != 1:
        raise ValueError(f"the run holds {batch} videos: this file takes one")
    shape = (1, channels, plan.num_latent_frames, *plan.grids[Scale.HIGH])
    layout = {_TENSOR: (torch.float32, shape), "latent_format_version_0": (torch.float32, (0,))}
    start = header(layout, {"recipe": last})
    if is_file(path) and _is_whole(path, start, num_bytes=4 * math.prod(shape)):
        return path
    with whole_file(path) as file:
        file.write(start)
        _write_chunks(file, len(start), journal, shape, convert)
    return path


def map_latent(path: Path) -> Tensor:
    """The tensor [1, C, T, H, W], float32, in a .latent file. Writing to it does not change the file."""
    with open_file(path) as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER:
            raise OSError(f"{path} is no file of latents: remove it, the run writes it again")
        shape = parse_json(file.read(size))[_TENSOR]["shape"]
        return torch.from_numpy(np.memmap(file, np.float32, "c", offset=8 + size, shape=tuple(shape)))


def _is_whole(path: Path, start: bytes, num_bytes: int) -> bool:
    """Whether a file begins so, with so many bytes behind."""
    with open_file(path) as file:
        whole = os.fstat(file.fileno()).st_size == len(start) + num_bytes
        return whole and file.read(len(start)) == start


def _write_chunks(
    file: File, start: int, journal: Journal, shape: tuple[int, ...], convert: Callable[[Tensor], Tensor]
) -> None:
    _, _, num_frames, height, width = shape
    frame_bytes = 4 * height * width
    for chunk in journal.manifest.plan.chunks:
        latent = convert(journal.read(chunk.index))[0, :, : kept_frames(journal.manifest.plan, chunk)]
        for channel, frames in enumerate(latent.float().contiguous().numpy()):
            file.seek(start + (channel * num_frames + chunk.frames.start) * frame_bytes)
            file.write(frames.tobytes())
