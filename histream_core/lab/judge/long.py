"""How a long video changes: colour, sharpness and identity, chunk by chunk, from its first tenth to its last.

F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ...plan.chunks import Plan
from ...runs import Session, Settings, Snapshots, start_or_resume
from ...runs.kept import describe_run, prompts_of
from ...runs.render import FPS, Weights, open_decoder, open_stream, start
from ...stream.noise import Noise
from ...stream.stream import Given, Stream
from ...video.pixels import to_uint8
from .detail import likeness, sharpness
from .judge import LAG, judge, look
from .prompts import Asked
from .steadiness import outline_change

WINDOW = LAG + 1
"""Frames at the beginning of a chunk that are read: as many as motion takes, and as the first chunk has."""

PARTS = 10
"""Drift is told between the first and the last of that many parts of a video: minutes 1 and 10 of ten."""

IDENTITY = ("colour", "shape", "background")
"""The words of a prompt that make an object the one that was asked for."""

SNAPSHOTS = Snapshots(every=20)

DRIFTS = {
    "colour": "largest change of a mean channel of object or background, of full scale",
    "sharpness": "relative change of the Laplacian's root mean square",
    "identity_first": "share of the first part that shows the asked colour, shape and background",
    "identity_last": "the same of the last part",
    "outline_first": "part of the outlines of the first chunk and of the first part that they do not share",
    "outline_last": "the same of the last part",
}
"""Names and meanings, in the order in which they are shown."""


@dataclass(frozen=True)
class Moment:
    """What the first frames of a chunk show."""

    arm: str
    number: int
    """Of the prompt, from 0."""
    chunk: int
    seconds: float
    """From the start of the video."""
    ink: list[float] | None
    """Colour of the object; None where there is none."""
    ground: list[float]
    sharpness: float
    outline: float
    """Part of the outlines of this chunk and of the first one that they do not share."""
    identity: bool
    direction: bool


def run_chunks(
    weights: Weights, folder: Path, plan: Plan, text: Tensor, asked: Asked, first: int = 0
) -> Iterator[np.ndarray]:
    """Yield the frames [F, H, W, 3], uint8, of every chunk from `first` on, of a run that is kept in `folder`.

    A run that was stopped goes on. Raises ValueError and OSError as `session.start_or_resume` does.
    """
    settings = Settings(weights.preset.name, "histream", plan.size, FPS, "h264-mp4", "video.mp4", "float32")
    manifest = describe_run(weights, plan, settings, prompt=asked.prompt, text=text, seed=asked.seed, source={})

    def make_stream(plan: Plan, noise: Noise, given: Given) -> Stream:
        prompts = prompts_of(manifest, [text], device=weights.device)
        return open_stream(weights, plan, noise, prompts, given, progress=start(plan))

    with start_or_resume(folder, manifest) as journal:
        session = Session(journal, make_stream, open_decoder(weights), snapshots=SNAPSHOTS)
        for finished in session.run(first):
            if finished.frames is not None:
                yield to_uint8(finished.frames[0])


def read_moment(
    arm: str, number: int, chunk: int, seconds: float, frames: np.ndarray, reference: np.ndarray, asked: Asked
) -> Moment:
    """What a chunk shows; `frames` and `reference`, those of the first chunk, are [F, H, W, 3], uint8."""
    now, before = (clip[:WINDOW].astype(np.float32) / 255 for clip in (frames, reference))
    view, verdict = look(now), judge(now)
    agrees = verdict.agrees(asked.combination)
    return Moment(
        arm=arm,
        number=number,
        chunk=chunk,
        seconds=seconds,
        ink=None if view.ink is None else [float(x) for x in view.ink],
        ground=[float(x) for x in view.ground],
        sharpness=sharpness(now),
        outline=outline_change(look(before), view),
        identity=all(agrees[word] for word in IDENTITY),
        direction=agrees["direction"],
    )


def drifts(moments: Sequence[Moment]) -> dict[str, float]:
    """The DRIFTS of a video, each in [0, 1]. Raises ValueError for fewer than two moments."""
    if len(moments) < 2:
        raise ValueError(f"{len(moments)} chunks cannot be compared: make a video of two or more")
    every = parts(moments)
    first, last = every[0], every[-1]
    return {
        "colour": colour_change(first, last),
        "sharpness": 1 - likeness(_mean(first, "sharpness"), _mean(last, "sharpness")),
        "identity_first": _mean(first, "identity"),
        "identity_last": _mean(last, "identity"),
        "outline_first": _mean(first, "outline"),
        "outline_last": _mean(last, "outline"),
    }


def course(moments: Sequence[Moment], count: int) -> list[dict[str, float]]:
    """How a video goes: of `count` stretches, the middle in seconds, and the change from the first PARTS-th on."""
    first = parts(moments)[0]
    return [
        {
            "seconds": _mean(stretch, "seconds"),
            "colour": colour_change(first, stretch),
            "sharpness": 1 - likeness(_mean(first, "sharpness"), _mean(stretch, "sharpness")),
            "outline": _mean(stretch, "outline"),
            "identity": _mean(stretch, "identity"),
        }
        for stretch in parts(moments, count)
    ]


def parts(moments: Sequence[Moment], count: int = PARTS) -> list[Sequence[Moment]]:
    """The moments in stretches of equal length, as many as `count` or as there are moments."""
    stretches = np.array_split(np.arange(len(moments)), min(count, len(moments)))
    return [moments[stretch[0] : stretch[-1] + 1] for stretch in stretches]


def colour_change(first: Sequence[Moment], last: Sequence[Moment]) -> float:
    """The largest change of a mean channel of object or background; 1 where one of both shows no object."""
    means = [
        [np.mean([getattr(moment, name) for moment in seen], axis=0) for name in ("ink", "ground")]
        for seen in ([moment for moment in side if moment.ink is not None] for side in (first, last))
        if seen
    ]
    if len(means) < 2:
        return 1.0
    return float(np.abs(np.subtract(*means)).max())


def moments_of(lines: Sequence[Mapping]) -> dict[str, dict[int, list[Moment]]]:
    """Kept lines as moments, by arm and number, in the order of the chunks."""
    found: dict[str, dict[int, list[Moment]]] = {}
    for moment in (Moment(**line) for line in lines):
        found.setdefault(moment.arm, {}).setdefault(moment.number, []).append(moment)
    return found


def line_of(moment: Moment) -> dict:
    """A moment as plain values."""
    return asdict(moment)


def _mean(moments: Sequence[Moment], name: str) -> float:
    return float(np.mean([getattr(moment, name) for moment in moments]))
