"""Options of a video's content: a timeline of prompts, and what it begins with."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from torch import Tensor

from ...files.reading import read_text
from ...plan import Plan
from ...runs.restyle import SourceVideo
from ...runs.store.manifest import Manifest
from ...stream.timeline import Cue, Placed, parse_timeline, place
from ...video.pictures import CROP, describe_fit, fit_picture, read_picture


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
