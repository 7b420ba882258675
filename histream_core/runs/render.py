"""One road from weights, a plan and a prompt to a video file: what every verb of the command line walks.

B batch, C channels, T latent frames, F pixel frames, H W in pixels here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..network.forward import Denoiser, Text
from ..network.kernels import Kernels, choose_kernels
from ..plan.chunks import Plan
from ..plan.presets import Preset
from ..plan.schedule import Scale
from ..plan.sizes import pixel_frames
from ..plan.speed import DEFAULTS, Speed
from ..stream.noise import Noise
from ..stream.stream import Denoise, Given, Prompt, Stream, make_caches
from ..stream.timeline import Stretch, prompts_for
from ..vae import decoders
from ..vae.ahead import work_ahead
from ..vae.decode import begin_scene, to_frames
from ..video.formats import Format
from ..video.pixels import to_uint8
from ..video.reading import Source
from ..video.writers import open_writer
from ..video.writing import BackgroundWriter, Times

FPS = 16
"""What Wan 2.1 was trained at."""


@dataclass(frozen=True)
class Weights:
    """What stays the same from video to video."""

    model: nn.Module
    vae: nn.Module
    preset: Preset
    device: torch.device
    dtype: torch.dtype
    kv: str = "full"
    """One of TIERS: how keys and values lie in memory."""
    speed: Speed = DEFAULTS

    def kernels(self) -> Kernels:
        """What the network is computed with. Raises ValueError for what cannot be had on this device."""
        return choose_kernels(self.speed, self.device, self.dtype)


@dataclass(frozen=True)
class Order:
    """One video: all that its frames depend on, besides the weights."""

    plan: Plan
    text: Tensor
    """[1, tokens, channels], padded as the text encoder pads."""
    noise: Noise
    changes: tuple[Stretch, ...] = ()
    """What the text becomes later."""
    given: Tensor | None = None
    """The clean latent of the first chunk, where the plan does not denoise it."""


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
    """Frames that are finished, and written or on their way."""
    skipped_frames: int = 0
    """Those of them that an earlier attempt had made."""
    started: float = field(default_factory=time.monotonic)
    first_frames: float | None = None
    """Seconds from the start of sampling until the first chunk was in a file, or finished where there is none."""
    times: Times = field(default_factory=Times)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def seconds_per_frame(self) -> float:
        """Of the frames that this attempt made; 0 where there was nothing left to make."""
        made = self.frames - self.skipped_frames
        return self.seconds / made if made else 0.0

    def count_chunk(self, num_frames: int) -> None:
        self.chunks += 1
        self.frames += num_frames

    def note_first(self, num_written: int, num_frames: int) -> None:
        """Take the time when `num_written` frames, which hold the first chunk's `num_frames`, are seen."""
        if self.first_frames is None and num_written >= num_frames > 0:
            self.first_frames = self.seconds


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """A report to nobody."""


def start(plan: Plan) -> Progress:
    """The progress of a run that has not begun."""
    return Progress(count_calls(plan), len(plan.chunks), plan.num_pixel_frames)


def count_calls(plan: Plan) -> int:
    """Network calls of a plan, cache passes included, and steps that are computed again for their keys."""
    again = sum(bool(chunk.kept) and not chunk.steps for chunk in plan.chunks)
    return again + sum(len(chunk.steps) + len(chunk.cache_steps) for chunk in plan.chunks)


def stream(weights: Weights, order: Order, progress: Progress, report: Report = silent) -> Iterator[Tensor]:
    """Yield the finished frames [F, H, W, 3] in [0, 1] of one video, chunk by chunk."""
    prompts = [Prompt(Text(order.text.to(weights.device))), *prompts_for(order.changes, weights.device)]
    run = open_stream(weights, order.plan, order.noise, prompts, order.given, progress=progress, report=report)
    return timed_decode(decode_frames(weights, run.chunks(), order.plan.scenes), progress.times)


def decode_frames(weights: Weights, chunks: Iterator[Tensor], scenes: Collection[int] = ()) -> Iterator[Tensor]:
    """Yield the frames [F, H, W, 3] of each latent chunk [1, C, T, H, W], in turn with it or beside the next one.

    `scenes` are the first latent frames of scenes, where chunks begin.
    """
    decoder, device = open_decoder(weights), next(weights.vae.parameters()).device
    seen = 0

    def decode(chunk: Tensor) -> Tensor:
        nonlocal seen
        chunk = chunk.to(device)
        if seen and seen in scenes:
            begin_scene(decoder, chunk)
        seen += chunk.shape[2]
        return to_frames(decoder.decode(chunk))[0]

    return work_ahead(chunks, decode, device) if weights.speed.decode == "ahead" else map(decode, chunks)


