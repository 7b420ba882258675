"""Which kernels a run is computed with: an option for each choice."""

from __future__ import annotations

import argparse
from typing import Any

from ..attention import check_installed
from ..speed import CHOICES, DEFAULTS, Speed


def add_speed_options(verb: Any, *, kept: bool = False) -> None:
    """An option for each field of `Speed`; `kept`: by default as the run is."""
    for name, options in CHOICES.items():
        usual = "as the run is, else " if kept else ""
        listed = "; ".join(f"{option}: {what}" for option, what in options.items())
        verb.add_argument(f"--{name}", choices=options, help=f"{listed} (default: {usual}{getattr(DEFAULTS, name)})")


def speed_of(args: argparse.Namespace, kept: Speed = DEFAULTS) -> Speed:
    """What was chosen; the rest is as in `kept`. Raises ValueError for what is not installed."""
    chosen = {name: getattr(args, name) or getattr(kept, name) for name in CHOICES}
    check_installed(chosen["attention"])
    return Speed(**chosen)
