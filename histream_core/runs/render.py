"""Videos of bare weights without a run folder: frames as a stream, in a file, or as a list.

B batch, C channels, T latent frames, F pixel frames, H W in pixels here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from ..files.disk import NewName
from ..plan import Plan
from ..plan.sizes import FPS, pixel_frames
from ..stream.inputs import Inputs, Source
from ..stream.noise import Noise
from ..stream.prompts import Prompt
from ..vae.ahead import decode_ahead
from ..vae.decode import Later, ask_decoder, begin_scene, to_frames
from ..video.formats import Format
from ..video.media import Source as MediaSource
from ..video.pixels import to_uint8
from ..video.writers import open_writer
from ..video.writing import BackgroundWriter
from .last_frames import LastFrames
from .progress import Progress, Report, silent, timed_decode
from .weights import Weights


@dataclass(frozen=True)
class Order:
    """One video: everything that its frames depend on, besides the weights."""

    plan: Plan
    prompts: tuple[Prompt, ...]
    noise: Noise
    given: Tensor | None = None
    """The clean latents [1, C, T, H, W] of the chunks that the plan does not denoise."""
    source: Source | None = None
    """How chunks begin, for a plan that restyles a source: a new `EncodedSource`."""


@dataclass(frozen=True)
class Target:
    """The file that a video is written to."""

    path: Path
    format: Format
    size: tuple[int, int]
    """Width and height of the picture; frames are cropped to it."""
    fps: float = FPS
    metadata: Mapping[str, str] | None = None
    sound: MediaSource | None = None
    """A file whose sound is copied into the video, up to the last picture."""
    overwrite: bool = False
    """Whether an older file of that name is replaced, which is refused otherwise."""
    extended: LastFrames | None = None
    """The end of a video that is written first, whole, in the place of the frames that both videos have."""


def stream_frames(weights: Weights, order: Order, progress: Progress | None = None) -> Iterator[Tensor]:
    """Yield the finished frames [F, H, W, 3] in [0, 1] of one video, chunk by chunk, as soon as they are there."""
    progress = progress or weights.new_progress(order.plan)
    run = weights.open_stream(
        order.plan, order.noise, order.prompts, progress=progress, inputs=Inputs(order.given, source=order.source)
    )
    frames = timed_decode(decode_frames(weights, run.chunks(), order.plan.scenes), progress.times)
    return _cropped(frames, order.plan.num_pixel_frames, progress)


def _cropped(chunks: Iterator[Tensor], num_frames: int, progress: Progress) -> Iterator[Tensor]:
    """The first `num_frames` of the frames [F, H, W, 3]; `progress` is told when the first chunk is begun."""
    progress.pace.start()
    for frames in chunks:
        yield frames[:num_frames]
        num_frames -= len(frames)


def decode_frames(weights: Weights, chunks: Iterator[Tensor], scenes: Collection[int] = ()) -> Iterator[Tensor]:
    """Yield the frames [F, H, W, 3] of each latent chunk [1, C, T, H, W], decoded in turn or while the next is sampled.

    `scenes` are the first latent frames of scenes; chunks begin there.
    """
    decoder, device = weights.open_decoder(), weights.decode_device
    seen = 0

    def ask(chunk: Tensor) -> Later:
        nonlocal seen
        chunk = chunk.to(device)
        if seen and seen in scenes:
            begin_scene(decoder, chunk)
        seen += chunk.shape[2]
        pixels = ask_decoder(decoder, chunk)
        return lambda: to_frames(pixels())[0]

    if weights.speed.decode == "ahead":
        return decode_ahead(chunks, ask, decoder, device)
    return (ask(chunk)() for chunk in chunks)


def render(weights: Weights, order: Order, target: Target, report: Report = silent) -> Progress:
    """Make one video, write it to its file chunk by chunk, and return the counts and times.

    Raises ValueError and OSError that say what to change, and leaves no file then; TakenError before the first step.
    Ctrl-C keeps the finished part as a partial file; the KeyboardInterrupt names it.
    """
    progress = weights.new_progress(order.plan)
    first = min(pixel_frames(order.plan.first_chunk_frames), order.plan.num_pixel_frames)
    before, shared = (), 0
    if target.extended:
        before, shared = target.extended.all_frames(), target.extended.num_frames
        first = target.extended.num_before + shared + 1
    files = open_writer(
        target.path if target.overwrite and not target.format.is_sequence else NewName(target.path),
        target.format,
        size=target.size,
        fps=target.fps,
        metadata=target.metadata,
        sound=target.sound,
    )
    writer = BackgroundWriter(files, times=progress.times)

    def watch(progress: Progress) -> None:
        progress.note_first(writer.num_frames, first)
        report(progress)

    progress.report = watch
    try:
        with writer:
            for frames in before:
                writer.write(frames)
            for frames in stream_frames(weights, order, progress):
                if shared:  # whole chunks
                    shared -= len(frames)
                else:
                    writer.write(frames)
                progress.count_chunk(len(frames))
                watch(progress)
    except KeyboardInterrupt as stop:
        kept = f"{writer.num_frames} finished frames are in {writer.kept}" if writer.kept else "nothing was written"
        raise KeyboardInterrupt(kept) from stop
    progress.note_first(writer.num_frames, first)
    return progress


def collect(weights: Weights, order: Order, report: Report = silent) -> list[np.ndarray]:
    """Make one video and return its frames [H, W, 3], uint8."""
    progress = replace(weights.new_progress(order.plan), report=report)
    pictures: list[np.ndarray] = []
    for frames in stream_frames(weights, order, progress):
        pictures.extend(to_uint8(frames))
        progress.count_chunk(len(frames))
        progress.note_first(len(pictures), len(frames))
        report(progress)
    return pictures
