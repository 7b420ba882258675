"""`histream demo` and `histream render`: a prompt becomes a video file."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from ... import demo
from ...demo.text import VOCABULARY
from ...plan.chunks import Plan
from ...plan.make import PlanOptions, make_plan
from ...plan.presets import MODES, Preset
from ...plan.sizes import generated_size, latent_frames, whole_length
from ...runs.kept import metadata
from ...runs.render import FPS, Order, render
from ...stream.noise import SeededNoise
from ...stream.timeline import Cue
from ...video.container import check_name
from ...video.formats import FORMATS, NAMES, Format, find_format
from ...video.sound import check_sound
from ...video.space import check_space
from ...video.writers import frame_rate
from ..options.keeping import add_section_files, add_snapshots, begin_run
from ..options.memory import add_kv_option, add_memory_option, check_memory
from ..options.speed import add_speed_options, speed_of
from ..options.timelines import add_first_frame, add_timeline, cues_of, given_frames, shown
from ..options.weights import Source, add_weight_options, demo_source, find_source, pick_device
from ..progress import progress_bar, tell
from ..results import describe_progress, describe_video, sentence

DEMO_SECONDS = 5.0


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add both verbs."""
    verb = verbs.add_parser(
        "demo",
        help="a video from the bundled model: no download, any computer",
        description=f"Make a {demo.WIDTH}x{demo.HEIGHT} video with the bundled model.",
        epilog=f"Words it knows: {', '.join(VOCABULARY)}.",
    )
    verb.add_argument("prompt", metavar="PROMPT", nargs="?", help=f'default: "{demo.PROMPT}"')
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
    """--mode, --seed, what is written and where."""
    modes = "; ".join(f"{name}: {what}" for name, what in MODES.items())
    verb.add_argument("--mode", metavar="M", default="histream", help=f"{modes} (default: histream)")
    verb.add_argument("--seed", metavar="N", type=int, default=0, help="another number, another video (default: 0)")
    verb.add_argument("--format", metavar="F", default=FORMATS[0].name, help=f"{', '.join(NAMES)} (default: h264-mp4)")
    verb.add_argument("--depth", metavar="BITS", type=int, help="bits for each channel (default: what is usual)")
    add_timeline(verb)
    add_first_frame(verb)
    verb.add_argument("--sound", metavar="FILE", type=Path, help="a video or sound whose sound is copied in as it is")
    place = verb.add_mutually_exclusive_group()
    place.add_argument("--out", metavar="FILE", type=Path, help="where to write (default: a new name here)")
    place.add_argument(
        "--run-dir", metavar="DIR", type=Path, help="keep every finished chunk in DIR, so that the run can be resumed"
    )
    verb.add_argument("--discard", action="store_true", help="on Ctrl-C remove the run instead of keeping it")
    add_section_files(verb)
    add_snapshots(verb)
    verb.add_argument(
        "--anchor-match",
        metavar="W",
        type=float,
        default=0.0,
        help="pull the colour and contrast of every chunk that far to those of its prompt's first one: 0 to 1, against "
        "slow drift (default: 0, not at all)",
    )
    add_kv_option(verb)
    add_memory_option(verb)
    add_speed_options(verb)


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
    cues = _cues(args, demo.PROMPT)
    source = demo_source([cue.prompt for cue in cues], pick_device(args.device))
    return _make(args, source, cues, size=(demo.WIDTH, demo.HEIGHT), num_frames=num_frames, fps=demo.FPS)


def run_render(args: argparse.Namespace) -> tuple[dict, str]:
    """Make a video from the user's weights."""
    cues = _cues(args)
    source = find_source(args, [cue.prompt for cue in cues if cue.prompt])
    return _make(args, source, cues, size=args.size, num_frames=args.frames, fps=args.fps)


def _cues(args: argparse.Namespace, default: str | None = None) -> tuple[Cue, ...]:
    if args.prompt and args.timeline:
        raise ValueError("there is a prompt and a --timeline: put the prompt into the timeline, or leave one out")
    return cues_of(args, args.prompt or default)


