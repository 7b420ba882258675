"""Options of `histream v2v`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..options.adding import add_restyle_options, add_run_options, add_weight_options
from ..options.plans import add_sinks
from . import Later


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add the verb."""
    verb = verbs.add_parser("v2v", description="Restyle a video: every frame, its rate, size and sound are kept.")
    verb.add_argument("video", metavar="IN", type=Path, help="the video to restyle")
    add_weight_options(verb)
    add_restyle_options(verb)
    add_run_options(verb, restyles=True)
    add_sinks(verb)
    verb.add_argument("--no-sound", action="store_true", help="leave the sound of the source out")
    verb.set_defaults(run=Later("restyle", "run_v2v"), check=Later("restyle", "check_v2v"))
    verb.late = "out"
    yield verb
