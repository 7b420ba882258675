"""One clip in several ways, which must all score the same: at once, streamed, stopped and resumed, branched.

F frames, H W pixels; clips are [F, H, W, 3], uint8.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...network.forward import Text
from ...plan.chunks import Plan
from ...runs import branch
from ...runs.render import Order, Weights, collect, open_decoder, open_stream, start
from ...stream.noise import SeededNoise
from ...stream.stream import Prompt
from ...vae.decode import to_frames
from ...video.media import to_uint8
from .long import run_chunks
from .prompts import Asked

Way = Callable[[Weights, Plan, Tensor, Asked, Path], np.ndarray]
"""Weights, plan, text embedding, prompt and a folder that may be filled, to a clip."""


def plain(weights: Weights, plan: Plan, text: Tensor, asked: Asked, folder: Path) -> np.ndarray:
    """All latents first, then one call of the VAE for all of them."""
    prompts = [Prompt(Text(text.to(weights.device)))]
    run = open_stream(weights, plan, SeededNoise(asked.seed), prompts, progress=start(plan))
    latent = torch.cat(list(run.chunks()), dim=2)
    return to_uint8(to_frames(open_decoder(weights).decode(latent))[0])


def streamed(weights: Weights, plan: Plan, text: Tensor, asked: Asked, folder: Path) -> np.ndarray:
    """Every chunk decoded as soon as it is there."""
    return np.stack(collect(weights, Order(plan, text, SeededNoise(asked.seed))))


def resumed(weights: Weights, plan: Plan, text: Tensor, asked: Asked, folder: Path) -> np.ndarray:
    """A run that is kept, stopped in the middle, and opened again."""
    half = len(plan.chunks) // 2
    with closing(run_chunks(weights, folder / "run", plan, text, asked)) as chunks:
        before = list(islice(chunks, half))
    return np.concatenate([*before, *run_chunks(weights, folder / "run", plan, text, asked, half)])


def branched(weights: Weights, plan: Plan, text: Tensor, asked: Asked, folder: Path) -> np.ndarray:
    """A run that shares its first half with one that is finished, and makes the other half again."""
    for _ in run_chunks(weights, folder / "base", plan, text, asked):
        pass
    branch(folder / "base", folder / "branch", len(plan.chunks) // 2).close()
    return np.concatenate(list(run_chunks(weights, folder / "branch", plan, text, asked)))


WAYS: dict[str, Way] = {"plain": plain, "streamed": streamed, "resumed": resumed, "branched": branched}
"""The ways; the others are compared with the first."""
