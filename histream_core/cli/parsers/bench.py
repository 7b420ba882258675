"""Options of `histream bench`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...live.intake import POLICIES
from ..options.common import add_overwrite, decimal, whole
from . import Later


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add the verb."""
    verb = verbs.add_parser("bench")
    what = verb.add_mutually_exclusive_group(required=True)
    what.add_argument("--meta", action="store_true", help="count operations, bytes and waits at 1920x1088; no GPU used")
    what.add_argument("--cpu", action="store_true", help="ratios of times on one thread, in a minute or two")
    what.add_argument("--limit", action="store_true", help="the demo's time on one thread against its arithmetic limit")
    what.add_argument("--gpu", action="store_true", help="the six-minute sheet: random weights of the real size")
    what.add_argument("--plots", metavar="FOLDER", type=Path, help="draw what a frame costs, as SVG files")
    what.add_argument("--live", action="store_true", help="live streams; with --sim, on a virtual clock")
    _add_live(verb)
    verb.add_argument("--tiny", action="store_true", help="with --gpu: the same sheet at tiny sizes, on the CPU")
    verb.add_argument(
        "--out", metavar="F.json", type=Path, help="write the result there too; with --gpu, each row as it comes"
    )
    add_overwrite(verb, "--out and --plots")
    verb.set_defaults(run=Later("bench", "run_bench"))
    yield verb


def _add_live(verb: argparse.ArgumentParser) -> None:
    """Add the options of --live."""
    live = verb.add_argument_group("with --live")
    live.add_argument("--sim", action="store_true", help="published frame rates from five numbers, simulated streams")
    live.add_argument("--table", action="store_true", help="the delay to expect by model, card and steps, in Markdown")
    live.add_argument("--camera", type=decimal, metavar="FPS", help="frames per second of the camera (30)")
    live.add_argument("--steps", type=whole, metavar="N", help="denoising steps at most, 1 to 4 (4)")
    live.add_argument("--policy", choices=POLICIES, help="which frames a chunk takes of those that wait (even)")
    live.add_argument("--hours", type=decimal, metavar="H", help="length of the stream (1)")
    live.add_argument(
        "--load-step", type=decimal, metavar="PERCENT", help="after a minute all takes so much longer (60)"
    )
