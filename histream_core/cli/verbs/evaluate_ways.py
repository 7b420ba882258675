"""`histream eval --demo --ways`: streamed, resumed and branched runs against plain ones."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ... import demo
from ...lab.judge.judge import LAG
from ...lab.judge.prompts import draw_prompts
from ...lab.judge.scores import SCORES, score
from ...lab.judge.ways import WAYS
from ..options.weights import demo_source, pick_device
from ..progress import tell
from .videos import plan_video

DEFAULTS = {"prompts": 4, "seed": 0, "mode": "histream", "frames": 33, "device": "cpu"}
ALIKE = 1e-3
"""How far scores may be apart: decoders may differ in the last bit of a pixel. Words are right or wrong."""


def run_ways(args: argparse.Namespace) -> tuple[dict, str]:
    """Make every clip in all ways; "ok" says whether all score the same."""
    asked = draw_prompts(args.prompts, args.seed)
    source = demo_source([one.prompt for one in asked], pick_device(args.device))
    plan, notes = plan_video(source.preset, args.mode, size=(demo.WIDTH, demo.HEIGHT), num_frames=args.frames)
    if len(plan.chunks) < 2 or plan.pixel_frames <= LAG:
        raise ValueError(f"{args.frames} frames are one chunk, which cannot be stopped in the middle: use --frames 33")
    weights, texts = source.load()
    tell(notes)
    found = {name: {"scores": [], "equal_frames": 0} for name in WAYS}
    for one, text in zip(asked, texts, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            clips = {name: make(weights, plan, text, one, Path(folder)) for name, make in WAYS.items()}
        plain = clips["plain"]
        for name, clip in clips.items():
            found[name]["scores"].append(score(clip.astype(np.float32, order="C") / 255, one.combination)[1])
            found[name]["equal_frames"] += int((clip == plain).all((1, 2, 3)).sum())
    result = summary(found) | {"mode": args.mode, "prompts": len(asked), "frames": plan.pixel_frames}
    return result, "\n".join(lines(result))


def summary(found: Mapping[str, Mapping]) -> dict:
    """Mean scores of each way, and the largest difference of any score of any clip from the plain one's."""
    plain = found["plain"]["scores"]
    ways = {
        name: {
            **{s: float(np.mean([clip[s] for clip in one["scores"]])) for s in SCORES},
            "equal_frames": one["equal_frames"],
            "largest_difference": max(
                abs(clip[s] - same[s]) for clip, same in zip(one["scores"], plain, strict=True) for s in SCORES
            ),
        }
        for name, one in found.items()
    }
    return {"ok": all(one["largest_difference"] <= ALIKE for one in ways.values()), "ways": ways}


def lines(result: Mapping) -> Iterator[str]:
    """The figures as a table."""
    count = result["prompts"] * result["frames"]
    yield f"{result['prompts']} clips of {result['frames']} frames in each way, {result['mode']}"
    yield f"{'':10}{'equal frames':16}{'largest difference of a score':32}"
    for name, one in result["ways"].items():
        equal = f"{one['equal_frames']}/{count}"
        yield f"{name:10}{equal:16}{one['largest_difference']:.2g}"
    yield "all score the same" if result["ok"] else "they do not score the same"
