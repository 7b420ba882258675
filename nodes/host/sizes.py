"""The size of a video that is made at the next one that fits, and cropped when it is decoded."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from ...histream_core.plan.chunks import Plan
from ...histream_core.plan.make import describe_crop
from ...histream_core.plan.sizes import PIXELS_PER_CELL, shown_size
from . import log as host_log

SIZE = "histream_size"
"""Where a LATENT says its latent grid and the width and height of its video."""


def latent_size(shape: Sequence[int]) -> tuple[int, int]:
    """Width and height in pixels of latents of `shape`; of an empty LATENT, the size that the artist asks for."""
    height, width = (cells * PIXELS_PER_CELL for cells in shape[-2:])
    return width, height


def video_size(size: tuple[int, int], *, crop: bool) -> tuple[int, int]:
    """Width and height of the video for which `size` was asked; with `crop`, a side of 1088 becomes 1080."""
    return shown_size(*size) if crop else size


def with_size(latent: Mapping, plan: Plan, size: tuple[int, int]) -> dict:
    """The LATENT of a plan that says its video is of `size`, for whoever decodes it, where it is larger than that."""
    found = {SIZE: (tuple(latent["samples"].shape[-2:]), size)} if plan.size != size else {}
    return {key: value for key, value in latent.items() if key != SIZE} | found


def size_in(latent: Mapping) -> tuple[int, int]:
    """The size that was asked for of the video in a LATENT; that of its latents, if they say none or were resized."""
    shape = latent["samples"].shape
    grid, size = latent.get(SIZE, ((), ()))
    return size if grid == tuple(shape[-2:]) else latent_size(shape)


def say_crop(plan: Plan, size: tuple[int, int]) -> None:
    """Say where more is generated than is shown."""
    for note in describe_crop(plan.size, size):
        host_log.tell(note)


def crop_latent(latent: Tensor, shape: Sequence[int]) -> Tensor:
    """The centre of latents [B, C, T, H, W], with the grid of `shape`; an odd row or column is cut off at the end."""
    height, width = shape[-2:]
    top, left = (latent.shape[-2] - height) // 2, (latent.shape[-1] - width) // 2
    return latent[..., top : top + height, left : left + width]
