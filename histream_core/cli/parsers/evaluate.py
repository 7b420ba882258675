"""Options of `histream eval`, of each of its forms."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...demo.sentence import EXAMPLE
from ...lab.judge import FLOWS
from ...plan.presets import MODES
from ..options.adding import parse_size
from ..options.common import add_overwrite, decimal, prompt_text, whole
from ..options.speed import KERNELS, add_speed_options
from . import Later

ARMS = ["histream", "anchor-off"]
"""Arms of long videos that are made where none are named."""

BASE = "histream"
"""The mode that the arms of a table change, where no other is named."""

STRENGTH = 0.8
"""The share of noise that restyled clips begin with, where no other is named."""


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add the verb, and a parser for each of its other forms."""
    verb = verbs.add_parser(
        "eval",
        description="Measure videos, or with --demo the bundled model; what each figure means is in docs/results.md.",
        epilog=f"See also: {', '.join((f'histream eval {words} --help' for words, *_ in FORMS.values()))}.",
    )
    verb.add_argument("videos", metavar="VIDEO", nargs="*", type=Path, help="consistency, drift and detail of each")
    verb.add_argument("--reference", metavar="VIDEO", type=Path, help="what it was made from, or the ground truth")
    verb.add_argument(
        "--source", metavar="VIDEO", type=Path, help="the video that it restyles, as long and of one rate"
    )
    verb.add_argument(
        "--motion-every", metavar="N", type=whole, default=1, help="read motion at every Nth frame only (default: 1)"
    )
    listed = "; ".join(f"{name}: {what}" for name, what in FLOWS.items())
    verb.add_argument(
        "--flow",
        choices=FLOWS,
        help=f"how motion is read, each with numbers of its own: {listed} (default: dis where it is installed)",
    )
    verb.add_argument("--clip", metavar="DIR", type=Path, help="also CLIP scores, by a CLIP in this folder")
    verb.add_argument("--prompt", metavar="P", type=prompt_text, help="what the videos should show, for --clip")
    verb.set_defaults(run=Later("evaluate", "run_evaluation"))
    yield verb
    for option, (words, add_options, description) in FORMS.items():
        verb.forms[option] = form = type(verb)(prog=f"{verb.prog} {words}", description=description)
        add_options(form)
        yield form


def _demo(verb: argparse.ArgumentParser) -> None:
    """Add the options of `run_demo_evaluation`."""
    add_prompt_options(verb, prompts=24)
    add_frames(verb)
    verb.add_argument("--mode", metavar="M", default="histream", help=f"{', '.join(MODES)} (default: histream)")
    verb.add_argument("--against", metavar="M", help="compare with another mode, prompt by prompt")
    add_speed_options(verb, KERNELS)
    verb.add_argument("--controls", action="store_true", help="also random weights and an empty prompt")
    verb.add_argument("--sheet", metavar="FILE.png", type=Path, help="write a contact sheet of the clips")
    verb.add_argument("--plot", metavar="FILE.svg", type=Path, help="write the means and intervals as a picture")
    verb.add_argument("--csv", metavar="FILE.csv", type=Path, help="write a line for each clip")
    add_overwrite(verb, "--sheet, --plot and --csv")
    verb.set_defaults(run=Later("evaluate_demo", "run_demo_evaluation"))


def _long(verb: argparse.ArgumentParser) -> None:
    """Add the options of `run_minutes`."""
    add_prompt_options(verb, prompts=2)
    add_folder_options(verb)
    verb.add_argument("--minutes", metavar="M", type=decimal, required=True, help=argparse.SUPPRESS)
    verb.add_argument("--arms", metavar="A", nargs="+", default=ARMS, help=f"default: {' '.join(ARMS)}")
    verb.set_defaults(run=Later("evaluate_long", "run_minutes"))


def _restyle(verb: argparse.ArgumentParser) -> None:
    """Add the options of `run_restyle_evaluation`."""
    add_prompt_options(verb, prompts=200)
    add_frames(verb)
    verb.add_argument("--v2v", action="store_true", required=True, help=argparse.SUPPRESS)
    verb.add_argument("--out", metavar="DIR", type=Path, help="a folder, made or gone on with")
    verb.add_argument("--mode", metavar="M", default="histream", help=f"{', '.join(MODES)} (default: histream)")
    verb.add_argument(
        "--strength",
        metavar="S",
        type=decimal,
        nargs="+",
        default=[STRENGTH],
        help=f"the shares of noise that clips begin with, an arm for each (default: {STRENGTH})",
    )
    verb.add_argument("--controls", action="store_true", help="also strengths 1 and 0, and random weights")
    verb.add_argument(
        "--tables",
        action="store_true",
        help="StreamDiffusionV2's ablation at one strength instead: with and without sink and dynamic noise",
    )
    verb.add_argument("--clip", metavar="DIR", type=Path, help="also CLIP scores, by a CLIP in this folder")
    verb.set_defaults(run=Later("evaluate_restyle", "run_restyle_evaluation"))


