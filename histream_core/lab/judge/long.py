"""Drift of a long demo video in colour, sharpness and identity, chunk by chunk, from its first tenth to its last.

F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ...network.forward import Text
from ...plan.chunks import Plan
from ...plan.sizes import FPS
from ...runs import Session, Settings, Snapshots, start_or_resume
from ...runs.describe import NewRun, new_manifest
from ...runs.weights import Weights
from ...stream.inputs import Inputs
from ...stream.noise import Noise
from ...stream.prompts import Prompt
from ...stream.stream import Stream
from ...video.pixels import to_uint8
from .detail import likeness, sharpness
from .judge import LAG, segment
from .prompts import DemoPrompt
from .steadiness import outline_change
from .throughout import PRESENCE, read_seconds
from .video import PARTS

WINDOW = LAG + 1
"""Frames that colour, sharpness and outline are read from: the first of a chunk, as many as the first chunk has."""

IDENTITY = (PRESENCE, "colour", "shape", "background")
"""The words that must hold in a chunk that shows the object of the prompt."""

SNAPSHOTS = Snapshots(every=20)

DRIFTS = {
    "colour": "largest change of a mean channel of object or background, of full scale",
    "sharpness": "relative change of the Laplacian's root mean square",
    "identity_first": "share of the first part that shows the asked object and background, in every frame",
    "identity_last": "the same of the last part",
    "words_first": "share of the first part that shows the asked object, moving where asked, in every frame",
    "words_last": "the same of the last part",
    "outline_first": "part of the outlines of the first chunk and of the first part that they do not share",
    "outline_last": "the same of the last part",
}
"""Names and meanings, in the order in which they are shown."""


@dataclass(frozen=True)
class Reading:
    """Measurements of a chunk: words of all its frames, the others of its first ones."""

    arm: str
    number: int
    """Number of the prompt, from 0."""
    chunk: int
    seconds: float
    """From the start of the video."""
    ink: list[float] | None
    """Colour of the object; None where there is none."""
    ground: list[float]
    sharpness: float
    outline: float
    """Share of the outlines of this chunk and of the first one in which they differ."""
    identity: bool
    direction: bool


def run_chunks(
    weights: Weights, folder: Path, plan: Plan, text: Tensor, asked: DemoPrompt, first: int = 0
) -> Generator[np.ndarray, None, None]:
    """Make a run that is kept in `folder`, and yield the frames [F, H, W, 3], uint8, of every chunk from `first` on.

    A run that was stopped is resumed. Raises ValueError and OSError as `session.start_or_resume` does.
    """
    settings = Settings(weights.preset.name, "histream", plan.size, FPS, "h264-mp4", "video.mp4", "float32")
    prompts = (Prompt(Text(text), words=asked.prompt),)
    manifest = new_manifest(weights, NewRun(plan, prompts, asked.seed, settings))

    def open_stream(plan: Plan, noise: Noise, inputs: Inputs) -> Stream:
        progress = weights.new_progress(plan)
        return weights.open_stream(plan, noise, prompts, progress=progress, inputs=inputs)

    with start_or_resume(folder, manifest) as journal:
        session = Session(journal, open_stream, weights.open_decoder(), snapshots=SNAPSHOTS)
        for finished in session.run(first):
            if finished.frames is not None:
                yield to_uint8(finished.frames[0])


def read_chunk(
    arm: str, number: int, chunk: int, seconds: float, frames: np.ndarray, reference: np.ndarray, asked: DemoPrompt
) -> Reading:
    """Measure a chunk; `frames`, and those of the first chunk in `reference`, are [F, H, W, 3], uint8."""
    whole, before = (clip.astype(np.float32) / 255 for clip in (frames, reference[:WINDOW]))
    now = whole[:WINDOW]
    view = segment(now)
    holds = [second.holds(asked.combination) for second in read_seconds(whole)]
    return Reading(
        arm=arm,
        number=number,
        chunk=chunk,
        seconds=seconds,
        ink=None if view.ink is None else [float(x) for x in view.ink],
        ground=[float(x) for x in view.ground],
        sharpness=sharpness(now),
        outline=outline_change(segment(before), view),
        identity=all(second[word] for second in holds for word in IDENTITY),
        direction=all(second["direction"] for second in holds),
    )


def drifts(readings: Sequence[Reading]) -> dict[str, float]:
    """The DRIFTS of a video, each in [0, 1]. Raises ValueError for fewer than two readings."""
    if len(readings) < 2:
        raise ValueError(f"{len(readings)} chunks cannot be compared: make a video of two or more")
    every = parts(readings)
    first, last = every[0], every[-1]
    return {
        "colour": colour_change(first, last),
        "sharpness": 1 - likeness(_mean(first, "sharpness"), _mean(last, "sharpness")),
        "identity_first": _mean(first, "identity"),
        "identity_last": _mean(last, "identity"),
        "words_first": _words(first),
        "words_last": _words(last),
        "outline_first": _mean(first, "outline"),
        "outline_last": _mean(last, "outline"),
    }


def course(readings: Sequence[Reading], count: int) -> list[dict[str, float]]:
    """Change from the first PARTS-th to each of `count` stretches of a video, with the middle of each in seconds."""
    first = parts(readings)[0]
    return [
        {
            "seconds": _mean(stretch, "seconds"),
            "colour": colour_change(first, stretch),
            "sharpness": 1 - likeness(_mean(first, "sharpness"), _mean(stretch, "sharpness")),
            "outline": _mean(stretch, "outline"),
            "identity": _mean(stretch, "identity"),
            "words": _words(stretch),
        }
        for stretch in parts(readings, count)
    ]


def parts(readings: Sequence[Reading], count: int = PARTS) -> list[Sequence[Reading]]:
    """Split the readings into `count` stretches of equal length, or into single ones where there are fewer."""
    stretches = np.array_split(np.arange(len(readings)), min(count, len(readings)))
    return [readings[stretch[0] : stretch[-1] + 1] for stretch in stretches]


def colour_change(first: Sequence[Reading], last: Sequence[Reading]) -> float:
    """Largest change of a mean channel of object or background; 1 where one side shows no object."""
    means = [
        [np.mean([getattr(reading, name) for reading in seen], axis=0) for name in ("ink", "ground")]
        for seen in ([reading for reading in side if reading.ink is not None] for side in (first, last))
        if seen
    ]
    if len(means) < 2:
        return 1.0
    before, after = means
    return float(np.abs(np.subtract(before, after)).max())


def readings_of(readings: Sequence[Reading]) -> dict[str, dict[int, list[Reading]]]:
    """Readings by arm and number, in the order of the chunks."""
    found: dict[str, dict[int, list[Reading]]] = {}
    for reading in readings:
        found.setdefault(reading.arm, {}).setdefault(reading.number, []).append(reading)
    return found


def line_of(reading: Reading) -> dict:
    """A reading as plain values."""
    return asdict(reading)


def _words(readings: Sequence[Reading]) -> float:
    """Share of chunks in which all words hold."""
    return float(np.mean([reading.identity and reading.direction for reading in readings]))


def _mean(readings: Sequence[Reading], name: str) -> float:
    return float(np.mean([getattr(reading, name) for reading in readings]))
