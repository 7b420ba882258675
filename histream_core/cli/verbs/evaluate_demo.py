"""`histream eval --demo`: scores of short clips that the bundled model makes of randomly drawn prompts."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from ... import demo
from ...files.disk import write_whole
from ...lab.charts import check_packages, pick
from ...lab.judge.arms import (
    Arm,
    ScoredClip,
    better_than_chance,
    differences,
    estimates,
    groups,
    held_course,
    make_clip,
    ratios,
    untrained,
)
from ...lab.judge.bootstrap import Estimate
from ...lab.judge.judge import LAG
from ...lab.judge.prompts import DemoPrompt, chance, draw_prompts
from ...lab.judge.scores import SCORES
from ...lab.judge.throughout import WORDS
from ...video.pictures import write_png
from ..options.common import check_files
from ..options.speed import KERNELS, speed_of
from ..options.weights import demo_source, pick_device
from ..progress import print_notes, progress_bar
from .videos import plan_video

MOMENTS = 5
COLUMNS = 2
TILE = 128
CONTROLS = ("random weights", "empty prompt")

Strips = list[tuple[str, list[np.ndarray]]]


def run_demo_evaluation(args: argparse.Namespace) -> tuple[dict, str]:
    """Make and score the clips of all arms."""
    asked = draw_prompts(args.prompts, args.seed)
    _check_files(args)
    arms, notes = _prepare(args, asked)
    print_notes(notes)
    strips: Strips = []
    made = {arm.name: _make(arm, asked, strips) for arm in arms}
    about = {
        "mode": args.mode,
        "against": args.against,
        "prompts": args.prompts,
        "seed": args.seed,
        "kernels": {name: arms[0].weights.kernels().in_use[name] for name in KERNELS},
        "frames": arms[0].plan.num_pixel_frames,
        "width": demo.WIDTH,
        "height": demo.HEIGHT,
    }
    _write_files(args, made, strips)
    return about | _result(made, about), "\n".join(_lines(made, about))


def _write_files(args: argparse.Namespace, made: Mapping[str, list[ScoredClip]], strips: Strips) -> None:
    if args.sheet:
        from ...lab.charts.contact_sheet import contact_sheet

        write_png(args.sheet, contact_sheet(strips, columns=COLUMNS, width=TILE), overwrite=args.overwrite)
    if args.csv:
        write_whole(args.csv, _rows(made).encode(), overwrite=args.overwrite)
    if args.plot:
        from ...lab.charts.plots import interval_plot

        title = f"{args.prompts} prompts, seed {args.seed}: means and 95% intervals"
        plot = interval_plot(title, {name: estimates(clips) for name, clips in made.items()})
        write_whole(args.plot, plot, overwrite=args.overwrite)


def _check_files(args: argparse.Namespace) -> None:
    """Refuse files that could not be written. Raises ValueError, OSError or ModuleNotFoundError."""
    check_packages(*(["PIL"] if args.sheet else []), *(["matplotlib"] if args.plot else []))
    for path, suffix in ((args.sheet, ".png"), (args.csv, ".csv"), (args.plot, ".svg")):
        if path and path.suffix.lower() != suffix:
            raise ValueError(f'"{path.name}" is not a name for a {suffix[1:].upper()} file: use {path.stem}{suffix}')
    check_files(args.sheet, args.csv, args.plot, overwrite=args.overwrite)


def _prepare(args: argparse.Namespace, asked: Sequence[DemoPrompt]) -> tuple[list[Arm], list[str]]:
    """The requested arms, and notes for the user. Raises ValueError for impossible modes and lengths."""
    if args.frames <= LAG:
        raise ValueError(f"motion cannot be read from {args.frames} frames: use --frames {LAG + 1} or more")
    if args.against == args.mode:
        raise ValueError(f"{args.mode} against itself shows nothing: give another mode to --against")
    source = demo_source([*(one.told for one in asked), ""], pick_device(args.device))
    size = demo.WIDTH, demo.HEIGHT
    modes = [args.mode, *([args.against] if args.against else [])]
    planned = {mode: plan_video(source.preset, mode, size=size, num_frames=args.frames) for mode in modes}
    speed = speed_of(args)
    weights, (*texts, empty) = source.load()
    weights = replace(weights, speed=speed)
    arms = [Arm(mode, weights, plan, texts) for mode, (plan, _) in planned.items()]
    plan, notes = planned[args.mode]
    if args.controls:
        arms.append(Arm(CONTROLS[0], untrained(weights), plan, texts))
        arms.append(Arm(CONTROLS[1], weights, plan, [empty] * len(texts)))
    return arms, notes


def _make(arm: Arm, asked: Sequence[DemoPrompt], strips: Strips) -> list[ScoredClip]:
    """Make the clips of an arm, and append a strip of each to `strips`."""
    clips = []
    for number, (text, one) in enumerate(zip(arm.texts, asked, strict=True), 1):
        with progress_bar(f"{arm.name} {number}/{len(asked)} ") as report:
            clip, pictures = make_clip(arm, text, one, report)
        clips.append(clip)
        strips.append((f"{arm.name}: {_remark(clip)}", pick(pictures, MOMENTS)))
    return clips


def _remark(clip: ScoredClip) -> str:
    """Short label of a strip: the prompt's words, and the words recognised instead."""
    asked, agrees = clip.asked.combination, clip.verdict.agrees(clip.asked.combination)
    wrong = [getattr(clip.verdict, word) or f"no {word}" for word in WORDS if not agrees[word]]
    words = f"{asked.colour} {asked.shape} {asked.direction} on {asked.background}"
    return " - ".join([words, *([f"seen: {', '.join(wrong)}"] if wrong else [])])