def _scenes(verb: argparse.ArgumentParser) -> None:
    """Add the options of `run_scenes_evaluation`."""
    add_prompt_options(verb, prompts=24)
    add_pictures(verb, required=True)
    add_frames(verb)
    verb.add_argument("--mode", metavar="M", default="histream", help=f"{', '.join(MODES)} (default: histream)")
    verb.set_defaults(run=Later("evaluate_scenes", "run_scenes_evaluation"))


def _seeds(verb: argparse.ArgumentParser) -> None:
    """Add the options of `run_seeds_evaluation`."""
    verb.add_argument("--demo", action="store_true", required=True, help=argparse.SUPPRESS)
    verb.add_argument("--seeds", metavar="N", type=whole, required=True, help="clips, each with a seed of its own")
    verb.add_argument("--prompt", metavar="P", type=prompt_text, default=EXAMPLE, help=f'default: "{EXAMPLE}"')
    verb.add_argument("--seed", metavar="N", type=whole, default=0, help="the first seed (default: 0)")
    add_frames(verb)
    verb.add_argument("--mode", metavar="M", default="histream", help=f"{', '.join(MODES)} (default: histream)")
    verb.add_argument("--device", metavar="D", default="cpu", help="cuda, mps, cpu (default: cpu)")
    add_pictures(verb, required=False)
    verb.set_defaults(run=Later("evaluate_seeds", "run_seeds_evaluation"))


def _tables(verb: argparse.ArgumentParser) -> None:
    """Add the options of `run_tables`."""
    add_prompt_options(verb, prompts=200)
    add_frames(verb)
    add_folder_options(verb)
    verb.add_argument("--tables", action="store_true", required=True, help=argparse.SUPPRESS)
    verb.add_argument("--arms", metavar="A", nargs="+", help="only these (default: all; a first run names them)")
    verb.add_argument(
        "--mode",
        choices=("histream", "histream-plus"),
        default=BASE,
        help=f"the mode that arms change (default: {BASE})",
    )
    verb.add_argument("--against", metavar="A", help="compare the others with it (default: the mode)")
    verb.add_argument("--teacher", metavar="FILE", type=Path, help="a transformer; its demo-text.safetensors beside it")
    verb.add_argument("--teacher-steps", metavar="N", type=whole, default=32, help="of its solver (default: 32)")
    verb.add_argument(
        "--teacher-low", metavar="N", type=whole, default=0, help="of them at half resolution (default: 0)"
    )
    verb.add_argument("--guidance", metavar="W", type=decimal, default=2.0, help="of the teacher; 1: none (default: 2)")
    verb.add_argument(
        "--teacher-shift", metavar="K", type=decimal, default=2.0, help="time shift of its steps (default: 2)"
    )
    verb.add_argument("--untuned", metavar="FILE", type=Path, help="the student before distillation, with its text too")
    verb.add_argument(
        "--batch", metavar="N", type=whole, default=1, help="clips at once (default: 1, as fast on one thread)"
    )
    verb.set_defaults(run=Later("evaluate_tables", "run_tables"))


FORMS = {
    "--v2v": ("--demo --v2v", _restyle, "Restyle painted clips and score words, place and motion."),
    "--tables": ("--demo --tables", _tables, "Fill the papers' tables: every arm on the same prompts."),
    "--minutes": ("--demo --minutes 10", _long, "Make long videos and measure how they drift."),
    "--seeds": ("--demo --seeds 16", _seeds, "Make clips of one prompt and compare them from seed to seed."),
    "--pictures": ("--demo --pictures DIR", _scenes, "Make clips of scenes and score them by their pictures."),
    "--demo": ("--demo", _demo, "Make short clips of fresh prompts and score them."),
}
"""Evaluations of the bundled model by the option that chooses one; the first option given counts."""


def add_prompt_options(verb: argparse.ArgumentParser, *, prompts: int) -> None:
    """Add --demo, --prompts, --seed and --device."""
    verb.add_argument("--demo", action="store_true", required=True, help=argparse.SUPPRESS)
    verb.add_argument(
        "--prompts",
        metavar="N",
        type=whole,
        default=prompts,
        help=f"drawn afresh, half of them held out (default: {prompts})",
    )
    verb.add_argument("--seed", metavar="N", type=whole, default=0, help="other prompts, other noise (default: 0)")
    verb.add_argument("--device", metavar="D", default="cpu", help="cuda, mps, cpu (default: cpu)")


def add_folder_options(verb: argparse.ArgumentParser) -> None:
    """Add --out and --size."""
    verb.add_argument("--out", metavar="DIR", type=Path, help="a folder, made or gone on with")
    verb.add_argument("--size", metavar="WxH", type=parse_size, help="multiples of 64 (default: the model's)")


def add_frames(verb: argparse.ArgumentParser) -> None:
    """Add --frames."""
    verb.add_argument(
        "--frames", metavar="N", type=whole, default=21, help="of a clip, 4n + 1, at least 9 (default: 21)"
    )


def add_pictures(verb: argparse.ArgumentParser, *, required: bool) -> None:
    """Add --pictures."""
    verb.add_argument(
        "--pictures", metavar="DIR", type=Path, required=required, help="the folder with the pictures of scenes"
    )
