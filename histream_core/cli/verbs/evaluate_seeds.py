"""`histream eval --demo --seeds N`: how much clips of one prompt differ from seed to seed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ... import demo
from ...demo.scenes import Scene
from ...demo.sentence import clip_of, completed
from ...lab.judge.pictures import read_pictures
from ...lab.judge.things import SceneJudge
from ...lab.judge.variety import VARIETY, start_of, variety
from ...network.forward import Text
from ...runs.render import Order, collect
from ...stream.noise import SeededNoise
from ...stream.prompts import Prompt
from ..options.weights import demo_source, pick_device
from ..progress import print_notes, progress_bar
from .videos import plan_video

MOST_SEEDS = 256


def run_seeds_evaluation(args: argparse.Namespace) -> tuple[dict, str]:
    """Make a clip with each seed and compare them."""
    if not 2 <= args.seeds <= MOST_SEEDS:
        raise ValueError(f"{args.seeds} seeds: use 2 to {MOST_SEEDS}")
    if args.seed < 0:
        raise ValueError(f"seed {args.seed} is out of range: use 0 or more")
    find = _finder(clip_of(args.prompt), args.pictures)
    seeds = range(args.seed, args.seed + args.seeds)
    source = demo_source([completed(args.prompt, seed) for seed in seeds], pick_device(args.device))
    size = demo.WIDTH, demo.HEIGHT
    plan, notes = plan_video(source.preset, args.mode, size=size, num_frames=args.frames)
    print_notes([*source.notes, *notes])
    weights, texts = source.load()
    clips, starts = [], []
    for seed, text in zip(seeds, texts, strict=True):
        order = Order(plan, (Prompt(Text(text)),), SeededNoise(seed))
        with progress_bar(f"seed {seed} ") as report:
            clips.append(np.stack(collect(weights, order, report)))
        starts.append(find(clips[-1][0].astype(np.float32) / 255))
    about = {"prompt": args.prompt, "mode": args.mode, "seed": args.seed, "seeds": args.seeds}
    about["frames"] = plan.num_pixel_frames
    result = about | {name: round(value, 6) for name, value in variety(starts, clips).items()}
    return result, "\n".join(_lines(result))


def _finder(asked, pictures: Path | None):
    """A function that finds the object of the prompt in a frame. Raises ValueError for a scene without pictures."""
    if not isinstance(asked, Scene):
        return start_of
    if pictures is None:
        raise ValueError(f"a {asked.thing} is found by its picture: give the folder of the pictures with --pictures")
    judge = SceneJudge(read_pictures(pictures))
    return lambda frame: judge.start_of(frame, asked)


def _lines(result: Mapping) -> Iterator[str]:
    yield f"{result['seeds']} seeds from {result['seed']} on, {result['frames']} frames: {result['prompt']}"
    for name, meaning in VARIETY.items():
        yield f"  {name:18}{result[name]:.3f}  {meaning}"
