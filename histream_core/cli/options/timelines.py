"""Options of a video's content: a timeline of prompts, and what it begins with."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ...files.reading import read_text
from ...plan import Plan
from ...runs.restyle import SourceVideo
from ...runs.store.manifest import Manifest
from ...stream.timeline import Cue, Placed, parse_timeline, place
from ...video.pictures import CROP, FITS, describe_fit, fit_picture, read_picture
from .common import prompt_text


def add_timeline(verb: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add --timeline."""
    verb.add_argument(
        "--timeline",
        metavar="T",
        type=prompt_text,
        help='several prompts and when they begin, a line each, like "[0:00-0:04] a cat", "[0:04, blend 3] a dog" or '
        '"[0:08, scene] a cow": a file, or the text itself',
    )


def add_first_frame(verb: argparse.ArgumentParser) -> None:
    """Add --first-frame, --extend-video, --fit and --hold-first-frame."""
    verb.add_argument("--first-frame", metavar="FILE", type=Path, help="a picture that the video begins with")
    verb.add_argument(
        "--extend-video",
        metavar="FILE",
        type=Path,
        help="a video of any origin to go on from: this one begins with its last frames, as many as the window holds",
    )
    verb.add_argument(
        "--whole",
        action="store_true",
        help="write all of the video that is extended first, as it is and with its sound, and the new frames behind it",
    )
    ways = "; ".join(f"{name}: {what}" for name, what in FITS.items())
    verb.add_argument(
        "--fit", choices=FITS, help=f"how first frames of another size are fitted: {ways} (default: crop)"
    )
    verb.add_argument(
        "--hold-first-frame",
        action="store_true",
        help="let it stand for the whole first chunk, for weights that never saw a chunk of one frame",
    )


def cues_of(args: argparse.Namespace, prompt: str | None) -> tuple[Cue, ...]:
    """The cues of --timeline, else one cue of `prompt`. Raises ValueError or OSError."""
    if not args.timeline:
        return (Cue(0.0, prompt or ""),)
    if args.prompt:
        raise ValueError("there is a prompt and a --timeline: put the prompt into the timeline, or leave one out")
    text = args.timeline
    return parse_timeline(text if text.removeprefix("\ufeff").lstrip().startswith("[") else read_text(text))


def given_frames(args: argparse.Namespace, chunk_frames: int) -> int:
    """Number of latent frames that the first frame fills; 0 if there is none. Raises ValueError."""
    if args.first_frame:
        return chunk_frames if args.hold_first_frame else 1
    if args.hold_first_frame:
        raise ValueError("there is no first frame to hold: give --first-frame too")
    if args.fit and not args.extend_video:
        raise ValueError("there is no first frame to fit: give --first-frame too")
    return 0


def video_to_extend(args: argparse.Namespace) -> SourceVideo | None:
    """The video of --extend-video; None if it is not given. Raises ValueError or OSError."""
    if args.whole and not args.extend_video:
        raise ValueError("there is no video to write first: give --extend-video too, or leave --whole out")
    if args.whole and args.run_dir:
        raise ValueError("the video of a run that is kept holds what the run made: leave --whole out, or give --out")
    if args.extend_video and args.first_frame:
        raise ValueError("a video begins with --first-frame or with the end of --extend-video: leave one of them out")
    if not args.extend_video:
        return None
    return SourceVideo.at(args.extend_video)


def notes_of(args: argparse.Namespace, placed: Placed) -> Sequence[str]:
    """Lines that say where the prompts of --timeline begin; empty for a single prompt."""
    return placed.lines if args.timeline else ()


def place_continuation(args: argparse.Namespace, manifest: Manifest, plan: Plan, first_chunk: int) -> Placed | None:
    """--prompt or --timeline, placed after the chunks that stay; None if neither is given.

    Raises ValueError or OSError.
    """
    if not (args.prompt or args.timeline):
        return None
    return place(cues_of(args, args.prompt), plan, manifest.settings.fps, first_chunk)


def read_first_frame(
    args: argparse.Namespace, size: tuple[int, int], shown: tuple[int, int]
) -> tuple[Tensor | None, list[str]]:
    """The picture [H, W, 3] of --first-frame fitted to `size`, and notes on how; None if it is not given.

    `shown` is the size of the video, which is cropped from `size`. Raises ValueError or OSError.
    """
    if not args.first_frame:
        return None, []
    picture, fit = read_picture(args.first_frame), args.fit or CROP
    return fit_picture(picture, size, fit, shown), list(describe_fit(picture, size, fit, shown))
