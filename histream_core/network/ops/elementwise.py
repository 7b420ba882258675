"""What a layer computes between its matrix products: plain PyTorch, or comfy-kitchen's fused kernels.

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
    """One way to compute it."""

    modulate: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
    """A layer norm without weights, [B, L, dim], and a shift and a scale [B, 1, dim]: norm(x) (1 + scale) + shift."""
    rotate: Rotate
    rotate_: Rotate
    """The same; may overwrite what it is given."""


def modulate(norm: nn.Module, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Norm and modulation, by a call of the norm."""
    return torch.addcmul(shift, norm(x), 1 + scale)


PLAIN = Elementwise(modulate, rotate, rotate)


def choose_elementwise(name: str, run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The forward of a layer, `run`, with norms and rotations as `name` says.

    Raises ValueError for what is not installed.
    """
    check_installed(name)
    return run if name == "plain" else with_elementwise(run, fused())


def check_installed(name: str) -> None:
    """Refuse kernels that are not there. Raises ValueError that says what to install."""
    if name != "plain" and find_spec(PACKAGE) is None:
        raise ValueError(f"elementwise {name} is not installed: install comfy-kitchen, or choose plain")


@cache  # what is compiled is known by its function, which has to be the same in the next run
def with_elementwise(run: Callable[..., Tensor], elementwise: Elementwise) -> Callable[..., Tensor]:
    """The forward of a layer, `run`, that computes norms and rotations by `elementwise`."""

    def run_with_elementwise(block, call) -> Tensor:
        return run(block, call, elementwise)

    return run_with_elementwise


@cache
def fused() -> Elementwise:
    """By comfy-kitchen, which has kernels for CUDA devices and computes as PyTorch does elsewhere.

    Its norm with rotations is of each head by itself, Wan's is of all heads together: so these stay two.
    """
    kitchen = import_module(PACKAGE)

    def adaln(norm: nn.Module, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return kitchen.adaln(x, scale, shift, norm.eps)

    def turn(x: Tensor, table: Tensor) -> Tensor:
        return kitchen.apply_rope1(x, table[None])

    def turn_(x: Tensor, table: Tensor) -> Tensor:
        return kitchen.apply_rope1_(x, table[None])

    return Elementwise(adaln, turn, turn_)
