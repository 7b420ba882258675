"""Which sinks the chunks of a stream see: a state machine over finished frames.

B batch, C channels, H W latent grid.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..plan.chunks import Plan


def next_sinks(plan: Plan, sinks: tuple[int, ...], frame: int, latents: Mapping[int, Tensor]) -> tuple[int, ...]:
    """The sinks after `frame`; `latents` [B, C, H, W] are clean, of this frame and of all `sinks`.

    The first frames are sinks without a question. The same latents give the same sinks on any device.
    """
    if plan.sinks is None:
        raise ValueError("the plan's sinks stay: give PlanOptions a rule for `sinks`")
    if len(sinks) < plan.window.anchor_frames:
        return (*sinks, frame)
    return plan.sinks.next_sinks(sinks, frame, [likeness(latents[frame], latents[sink]) for sink in sinks])


def likeness(one: Tensor, other: Tensor) -> float:
    """The cosine of the mean latents of two frames [B, C, H, W]: 1 for the same colours, wherever they are."""
    means = (x.cpu().double().mean((-2, -1)).flatten() for x in (one, other))
    return float(torch.nn.functional.cosine_similarity(*means, dim=0))
