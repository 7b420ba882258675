"""`histream v2v`: a video in, the same video in another look out (StreamDiffusionV2, arXiv 2511.07399)."""

from __future__ import annotations

import argparse
from dataclasses import replace

from ...plan import Plan, Preset, make_plan
from ...plan.entry import Restyle
from ...runs.restyle import SourceVideo
from ...stream.timeline import place
from ...video.formats import find_format
from ..options.plans import sink_rule
from ..options.timelines import cues_of, notes_of
from ..options.weights import find_source
from .videos import Checked, Shown, make_checked, plan_options, words_to_encode


def restyled_preset(args: argparse.Namespace, preset: Preset) -> tuple[Preset, Restyle]:
    """The preset and how it restyles: what the user does not say is as the preset has it. Raises ValueError."""
    restyle = preset.restyled(args.strength, args.told, args.motion)
    return (preset if args.steps is None else preset.with_steps(args.steps)), restyle


def run_v2v(args: argparse.Namespace) -> tuple[dict, str]:
    """Restyle a video."""
    return make_checked(args, check_v2v(args))


def check_v2v(args: argparse.Namespace) -> Checked:
    """Check the options of a restyled video. Raises ValueError and OSError."""
    if args.sound and args.no_sound:
        raise ValueError("there is a --sound, and --no-sound leaves it out: leave one of the two out")
    video = SourceVideo.at(args.video)
    cues = cues_of(args, args.prompt)
    source = find_source(args, words_to_encode(args, cues), encodes=True)
    plan = plan_source(args, source.preset, video)
    placed = place(cues, plan, video.fps)
    unheard = []
    if not (args.sound or args.no_sound):
        args.sound, unheard = video.sound(find_format(args.format, args.depth))
    noted = [*source.notes_on(placed.plan), *notes_of(args, placed), *unheard]
    shown = Shown(placed, None, noted, video)
    return Checked(source, shown, video.size, video.fps)


def plan_source(args: argparse.Namespace, preset: Preset, video: SourceVideo) -> Plan:
    """The plan that restyles a video: what the user does not say is as the preset has it. Raises ValueError."""
    preset, restyle = restyled_preset(args, preset)
    options = replace(plan_options(args), restyle=restyle, sinks=sink_rule(args))
    size, length = video.generated_size, video.num_latent_frames
    return video.cropped(make_plan(preset, args.mode, size=size, num_latent_frames=length, options=options))
