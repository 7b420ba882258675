"""`histream eval --demo --pictures DIR`: scores of clips of scenes, read by the pictures of their things."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ... import demo
from ...lab.judge.bootstrap import estimate
from ...lab.judge.judge import LAG
from ...lab.judge.pictures import read_pictures
from ...lab.judge.prompts import chance_of, draw_scene_prompts
from ...lab.judge.things import SCENE_WORDS, SceneJudge
from ...lab.judge.throughout import course, throughout
from ...network.forward import Text
from ...runs.render import Order, collect
from ...stream.noise import SeededNoise
from ...stream.prompts import Prompt
from ..options.weights import demo_source, pick_device
from ..progress import print_notes, progress_bar
from .videos import plan_video


def run_scenes_evaluation(args: argparse.Namespace) -> tuple[dict, str]:
    """Make and score clips of scenes, half of them held out."""
    if args.frames <= LAG:
        raise ValueError(f"motion cannot be read from {args.frames} frames: use --frames {LAG + 1} or more")
    asked, judge = draw_scene_prompts(args.prompts, args.seed), SceneJudge(read_pictures(args.pictures))
    source = demo_source([one.told for one in asked], pick_device(args.device))
    size = demo.WIDTH, demo.HEIGHT
    plan, notes = plan_video(source.preset, args.mode, size=size, num_frames=args.frames)
    print_notes([*source.notes, *notes])
    weights, texts = source.load()
    read = []
    for number, (text, one) in enumerate(zip(texts, asked, strict=True), 1):
        order = Order(plan, (Prompt(Text(text)),), SeededNoise(one.seed))
        with progress_bar(f"{number}/{len(asked)} ") as report:
            frames = np.stack(collect(weights, order, report)).astype(np.float32) / 255
        read.append((judge.read_seconds(frames, one.scene), one.scene))
    about = {"mode": args.mode, "prompts": args.prompts, "seed": args.seed, "frames": plan.num_pixel_frames}
    held_out = [one.held_out for one in asked]
    groups = {
        "all": read,
        "seen": [one for one, out in zip(read, held_out, strict=True) if not out],
        "held_out": [one for one, out in zip(read, held_out, strict=True) if out],
    }
    found = {name: _scores(clips) for name, clips in groups.items()}
    clips = [
        {"prompt": one.prompt, "held_out": one.held_out, "seed": one.seed} | throughout(*shown)
        for one, shown in zip(asked, read, strict=True)
    ]
    result = about | found.pop("all") | found | {"seconds": course(read), "clips": clips}
    result["chance"] = chance_of([one.scene for one in asked], SCENE_WORDS)
    return result, "\n".join(_lines(result))


def _scores(clips: Sequence[tuple]) -> dict:
    """Means and 95% intervals of all scores."""
    each = [throughout(*clip) for clip in clips]
    found = {name: estimate([scores[name] for scores in each]) for name in each[0]}
    return {name: round(one.mean, 6) for name, one in found.items()} | {
        "intervals": {name: [round(one.low, 6), round(one.high, 6)] for name, one in found.items()}
    }


def _lines(result: Mapping) -> Iterator[str]:
    """Yield a table of means and intervals; "outline" is the likeness to the picture here."""
    yield f"{result['prompts']} scenes of {result['frames']} frames, seed {result['seed']}, {result['mode']}"
    yield f"{'':16}{'all':24}{'seen':24}{'held out'}"
    for name in result["intervals"]:
        columns = (result, result["seen"], result["held_out"])
        cells = (
            f"{one[name]:.3f} [{one['intervals'][name][0]:.3f}, {one['intervals'][name][1]:.3f}]" for one in columns
        )
        yield f"{name:16}" + "".join(f"{cell:24}" for cell in cells).rstrip()
    yield "chance          " + ", ".join(f"{word} {share:.3f}" for word, share in result["chance"].items())
