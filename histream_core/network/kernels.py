"""The functions that a run computes with, from the choices in `Speed`: its attention, its forward of a layer."""

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

Warn = Callable[[str], None]
"""Receives a sentence for the user's log."""

_warn = logging.getLogger(__name__).warning


@dataclass(frozen=True)
class Kernels:
    """The functions that the layers of a run are computed with."""

    attention: Attention
    run_block: RunBlock
    in_use: Mapping[str, str]
    """Choices in words, by their names in `Speed`, for the log of a run."""
    compiler: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `torch.compile`, with its backend; empty: layers are not compiled."""
    graphs: bool = False
    """Whether passes at LOW are replayed as CUDA graphs."""

    def block_forward(self, plan: Plan, *, warn: Warn = _warn) -> RunBlock:
        """The forward of a layer for a run of `plan`. Where compiling fails it runs uncompiled, after a warning."""
        if not self.compiler:
            return self.run_block
        from .compile.layers import CompiledBlocks  # registers an operator, which only such runs need

        return CompiledBlocks(plan, warn, run_block=self.run_block, **self.compiler)

    def low_forward(self, *, warn: Warn = _warn) -> Forward:
        """The forward of a chunk at LOW. Where it cannot be recorded it runs unrecorded, after a warning."""
        if not self.graphs:
            return forward_chunk
        from .compile.graphs import CudaRecorder, GraphedForward

        return GraphedForward(CudaRecorder(), warn)


def check_installed(speed: Speed) -> None:
    """Refuse a choice whose package is missing, before anything is loaded. Raises ValueError."""
    attention.check_installed(speed.attention)
    elementwise.check_installed(speed.elementwise)


def choose_kernels(
    speed: Speed, device: torch.device, dtype: torch.dtype, *, host: tuple[Attention, str] | None = None
) -> Kernels:
    """Choose the kernels for computing in `dtype` on a device. Raises ValueError for a choice that cannot run there.

    `host` is the attention of the host program, with its description; None without a host.
    """
    attend, description = choose_attention(speed.attention, device, dtype, host=host)
    block, linears = choose_linears(speed.linears, device, choose_elementwise(speed.elementwise, run_block))
    if speed.graphs != "off" and device.type != "cuda":
        raise ValueError(f"graphs {speed.graphs} needs a CUDA device, and this is {device.type}: choose graphs off")
    in_use = {name: getattr(speed, name) for name in CHOICES} | {"attention": description, "linears": linears}
    in_use["levers"] = " and ".join(speed.levers) or "none"
    compiler = {} if speed.compile == "off" else {"backend": speed.compile}
    return Kernels(attend, block, in_use, compiler, graphs=speed.graphs == "low")
