"""`histream demo` and `histream render`: a prompt becomes a video file."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from .. import demo
from ..demo.text import VOCABULARY
from ..media import check_target
from ..noise import SeededNoise
from ..plan import Plan, latent_frames, make_plan
from ..presets import MODES, Preset
from ..render import FPS, Order, Progress, generated_size, render, whole_length
from ..schedule import Scale
from .progress import progress_bar, tell
from .weights import Source, add_weight_options, demo_source, find_source, pick_device, prompts_of

DEMO_SECONDS = 5.0


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add both verbs."""
    verb = verbs.add_parser(
        "demo",
        help="a video from the bundled model: no download, any computer",
        description=f"Make a {demo.WIDTH}x{demo.HEIGHT} video with the bundled model.",
        epilog=f"Words it knows: {', '.join(VOCABULARY)}.",
    )
    verb.add_argument("prompt", metavar="PROMPT", nargs="?", default=demo.PROMPT, help=f'default: "{demo.PROMPT}"')
    verb.add_argument("--seconds", metavar="S", type=float, default=DEMO_SECONDS, help="length (default: 5)")
    add_run_options(verb)
    verb.add_argument("--device", metavar="D", default="cpu", help="cuda, mps, cpu (default: cpu, which is enough)")
    verb.set_defaults(run=run_demo)
    yield verb
    verb = verbs.add_parser("render", help="a video from your own weights")
    add_weight_options(verb)
    add_size_options(verb)
    verb.add_argument("--fps", metavar="N", type=float, default=FPS, help=f"frames per second (default: {FPS})")
    add_run_options(verb)
    verb.set_defaults(run=run_render)
    yield verb


def add_size_options(verb: argparse.ArgumentParser, *, size: str = "832x480", frames: int = 81) -> None:
    """--size and --frames."""
    verb.add_argument("--size", metavar="WxH", type=parse_size, default=size, help=f"width x height (default: {size})")
    verb.add_argument("--frames", metavar="N", type=int, default=frames, help=f"4n + 1 (default: {frames})")


def add_run_options(verb: argparse.ArgumentParser) -> None:
    """--mode, --seed and --out."""
    modes = "; ".join(f"{name}: {what}" for name, what in MODES.items())
    verb.add_argument("--mode", metavar="M", default="histream", help=f"{modes} (default: histream)")
    verb.add_argument("--seed", metavar="N", type=int, default=0, help="another number, another video (default: 0)")
    verb.add_argument("--out", metavar="FILE.mp4", type=Path, help="where to write (default: a new name here)")


def parse_size(text: str) -> tuple[int, int]:
    """Width and height from "1920x1080"."""
    match = re.fullmatch(r"(\d+)[xX*](\d+)", text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f'"{text}" is not WIDTHxHEIGHT: write it like 1920x1088')
    return int(match[1]), int(match[2])


def run_demo(args: argparse.Namespace) -> tuple[dict, str]:
    """Make the demo video."""
    if not 0 < args.seconds < math.inf:
        raise ValueError(f"{args.seconds:g} seconds is no length: use 5")
    num_frames = whole_length(max(1, math.ceil(args.seconds * demo.FPS)))
    source = demo_source([args.prompt], pick_device(args.device))
    return _make(args, source, size=(demo.WIDTH, demo.HEIGHT), num_frames=num_frames, fps=demo.FPS)


def run_render(args: argparse.Namespace) -> tuple[dict, str]:
    """Make a video from the user's weights."""
    return _make(args, find_source(args, prompts_of(args)), size=args.size, num_frames=args.frames, fps=args.fps)


def _make(
    args: argparse.Namespace, source: Source, *, size: tuple[int, int], num_frames: int, fps: float
) -> tuple[dict, str]:
    """Refuse what cannot work, load, then sample, decode and write in one loop."""
    plan, notes = plan_video(source.preset, args.mode, size=size, num_frames=num_frames)
    path = args.out or new_name(f"histream-{args.verb}")
    check_target(path, size=size, fps=fps)
    noise = SeededNoise(args.seed)
    weights, (text,) = source.load()
    notes = [*source.notes, *notes]
    tell(notes)
    with progress_bar() as report:
        progress = render(weights, Order(plan, text, noise), path, size=size, fps=fps, report=report)
    result = {
        "file": str(path.resolve()),
        "prompt": args.prompt,
        "preset": source.preset.name,
        "mode": args.mode,
        "seed": args.seed,
        "width": size[0],
        "height": size[1],
        "fps": fps,
        "seconds": plan.pixel_frames / fps,
        **describe_plan(plan),
        **describe_run(progress),
        "notes": notes,
    }
    return result, (
        f"{result['file']}: {plan.pixel_frames} frames of {size[0]}x{size[1]}, {plan.pixel_frames / fps:.1f} s at "
        f"{fps:g} fps; took {progress.seconds:.1f} s, first frames after {progress.first_frames:.1f} s"
    )


def plan_video(preset: Preset, mode: str, *, size: tuple[int, int], num_frames: int) -> tuple[Plan, list[str]]:
    """The plan of a video of that size and length, and what had to be changed. Raises ValueError if it cannot be."""
    length = whole_length(num_frames)
    width, height = generated_size(*size)
    plan = make_plan(preset, mode, width=width, height=height, num_frames=latent_frames(length))
    notes = []
    if length != num_frames:
        notes.append(f"{num_frames} frames is not of the form 4n + 1: {length} are made")
    if plan.size != tuple(size):
        notes.append(f"{width}x{height} is generated and cropped to {size[0]}x{size[1]} at the centre")
    return plan, notes


def describe_plan(plan: Plan) -> dict:
    """What a plan will make, as plain values."""
    width, height = plan.size
    return {
        "frames": plan.pixel_frames,
        "latent_frames": plan.num_frames,
        "chunks": len(plan.chunks),
        "generated_width": width,
        "generated_height": height,
    }


def describe_run(progress: Progress) -> dict:
    """What a run took, as plain values; times are seconds from the start of sampling."""
    return {
        "passes": {"high": progress.calls[Scale.HIGH], "low": progress.calls[Scale.LOW]},
        "seconds_to_first_frames": round(progress.first_frames or 0, 2),
        "seconds_taken": round(progress.seconds, 2),
    }


def new_name(stem: str) -> Path:
    """The first of stem.mp4, stem-2.mp4, ... that does not exist in the current folder."""
    names = (Path(f"{stem}.mp4" if n == 1 else f"{stem}-{n}.mp4") for n in count(1))
    return next(path for path in names if not path.exists())
