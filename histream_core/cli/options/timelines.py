"""What a video shows, as the command line says it: a prompt or a timeline of them, and a picture to begin with."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ...plan.chunks import Plan, with_anchors
from ...runs import Journal, Manifest, Section
from ...runs.kept import sections_of, text_before
from ...runs.render import Weights
from ...stream.timeline import (
    Cue,
    Stretch,
    describe_cues,
    find_chunks,
    new_anchors,
    new_scenes,
    parse_timeline,
    stretch_out,
)
from ...vae.encode import encode_picture
from ...video.pictures import CROP, FITS, describe_fit, fit_picture, read_picture


@dataclass(frozen=True)
class Shown:
    """What a video shows, and where in its plan; nothing is loaded."""

    plan: Plan
    cues: tuple[Cue, ...]
    chunks: Sequence[int]
    """Where the cues begin."""
    picture: Tensor | None
    """Its first frame [H, W, 3], of its size."""
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        return " | ".join(cue.prompt for cue in self.cues)

    def stretches(self, texts: Sequence[Tensor]) -> tuple[Stretch, ...]:
        """With `texts`, the embedding of each cue."""
        return stretch_out(self.cues, texts, self.chunks)

    def given(self, weights: Weights) -> Tensor | None:
        """The latent of the first chunk, where it is a picture's."""
        if self.picture is None:
            return None
        hold = len(self.plan.chunks[0].frames)
        return encode_picture(weights.vae, self.picture, hold=hold, normalised=weights.preset.normalised)


@dataclass(frozen=True)
class Continued:
    """What a run shows from a chunk on, if it is something new."""

    plan: Plan
    """Of the run that goes on."""
    first_chunk: int
    cues: tuple[Cue, ...]
    chunks: Sequence[int]
    notes: tuple[str, ...]

    @property
    def anchors(self) -> list[int]:
        """The first latent frames of the anchors that it begins with."""
        return new_anchors(self.cues, self.chunks, self.plan)

    @property
    def scenes(self) -> list[int]:
        """The first latent frames of the scenes that it begins with."""
        return new_scenes(self.cues, self.chunks, self.plan)

    def sections(self, texts: Sequence[Tensor], journal: Journal) -> tuple[Sequence[Section], list[Tensor]]:
        """The sections, counted from the first new chunk, and the embedding of each.

        `texts` are those of the cues, `journal` the run that it goes on from.
        """
        if not self.cues:
            return (), []
        before = text_before(journal.manifest, journal.texts(), self.first_chunk)
        parts = stretch_out(self.cues, texts, self.chunks, before)
        return sections_of(parts, self.first_chunk), [part.text for part in parts]


def continued(args: argparse.Namespace, manifest: Manifest, plan: Plan, first_chunk: int) -> Continued:
    """Find a place for --prompt or --timeline behind the chunks that stay. Raises ValueError or OSError."""
    if not (args.prompt or args.timeline):
        return Continued(plan, first_chunk, (), (), ())
    cues, fps = cues_of(args, args.prompt), manifest.settings.fps
    chunks = find_chunks(cues, plan, fps, first_chunk)
    notes = describe_cues(cues, chunks, plan, fps) if args.timeline else ()
    told = Continued(plan, first_chunk, cues, chunks, tuple(notes))
    return replace(told, plan=with_anchors(plan, [*plan.anchors, *told.anchors], told.scenes))


def add_timeline(verb: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """--timeline."""
    verb.add_argument(
        "--timeline",
        metavar="T",
        help='several prompts and when they begin, a line each, like "[0:00-0:04] a cat", "[0:04, blend 3] a dog" or '
        '"[0:08, scene] a cow": a file, or the text itself',
    )


def add_first_frame(verb: argparse.ArgumentParser) -> None:
    """--first-frame, --fit and --hold-first-frame."""
    verb.add_argument("--first-frame", metavar="FILE", type=Path, help="a picture that the video begins with")
    ways = "; ".join(f"{name}: {what}" for name, what in FITS.items())
    verb.add_argument(
        "--fit", choices=FITS, help=f"how a first frame of another size is fitted: {ways} (default: crop)"
    )
    verb.add_argument(
        "--hold-first-frame",
        action="store_true",
        help="let it stand for the whole first chunk, for weights that never saw a chunk of one frame",
    )


def cues_of(args: argparse.Namespace, prompt: str | None) -> tuple[Cue, ...]:
    """The cues of --timeline, else one of `prompt`. Raises ValueError or OSError."""
    if not args.timeline:
        return (Cue(0.0, prompt or ""),)
    text = args.timeline
    return parse_timeline(text if text.lstrip().startswith("[") else Path(text).read_text(encoding="utf-8"))


def given_frames(args: argparse.Namespace, chunk_frames: int) -> int:
    """Latent frames that the first frame fills; 0 where there is none. Raises ValueError."""
    if not args.first_frame:
        for option, use in ((args.hold_first_frame, "hold"), (args.fit, "fit")):
            if option:
                raise ValueError(f"there is no first frame to {use}: give --first-frame too")
        return 0
    return chunk_frames if args.hold_first_frame else 1


def shown(args: argparse.Namespace, plan: Plan, fps: float, cues: tuple[Cue, ...]) -> Shown:
    """Find a place for everything in the plan. Raises ValueError or OSError for what does not fit it."""
    chunks = find_chunks(cues, plan, fps)
    notes = describe_cues(cues, chunks, plan, fps) if args.timeline else []
    picture, fit = read_picture(args.first_frame) if args.first_frame else None, args.fit or CROP
    if picture is not None:
        notes += describe_fit(picture, plan.size, fit)
        picture = fit_picture(picture, plan.size, fit)
    return Shown(
        with_anchors(plan, *(find(cues, chunks, plan) for find in (new_anchors, new_scenes))),
        cues,
        chunks,
        picture,
        tuple(notes),
    )
