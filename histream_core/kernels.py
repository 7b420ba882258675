"""From what was chosen for speed to what computes: the attention, and the forward of a layer."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from .attention import Attention, choose_attention
from .linears import choose_linears
from .speed import Speed
from .wan import RunBlock, run_block


@dataclass(frozen=True)
class Kernels:
    """What the layers of a run are computed with."""

    attention: Attention
    run_block: RunBlock
    in_use: Mapping[str, str]
    """What was chosen, by its name in `Speed`, in words: said once for each run."""


def choose_kernels(
    speed: Speed, device: torch.device, dtype: torch.dtype, *, host: tuple[Attention, str] | None = None
) -> Kernels:
    """The kernels for computing in `dtype` on a device. Raises ValueError for what cannot be had there.

    `host` is the attention of the program that this runs in, and its name, if it has one.
    """
    attention, words = choose_attention(speed.attention, device, dtype, host=host)
    block, linears = choose_linears(speed.linears, device, run_block)
    return Kernels(attention, block, {"attention": words, "linears": linears})
