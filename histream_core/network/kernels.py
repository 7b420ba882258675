"""From what was chosen for speed to what computes: the attention, and the forward of a layer."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..plan.chunks import Plan
from ..plan.speed import CHOICES, Speed
from .forward import Forward, forward_chunk
from .layer import RunBlock, run_block
from .ops import attention, elementwise
from .ops.attention import Attention, choose_attention
from .ops.elementwise import choose_elementwise
from .ops.linears import choose_linears

Tell = Callable[[str], None]

_warn = logging.getLogger(__name__).warning


@dataclass(frozen=True)
class Kernels:
    """What the layers of a run are computed with."""

    attention: Attention
    run_block: RunBlock
    in_use: Mapping[str, str]
    """What was chosen, by its name in `Speed`, in words: said once for each run."""
    compiler: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `torch.compile`, its backend among them; none: layers are not compiled."""
    graphs: bool = False
    """Whether passes at LOW are replayed as CUDA graphs."""

    def block_forward(self, plan: Plan, *, tell: Tell = _warn) -> RunBlock:
        """The forward of a layer in a run of `plan`. Where compiling fails it runs as it is, and `tell` says so."""
        if not self.compiler:
            return self.run_block
        from .compile.layers import CompiledBlocks  # takes a second

        return CompiledBlocks(plan, tell, run_block=self.run_block, **self.compiler)

    def low_forward(self, *, tell: Tell = _warn) -> Forward:
        """`forward_chunk` at LOW in a run. Where it cannot be recorded it runs as it is, and `tell` says so."""
        if not self.graphs:
            return forward_chunk
        from .compile.graphs import CudaRecorder, GraphedForward

        return GraphedForward(CudaRecorder(), tell)


def check_installed(speed: Speed) -> None:
    """Refuse a choice whose package is not there, before anything is loaded. Raises ValueError."""
    attention.check_installed(speed.attention)
    elementwise.check_installed(speed.elementwise)


def choose_kernels(
    speed: Speed, device: torch.device, dtype: torch.dtype, *, host: tuple[Attention, str] | None = None
) -> Kernels:
    """The kernels for computing in `dtype` on a device. Raises ValueError for what cannot be had there.

    `host` is the attention of the program that this runs in, and its name, if it has one.
    """
    attend, words = choose_attention(speed.attention, device, dtype, host=host)
    block, linears = choose_linears(speed.linears, device, choose_elementwise(speed.elementwise, run_block))
    if speed.graphs != "off" and device.type != "cuda":
        raise ValueError(f"graphs {speed.graphs} needs a CUDA device, and this is {device.type}: choose graphs off")
    in_use = {name: getattr(speed, name) for name in CHOICES} | {"attention": words, "linears": linears}
    in_use["levers"] = " and ".join(speed.levers) or "none"
    compiler = {} if speed.compile == "off" else {"backend": speed.compile}
    return Kernels(attend, block, in_use, compiler, graphs=speed.graphs == "low")