def _result(made: Mapping[str, list[ScoredClip]], about: Mapping) -> dict:
    """All figures as plain values; those of `mode` are at the top level."""
    ours = made[about["mode"]]
    result = {**_figures(ours), "seconds": held_course(ours), "chance": _chance(ours)}
    if about["against"]:
        theirs = made[about["against"]]
        result["versus"] = _figures(theirs)
        result["difference"] = {
            name: _values(differences(group, groups(theirs)[name])) for name, group in groups(ours).items()
        }
    controls = {name: made[name] for name in CONTROLS if name in made}
    if controls:
        result["controls"] = {
            name: {**_figures(clips), "better_than_chance": _lucky(clips)} for name, clips in controls.items()
        }
    return result


def _figures(clips: Sequence[ScoredClip]) -> dict:
    """Scores of all clips at the top level, those of seen and held-out prompts under these names."""
    found = {
        name: {"prompts": len(group), **_values(estimates(group)), "ratios": ratios(group)}
        for name, group in groups(clips).items()
    }
    return {**found.pop("all"), **found}


def _chance(clips: Sequence[ScoredClip]) -> dict:
    return {name: chance([clip.asked.combination for clip in group]) for name, group in groups(clips).items()}


def _lucky(clips: Sequence[ScoredClip]) -> dict[str, list[str]]:
    return {name: better_than_chance(group) for name, group in groups(clips).items()}


def _values(found: Mapping[str, Estimate]) -> dict:
    return {
        **{name: round(one.mean, 6) for name, one in found.items()},
        "intervals": {name: [round(one.low, 6), round(one.high, 6)] for name, one in found.items()},
    }


def _lines(made: Mapping[str, list[ScoredClip]], about: Mapping) -> Iterator[str]:
    """Yield the figures as tables of means and 95% intervals, line by line."""
    ours = groups(made[about["mode"]])
    counts = [f"{name.replace('_', ' ')} ({len(group)})" for name, group in ours.items()]
    yield f"{about['frames']} frames of {about['width']}x{about['height']}, seed {about['seed']}"
    for arm, clips in made.items():
        columns = groups(clips)
        yield from _table(arm, counts, [estimates(group) for group in columns.values()])
        if arm in CONTROLS:
            lucky = better_than_chance(clips)
            yield f"better than chance: {', '.join(lucky) or 'nothing'}"
        else:
            share = ratios(clips)
            yield f"on average {share['size']:.2f} times the painter's size, {share['speed']:.2f} times its speed"
    luck = [chance([clip.asked.combination for clip in group]) for group in ours.values()]
    yield from _table("chance", counts, luck)
    if about["against"]:
        theirs = groups(made[about["against"]])
        title = f"{about['mode']} less {about['against']}, prompt by prompt"
        yield from _table(title, counts, [differences(ours[name], theirs[name]) for name in ours])


def _table(title: str, heads: Sequence[str], columns: Sequence[Mapping]) -> Iterator[str]:
    yield f"\n{title}\n{'':16}" + "".join(f"{head:24}" for head in heads).rstrip()
    for name in columns[0]:
        cells = (value if isinstance(value := column[name], Estimate) else f"{value:.3f}" for column in columns)
        yield f"{name:16}" + "".join(f"{cell!s:24}" for cell in cells).rstrip()


def _rows(made: Mapping[str, list[ScoredClip]]) -> str:
    """Comma-separated values, a line for each clip."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    words = [f"seen_{word}" for word in WORDS]
    lines.writerow(["arm", "prompt", *WORDS, *words, "presence", "held_out", "seed", *(f"score_{s}" for s in SCORES)])
    for arm, clips in made.items():
        for clip in clips:
            asked, shown = (asdict(one) for one in (clip.asked.combination, clip.verdict))
            what = [*(asked[word] for word in WORDS), *(shown[word] for word in WORDS), shown["presence"]]
            scores = (f"{clip.scores[name]:.6f}" for name in SCORES)
            lines.writerow([arm, clip.asked.prompt, *what, int(clip.asked.held_out), clip.asked.seed, *scores])
    return out.getvalue()
