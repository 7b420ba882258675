"""Options of `histream sheet`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..options.adding import add_size_options, add_weight_options
from ..options.common import add_overwrite, whole
from . import Later

GRID, THIN = "grid", "thin"
WHICH = {
    GRID: "Dual-Resolution Caching, NTK factor, time shift and first-chunk scale, each with each",
    THIN: "one after the other what has thin public evidence: NTK factors up to 20, ways to resize, the first chunk's "
    "attention, a short span, and in longer clips other anchors",
}
"""The settings that a sheet can show."""
FRAMES = {GRID: 21, THIN: 33}
"""Frames of a clip where none are given; in fewer than these a short span shows nothing."""


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add the verb."""
    verb = verbs.add_parser(
        "sheet",
        description="Make a short clip of one prompt and seed in each of many settings, and show them as one picture.",
    )
    add_weight_options(verb)
    add_size_options(verb, size="960x544", frames=f"{FRAMES[GRID]}; {FRAMES[THIN]} with --settings {THIN}")
    verb.add_argument("--seed", metavar="N", type=whole, default=0, help="default: 0")
    verb.add_argument(
        "--prompts", metavar="FILE", type=Path, help="a strip for every line of FILE, in the preset's settings"
    )
    listed = "; ".join(f"{name}: {what}" for name, what in WHICH.items())
    verb.add_argument("--settings", choices=list(WHICH), default=GRID, help=f"{listed} (default: {GRID})")
    verb.add_argument(
        "--drafts",
        metavar="N",
        type=whole,
        default=0,
        help="a strip for each of N seeds from --seed on, made by the steps at half resolution alone: many seeds for "
        "little work, to make the whole video of the best one",
    )
    verb.add_argument("--moments", metavar="N", type=whole, default=4, help="frames in a strip (default: 4)")
    verb.add_argument("--out", metavar="FILE.png", type=Path, help="where to write (default: a new name here)")
    add_overwrite(verb, "--out")
    verb.set_defaults(run=Later("sheet", "run_sheet"))
    yield verb
