"""Memory for pictures between nodes, with a limit."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

FLOAT_BYTES = 4
GIB = 2**30


def image_gib(shape: Sequence[int]) -> float:
    """Memory of an IMAGE [F, H, W, 3] in GiB; a picture of 1080p takes 23.7 MiB."""
    return math.prod(shape) * FLOAT_BYTES / GIB


def empty_images(shape: Sequence[int], limit_gib: float, instead: str) -> Tensor:
    """Memory for pictures of that shape. Raises as `check_images` does."""
    check_images(shape, limit_gib, instead)
    return torch.empty(tuple(shape))


def check_images(shape: Sequence[int], limit_gib: float, instead: str = "turn images off and use the VIDEO") -> None:
    """Raise ValueError for pictures of that shape above the limit, with the number and what to do instead."""
    needed = image_gib(shape)
    if needed > limit_gib:
        raise ValueError(
            f"the pictures would take {needed:.1f} GiB of memory and the limit is {limit_gib:g} GiB: {instead}, or "
            "raise image_limit_gib"
        )