def open_stream(
    weights: Weights,
    plan: Plan,
    noise: Noise,
    prompts: Sequence[Prompt],
    given: Tensor | Given | None = None,
    *,
    progress: Progress,
    report: Report = silent,
) -> Stream:
    """A stream over fresh caches. Raises ValueError for prompts that the model cannot read."""
    model = weights.model
    for prompt in prompts:
        if prompt.text.context.shape[-1] != model.text_dim:
            raise ValueError(
                f"the text has {prompt.text.context.shape[-1]} channels but the model reads {model.text_dim}: "
                "take the text encoder that belongs to it"
            )
    caches = make_caches(
        plan,
        num_layers=model.num_layers,
        num_heads=model.num_heads,
        head_dim=model.dim // model.num_heads,
        device=weights.device,
        dtype=weights.dtype,
        kv=weights.kv,
    )
    kernels = weights.kernels()
    denoise = Denoiser(
        model,
        dtype=weights.dtype,
        attention=kernels.attention,
        block_forward=kernels.block_forward(plan),
        low_forward=kernels.low_forward(),
    )
    denoise = counted(denoise, progress, report)
    return Stream(plan, denoise, caches, noise, prompts, channels=model.out_dim, given=given)


def open_decoder(weights: Weights) -> decoders.Decoder:
    """The decoder that was chosen for these weights."""
    speed = weights.speed
    return decoders.open_decoder(
        weights.vae,
        normalised=weights.preset.normalised,
        channels_last=speed.vae_layout == "channels-last",
        strips=int(speed.vae_strips),
    )


def timed_decode(items: Iterator, times: Times) -> Iterator:
    """The same items; the time they take to come, less that of the network's calls, is counted as decoding."""
    while True:
        start, before = time.perf_counter(), times.denoise
        item = next(items, None)
        _wait_for(item)
        times.settle()
        times.decode += time.perf_counter() - start - (times.denoise - before)
        if item is None:
            return
        yield item


def _wait_for(item: object) -> None:
    """Return when finished frames are there; they are copied to main memory next, which waits for them too."""
    frames = getattr(item, "frames", item)
    if isinstance(frames, Tensor) and frames.is_cuda:
        torch.cuda.current_stream(frames.device).synchronize()


def counted(denoise: Denoise, progress: Progress, report: Report) -> Denoise:
    """The same network call, with its seconds and its number added to the progress."""

    def call(latent, step, cache, text):
        report(progress)
        with progress.times.count("denoise", device=latent.device):
            clean = denoise(latent, step, cache, text)
        progress.calls[step.scale] += 1
        return clean

    return call


def render(
    weights: Weights,
    order: Order,
    path: Path,
    format: Format,
    *,
    size: tuple[int, int],
    fps: float = FPS,
    metadata: Mapping[str, str] | None = None,
    sound: Source | None = None,
    report: Report = silent,
) -> Progress:
    """Make one video and write it to `path` as it comes, cropped to `size`; return the counts and times.

    The sound of the file `sound` is copied in, as far as the pictures go.
    Raises ValueError and OSError that say what to change, and leaves no file behind then. Ctrl-C keeps what is
    finished as a partial file: the KeyboardInterrupt says where.
    """
    progress = start(order.plan)
    first = pixel_frames(min(len(order.plan.chunks[0].frames), order.plan.num_latent_frames))
    files = open_writer(path, format, size=size, fps=fps, metadata=metadata, sound=sound)
    writer = BackgroundWriter(files, times=progress.times)

    def watch(progress: Progress) -> None:
        progress.note_first(writer.num_frames, first)
        report(progress)

    try:
        with writer:
            for frames in stream(weights, order, progress, watch):
                writer.write(frames)
                progress.count_chunk(len(frames))
                watch(progress)
    except KeyboardInterrupt as stop:
        kept = f"{writer.num_frames} finished frames are in {writer.kept}" if writer.kept else "nothing was written"
        raise KeyboardInterrupt(kept) from stop
    progress.note_first(writer.num_frames, first)
    return progress


def collect(weights: Weights, order: Order, report: Report = silent) -> list[np.ndarray]:
    """Make one video and keep it: its frames [H, W, 3], uint8."""
    progress = start(order.plan)
    pictures: list[np.ndarray] = []
    for frames in stream(weights, order, progress, report):
        pictures.extend(to_uint8(frames))
        progress.count_chunk(len(frames))
        progress.note_first(len(pictures), len(frames))
        report(progress)
    return pictures