def _make(
    args: argparse.Namespace,
    source: Source,
    cues: tuple[Cue, ...],
    *,
    size: tuple[int, int],
    num_frames: int,
    fps: float,
) -> tuple[dict, str]:
    """Refuse what cannot work, load, then sample, decode and write in one loop."""
    speed, given = speed_of(args), given_frames(args, source.preset.chunk_frames)
    plan, notes = plan_video(
        source.preset, args.mode, size=size, num_frames=num_frames, levers=speed.levers, given_frames=given
    )
    video = shown(args, replace(plan, anchor_match=args.anchor_match), fps, cues)
    plan, notes = video.plan, [*source.notes, *notes, *video.notes]
    noise = SeededNoise(args.seed)
    if args.run_dir:
        return begin_run(args, source, video, size=size, fps=fps, notes=notes)
    if args.section_files:
        raise ValueError("sections are those of a run that is kept: give --run-dir too, or leave --section-files out")
    format = find_format(args.format, args.depth)
    path = args.out or new_name(f"histream-{args.verb}", "" if format.is_sequence else format.suffix)
    check_output(path, format, size=size, fps=fps, num_frames=plan.num_pixel_frames)
    if args.sound:
        check_sound(args.sound, format)
    weights, texts = source.load()
    weights = replace(weights, kv=args.kv, speed=speed)
    check_memory(args, weights, plan, num_prompts=len(texts))
    tell(notes)
    tags = metadata([cue.prompt for cue in cues], [args.seed])
    first, *changes = video.stretches(texts)
    with progress_bar() as report:
        order = Order(plan, first.text, noise, tuple(changes), video.given(weights))
        progress = render(
            weights, order, path, format, size=size, fps=fps, metadata=tags, sound=args.sound, report=report
        )
    result = {
        "file": str(path.resolve()),
        "prompt": video.words or None,
        "preset": source.preset.name,
        "mode": args.mode,
        "kv": args.kv,
        "kernels": dict(weights.kernels().in_use),
        "seed": args.seed,
        **describe_video(plan, format, size, fps),
        **describe_progress(progress),
        "notes": notes,
    }
    return result, sentence(result)


def check_output(path: Path, format: Format, *, size: tuple[int, int], fps: float, num_frames: int) -> None:
    """Refuse a video that cannot be written, before anything is computed. Raises ValueError or OSError."""
    if not format.is_sequence:
        check_name(path, format)
    format.check_size(size)
    frame_rate(fps)
    check_space(path.parent, format, size, num_frames)


def plan_video(
    preset: Preset,
    mode: str,
    *,
    size: tuple[int, int],
    num_frames: int,
    levers: Collection[str] = (),
    given_frames: int = 0,
) -> tuple[Plan, list[str]]:
    """The plan of a video of that size and length, and what had to be changed. Raises ValueError if it cannot be.

    `given_frames` are the latent frames that a picture fills.
    """
    length = whole_length(num_frames)
    width, height = generated_size(*size)
    plan = make_plan(
        preset,
        mode,
        size=(width, height),
        num_latent_frames=latent_frames(length),
        options=PlanOptions(levers=levers, given_frames=given_frames, first_frame=given_frames > 0),
    )
    notes = []
    if length != num_frames:
        notes.append(f"{num_frames} frames is not of the form 4n + 1: {length} are made")
    if plan.size != tuple(size):
        notes.append(f"{width}x{height} is generated and cropped to {size[0]}x{size[1]} at the centre")
    return plan, notes


def new_name(stem: str, suffix: str) -> Path:
    """The first of stem.mp4, stem-2.mp4, ... that does not exist in the current folder."""
    names = (Path(f"{stem}{'' if n == 1 else f'-{n}'}{suffix}") for n in count(1))
    return next(path for path in names if not path.exists())
