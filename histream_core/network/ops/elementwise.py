"""The norms and rotations of a layer: by PyTorch's kernels, or by comfy-kitchen's fused kernels.

B batch, L tokens, N heads, D head dim.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .rope import Rotate, rotate

PACKAGE = "comfy_kitchen"


class Elementwise(NamedTuple):
    """One implementation of norms and rotations."""

    modulate: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
    """modulate(norm, x, shift, scale) is norm(x) (1 + scale) + shift, for a layer norm without weights.

    `x` is [B, L, dim], shift and scale are [B, 1, dim].
    """
    rotate: Rotate
    """Computes `rope.rotate`."""
    rotate_: Rotate
    """Computes `rope.rotate` and may overwrite its argument."""


def modulate(norm: nn.Module, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Compute norm(x) (1 + scale) + shift by calling the norm."""
    return torch.addcmul(shift, norm(x), 1 + scale)


SHARED_TABLE_NDIM = 5
"""Dimensions of a table of rotations that all batch items share; rows of one call have tables of their own."""

PLAIN = Elementwise(modulate, rotate, rotate)


def choose_elementwise(name: str, run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the forward of a layer, `run`, with norms and rotations of that name in ELEMENTWISE.

    Raises ValueError for kernels that are not installed.
    """
    check_installed(name)
    return run if name == "plain" else with_elementwise(run, fused())


def check_installed(name: str) -> None:
    """Refuse kernels whose package is missing. Raises ValueError that says what to install."""
    if name != "plain" and find_spec(PACKAGE) is None:
        raise ValueError(f"elementwise {name} is not installed: install comfy-kitchen, or choose plain")


@cache  # compiled graphs are found by the function, which has to be the same object in the next run
def with_elementwise(run: Callable[..., Tensor], elementwise: Elementwise) -> Callable[..., Tensor]:
    """Return the forward of a layer, `run`, with norms and rotations computed by `elementwise`."""

    def run_with_elementwise(block, call) -> Tensor:
        return run(block, call, elementwise)

    return run_with_elementwise


@cache
def fused() -> Elementwise:
    """Norms and rotations of comfy-kitchen: fused kernels on CUDA devices, PyTorch's elsewhere.

    Its kernel that does both normalises each head by itself, and Wan normalises all heads together, so norm and
    rotation of queries and keys stay two calls.
    """
    kitchen = import_module(PACKAGE)

    def adaln(norm: nn.Module, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return kitchen.adaln(x, scale, shift, norm.eps)

    def turn(x: Tensor, table: Tensor) -> Tensor:
        return rotate(x, table) if table.ndim > SHARED_TABLE_NDIM else kitchen.apply_rope1(x, table[None])

    def turn_(x: Tensor, table: Tensor) -> Tensor:
        return rotate(x, table) if table.ndim > SHARED_TABLE_NDIM else kitchen.apply_rope1_(x, table[None])

    return Elementwise(adaln, turn, turn_)
