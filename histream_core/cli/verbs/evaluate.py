"""`histream eval`: measures of videos, and evaluations of the bundled model."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...lab.judge import FLOWS
from ...lab.judge.bootstrap import estimate
from ...lab.judge.clip_score import ClipFeatures
from ...lab.judge.flow import choose_flow
from ...lab.judge.video import MEASURES, MeasureSettings, measure
from ...video.reading import frames_of, index_video
from ..progress import follow


def run_evaluation(args: argparse.Namespace) -> tuple[dict, str]:
    """Measure videos."""
    if not args.videos:
        raise ValueError("there is nothing to evaluate: give a video, or --demo for the bundled model")
    if args.motion_every < 1:
        raise ValueError(f"every {args.motion_every}th frame is none: use --motion-every 1")
    if args.source:
        _check_source(args)
        args.reference = args.source
    if args.reference and len(args.videos) > 1:
        raise ValueError(f"one reference cannot belong to {len(args.videos)} videos: measure them one by one")
    if args.prompt and not args.clip:
        raise ValueError("--prompt is read by a CLIP: give the folder of one with --clip")
    flow, find_flow = choose_flow(args.flow)
    settings = MeasureSettings(args.motion_every, flow=find_flow)
    if args.clip:
        clip = ClipFeatures(args.clip)
        prompt = clip.prompt(args.prompt) if args.prompt else None
        settings = replace(settings, encode=clip.picture, prompt=prompt)
    found = [_measure(path, args.reference, settings) for path in args.videos]
    result = {"reference": str(args.reference) if args.reference else None, "flow": flow, "videos": found}
    if len(found) > 1:
        result["mean"] = _means(found)
    return result, "\n".join(_lines(result, clip=bool(args.clip)))


def _check_source(args: argparse.Namespace) -> None:
    """Refuse a source that a video cannot be the restyled one of. Raises ValueError or OSError."""
    if args.reference:
        raise ValueError("--source is the reference of a restyled video: give one of --source and --reference")
    there = index_video(args.source)
    for path in args.videos:
        here = index_video(path)
        if here.num_frames != there.num_frames:
            raise ValueError(
                f"{path} has {here.num_frames} frames and its source {there.num_frames}: give the whole video that it "
                "restyles"
            )
        if here.rate != there.rate:
            raise ValueError(
                f"{path} has {float(here.rate):g} frames a second and its source {float(there.rate):g}: give both at "
                "one rate"
            )


def _measure(path: Path, reference: Path | None, settings: MeasureSettings) -> dict:
    guide = frames_of(reference) if reference else None
    return {"file": str(path), **measure(follow(frames_of(path), f"{path.name} "), guide, settings)}


def _means(found: Sequence[Mapping]) -> dict:
    """Means and 95% intervals over the videos, for the measures that all videos have."""
    means, intervals = {}, {}
    for name in MEASURES:
        values = [one[name] for one in found if one.get(name) is not None]
        if len(values) == len(found):
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
    yield f"motion is read by {result['flow']}: {FLOWS[result['flow']]}"
    if not clip:
        yield "CLIP scores: not measured, give the folder of a CLIP with --clip"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
