"""`histream eval`: how good videos are, or what the bundled model makes of fresh prompts."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...lab.judge.bootstrap import estimate
from ...lab.judge.clip_score import ClipFeatures
from ...lab.judge.video import MEASURES, Settings, measure
from ...plan.presets import MODES
from ...video.reading import frames_of
from ..options.speed import KERNELS, add_speed_options
from ..progress import follow
from . import evaluate_long, evaluate_tables, evaluate_ways
from .evaluate_demo import run_demo_evaluation
from .videos import parse_size

SHORT = ("prompts", "seed", "against", "frames", "device")
OPTIONS = {
    "": ("videos", "reference", "motion_every", "clip", "prompt"),
    "--demo": (*SHORT, *KERNELS, "mode", "controls", "sheet", "plot", "csv"),
    "--demo --minutes": ("minutes", "prompts", "seed", "device", "out", "size", "arms"),
    "--demo --ways": ("ways", "prompts", "seed", "mode", "frames", "device"),
    "--demo --tables": (*SHORT, "tables", "out", "size", "arms", "batch", "untuned", *evaluate_tables.TEACHER_OPTIONS),
}
"""What goes with which kind of evaluation; that of videos has no name."""

DEFAULTS = {
    "": {"motion_every": 1},
    "--demo": {"prompts": 24, "seed": 0, "mode": "histream", "frames": 21, "device": "cpu"},
    "--demo --minutes": evaluate_long.DEFAULTS,
    "--demo --tables": evaluate_tables.DEFAULTS,
    "--demo --ways": evaluate_ways.DEFAULTS,
}
RUN = {
    "--demo": run_demo_evaluation,
    "--demo --minutes": evaluate_long.run_minutes,
    "--demo --tables": evaluate_tables.run_tables,
    "--demo --ways": evaluate_ways.run_ways,
}


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add the verb."""
    verb = verbs.add_parser(
        "eval",
        help="how good videos are, or what the bundled model makes of fresh prompts",
        description="Measure videos, or with --demo the bundled model; what each figure means is in docs/results.md.",
    )
    verb.add_argument("videos", metavar="VIDEO", nargs="*", type=Path, help="consistency, drift and detail of each")
    verb.add_argument("--reference", metavar="VIDEO", type=Path, help="what it was made from, or the ground truth")
    verb.add_argument("--motion-every", metavar="N", type=int, help="read motion at every Nth frame only (default: 1)")
    verb.add_argument("--clip", metavar="DIR", type=Path, help="also CLIP scores, by a CLIP in this folder")
    verb.add_argument("--prompt", metavar="P", help="what the videos should show, for --clip")
    verb.add_argument("--demo", action="store_true", help="make short clips with the bundled model and score them")
    _add_demo_options(verb.add_argument_group("with --demo"))
    group = verb.add_argument_group("with --demo, instead of short clips")
    group.add_argument("--ways", action="store_true", help="streamed, resumed and branched runs against plain ones")
    group.add_argument("--minutes", metavar="M", type=float, help="make long videos and read how they drift")
    evaluate_tables.add_options(verb.add_argument_group("with --demo --tables"))
    verb.set_defaults(run=run_evaluation)
    yield verb


def _add_demo_options(group: Any) -> None:
    group.add_argument("--prompts", metavar="N", type=int, help="drawn afresh, half of them held out (24; tables: 200)")
    group.add_argument("--seed", metavar="N", type=int, help="other prompts, other noise (default: 0)")
    group.add_argument("--mode", metavar="M", help=f"{', '.join(MODES)} (default: histream)")
    group.add_argument("--against", metavar="M", help="compare with another mode or arm, prompt by prompt")
    add_speed_options(group, KERNELS)
    group.add_argument("--controls", action="store_true", help="also random weights and an empty prompt")
    group.add_argument("--frames", metavar="N", type=int, help="of a clip, 4n + 1, at least 9 (default: 21)")
    group.add_argument("--sheet", metavar="FILE.png", type=Path, help="write a contact sheet of the clips")
    group.add_argument("--plot", metavar="FILE.svg", type=Path, help="write the means and intervals as a picture")
    group.add_argument("--csv", metavar="FILE.csv", type=Path, help="write a line for each clip")
    group.add_argument("--device", metavar="D", help="cuda, mps, cpu (default: cpu)")
    group.add_argument(
        "--out", metavar="DIR", type=Path, help="of tables and long videos: a folder, made or gone on with"
    )
    group.add_argument(
        "--size", metavar="WxH", type=parse_size, help="likewise: multiples of 64 (default: the model's)"
    )


