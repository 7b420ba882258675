"""One road from weights, a plan and a prompt to a video file: what every verb of the command line walks.

B batch, C channels, T latent frames, F pixel frames, H W in pixels here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .decode import StreamingDecoder, stream_frames
from .media import VideoWriter, to_uint8
from .noise import Noise
from .plan import PIXEL_FRAMES_PER_LATENT, Plan
from .presets import Preset
from .schedule import Scale
from .stream import Denoise, Prompt, Stream, make_caches
from .wan import Denoiser, Text

FPS = 16
"""What Wan 2.1 was trained at."""

GENERATED_AS = {1080: 1088}
"""Sides that are made larger, to be whole in latent cells at both resolutions, and cropped when written."""


@dataclass(frozen=True)
class Weights:
    """What stays the same from video to video."""

    model: nn.Module
    vae: nn.Module
    preset: Preset
    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True)
class Order:
    """One video: all that its frames depend on, besides the weights."""

    plan: Plan
    text: Tensor
    """[1, tokens, channels], padded as the text encoder pads."""
    noise: Noise


@dataclass
class Progress:
    """How far a run is; handed out before every network call and after every chunk."""

    num_calls: int
    num_chunks: int
    num_frames: int
    calls: Counter[Scale] = field(default_factory=Counter)
    """Network calls so far at each scale, cache passes included."""
    chunks: int = 0
    frames: int = 0
    """Frames that are finished, and on disk where there is a file."""
    started: float = field(default_factory=time.monotonic)
    first_frames: float | None = None
    """Seconds from the start of sampling until the first chunk was finished."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def count_chunk(self, num_frames: int) -> None:
        self.chunks += 1
        self.frames += num_frames
        self.first_frames = self.first_frames or self.seconds


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """A report to nobody."""


def generated_size(width: int, height: int) -> tuple[int, int]:
    """The size to generate for a picture of that size: 1920x1088 for 1920x1080, most sizes as they are."""
    return GENERATED_AS.get(width, width), GENERATED_AS.get(height, height)


def whole_length(num_frames: int) -> int:
    """The next 4n + 1, which is what the VAE can make. Raises ValueError for none."""
    if num_frames < 1:
        raise ValueError(f"a video of {num_frames} frames is empty: ask for 81, or at least 1")
    return 1 + -(-(num_frames - 1) // PIXEL_FRAMES_PER_LATENT) * PIXEL_FRAMES_PER_LATENT


def start(plan: Plan) -> Progress:
    """The progress of a run that has not begun."""
    num_calls = sum(len(chunk.steps) + len(chunk.cache_steps) for chunk in plan.chunks)
    return Progress(num_calls, len(plan.chunks), plan.pixel_frames)


def stream(weights: Weights, order: Order, progress: Progress, report: Report = silent) -> Iterator[Tensor]:
    """Yield the finished frames [F, H, W, 3] in [0, 1] of one video, chunk by chunk."""
    model = weights.model
    if order.text.shape[-1] != model.text_dim:
        raise ValueError(
            f"the text has {order.text.shape[-1]} channels but the model reads {model.text_dim}: "
            "take the text encoder that belongs to it"
        )
    caches = make_caches(
        order.plan,
        num_layers=model.num_layers,
        num_heads=model.num_heads,
        head_dim=model.dim // model.num_heads,
        device=weights.device,
        dtype=weights.dtype,
    )
    denoise = _counted(Denoiser(model, dtype=weights.dtype), progress, report)
    run = Stream(
        order.plan,
        denoise,
        caches,
        order.noise,
        [Prompt(Text(order.text.to(weights.device)))],
        channels=model.out_dim,
    )
    decoder = StreamingDecoder(weights.vae, normalised=weights.preset.normalised, rollback=False)
    return stream_frames(decoder, run.chunks())


def _counted(denoise: Denoise, progress: Progress, report: Report) -> Denoise:
    def call(latent, step, cache, text):
        report(progress)
        clean = denoise(latent, step, cache, text)
        progress.calls[step.scale] += 1
        return clean

    return call


def render(
    weights: Weights, order: Order, path: Path, *, size: tuple[int, int], fps: float = FPS, report: Report = silent
) -> Progress:
    """Make one video and write it to `path` (.mp4) as it comes, cropped to `size`; return the counts and times.

    Raises ValueError and OSError that say what to change, and leaves no file behind then. Ctrl-C keeps what is
    finished as a partial file: the KeyboardInterrupt says where.
    """
    writer = VideoWriter(path, size=size, fps=fps)
    progress = start(order.plan)
    try:
        with writer:
            for frames in stream(weights, order, progress, report):
                writer.write(frames)
                progress.count_chunk(len(frames))
                report(progress)
    except KeyboardInterrupt as stop:
        kept = f"{writer.num_frames} finished frames are in {writer.kept}" if writer.kept else "nothing was written"
        raise KeyboardInterrupt(kept) from stop
    return progress


def collect(weights: Weights, order: Order, report: Report = silent) -> list[np.ndarray]:
    """Make one video and keep it: its frames [H, W, 3], uint8."""
    progress = start(order.plan)
    pictures: list[np.ndarray] = []
    for frames in stream(weights, order, progress, report):
        pictures.extend(to_uint8(frames))
        progress.count_chunk(len(frames))
        report(progress)
    return pictures
