"""`histream v2v`: a video in, the same video in another look out (StreamDiffusionV2, arXiv 2511.07399)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...plan import Plan, PlanOptions, make_plan
from ...plan.entry import MotionRule, Restyle
from ...runs.restyle import SourceVideo, length_for, size_for
from ...stream.timeline import place
from ...video.sound import has_sound
from ..options.common import decimal
from ..options.speed import speed_of
from ..options.timelines import cues_of, notes_of
from ..options.weights import Source, add_weight_options, find_source
from .videos import Shown, add_run_options, make_shown


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add the verb."""
    verb = verbs.add_parser("v2v", description="Restyle a video: every frame, its rate, size and sound are kept.")
    verb.add_argument("video", metavar="IN", type=Path, help="the video to restyle")
    add_weight_options(verb)
    verb.add_argument(
        "--strength",
        metavar="S",
        type=decimal,
        default=0.8,
        help="the share of noise that it begins with: at 0.5 most of the picture stays, at 0.9 little more than the "
        "layout, at 1 nothing (default: 0.8)",
    )
    verb.add_argument(
        "--motion",
        metavar="SPAN",
        type=decimal,
        default=0.0,
        help="less noise where the source moves, by SPAN at most; 0.1 in the paper (default: 0, everywhere the same)",
    )
    verb.add_argument(
        "--told",
        metavar="OFFSET",
        type=decimal,
        default=0.0,
        help="tell the network so much less noise than there is; 0.1 for StreamDiffusionV2's weights (default: 0)",
    )
    add_run_options(verb, restyles=True)
    verb.add_argument("--no-sound", action="store_true", help="leave the sound of the source out")
    verb.set_defaults(run=run_v2v)
    yield verb


def run_v2v(args: argparse.Namespace) -> tuple[dict, str]:
    """Restyle a video."""
    motion = MotionRule(span=args.motion) if args.motion else None
    restyle = Restyle(args.strength, args.told, motion)
    video = SourceVideo.at(args.video)
    cues = cues_of(args, args.prompt)
    source = find_source(args, [cue.prompt for cue in cues if cue.prompt])
    plan = plan_source(args, source, video, restyle)
    fps = float(video.index.rate)
    placed = place(cues, plan, fps)
    if not args.sound and not args.no_sound and has_sound(args.video):
        args.sound = args.video
    shown = Shown(placed, None, [*source.notes, *notes_of(args, placed)], video)
    return make_shown(args, source, shown, size=video.size, fps=fps)


def plan_source(args: argparse.Namespace, source: Source, video: SourceVideo, restyle: Restyle) -> Plan:
    """The plan that restyles a video. Raises ValueError."""
    options = PlanOptions(
        levers=speed_of(args).levers, anchor_match=args.anchor_match, restyle=restyle, histories=args.histories
    )
    length, cropped = length_for(video.index.num_frames)
    plan = make_plan(source.preset, args.mode, size=size_for(*video.size), num_latent_frames=length, options=options)
    return replace(plan, cropped_frames=cropped)