def run_evaluation(args: argparse.Namespace) -> tuple[dict, str]:
    """Figures of the videos, or of the bundled model."""
    kind = _kind(args)
    if not kind and not args.videos:
        raise ValueError("there is nothing to evaluate: give a video, or --demo for the bundled model")
    every = dict.fromkeys(name for names in OPTIONS.values() for name in names)
    if wrong := [name for name in every if name not in OPTIONS[kind] and getattr(args, name)]:
        named = "a video" if wrong[0] == "videos" else f"--{wrong[0].replace('_', '-')}"
        raise ValueError(f"{named} does not go {f'with {kind}' if kind else 'without --demo'}: leave one of them out")
    for name, value in DEFAULTS[kind].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return RUN[kind](args) if kind else _evaluate_videos(args)


def _kind(args: argparse.Namespace) -> str:
    """Which kind of evaluation is asked for, of OPTIONS."""
    kinds = {"tables": args.tables, "minutes": args.minutes is not None, "ways": args.ways}
    asked = [name for name, given in kinds.items() if given]
    if asked and not args.demo:
        raise ValueError(f"--{asked[0]} is for the bundled model: give --demo too")
    return " --".join(["--demo", *asked[:1]]) if args.demo else ""


def _evaluate_videos(args: argparse.Namespace) -> tuple[dict, str]:
    if args.motion_every < 1:
        raise ValueError(f"every {args.motion_every}th frame is none: use --motion-every 1")
    if args.reference and len(args.videos) > 1:
        raise ValueError(f"one reference cannot belong to {len(args.videos)} videos: measure them one by one")
    if args.prompt and not args.clip:
        raise ValueError("--prompt is read by a CLIP: give the folder of one with --clip")
    settings = Settings(args.motion_every)
    if args.clip:
        clip = ClipFeatures(args.clip)
        prompt = clip.prompt(args.prompt) if args.prompt else None
        settings = Settings(args.motion_every, encode=clip.picture, prompt=prompt)
    found = [_measure(path, args.reference, settings) for path in args.videos]
    result = {"reference": str(args.reference) if args.reference else None, "videos": found}
    if len(found) > 1:
        result["mean"] = _means(found)
    return result, "\n".join(_lines(result, clip=bool(args.clip)))


def _measure(path: Path, reference: Path | None, settings: Settings) -> dict:
    guide = frames_of(reference) if reference else None
    return {"file": str(path), **measure(follow(frames_of(path), f"{path.name} "), guide, settings)}


def _means(found: Sequence[Mapping]) -> dict:
    """Means over the videos with their 95% intervals, of the measures that all videos have."""
    means, intervals = {}, {}
    for name in MEASURES:
        values = [one.get(name) for one in found]
        if None not in values:
            whole = estimate(values, least=min(values), most=max(values))
            means[name], intervals[name] = whole.mean, [whole.low, whole.high]
    return {**means, "intervals": intervals}


def _lines(result: Mapping, *, clip: bool) -> Iterator[str]:
    for one in result["videos"]:
        yield f"{one['file']}: {one['frames']} frames"
        for name in MEASURES:
            if name in one:
                yield f"  {name:16} {_number(one[name]):10} {MEASURES[name]}"
    if "mean" in result:
        yield f"mean of {len(result['videos'])} videos, 95% interval"
        for name, (low, high) in result["mean"]["intervals"].items():
            yield f"  {name:16} {_number(result['mean'][name]):10} [{_number(low)}, {_number(high)}]"
    if not clip:
        yield "CLIP scores: not measured, give the folder of a CLIP with --clip"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
