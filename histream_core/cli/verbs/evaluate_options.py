"""Options that several evaluations of the bundled model share."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...lab.judge.pictures import read_pictures
from ...lab.judge.things import SceneJudge
from ..options.common import whole
from .videos import parse_size


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


def scene_judge(folder: Path) -> SceneJudge:
    """The judge of scenes, with the pictures of a folder. Raises ValueError or OSError."""
    return SceneJudge(read_pictures(folder))
