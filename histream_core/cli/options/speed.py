"""Which kernels a run is computed with: an option for each choice."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import Any

from ...network.kernels import check_installed
from ...plan.speed import CHOICES, DEFAULTS, Speed

KERNELS = ("attention", "linears", "elementwise")
"""Choices of what computes."""

LEVERS = ("high_keys", "cached_frames", "low_keys", "seen_keys")
"""Choices that a plan is made of."""


def add_speed_options(verb: Any, names: Collection[str] = tuple(CHOICES), *, kept: bool = False) -> None:
    """An option for each field of `Speed`, or for those of `names`; `kept`: by default as the run is."""
    for name in names:
        usual = "as the run is, else " if kept else ""
        listed = "; ".join(f"{option}: {what}" for option, what in CHOICES[name].items())
        flag, default = f"--{name.replace('_', '-')}", getattr(DEFAULTS, name)
        verb.add_argument(flag, choices=CHOICES[name], help=f"{listed} (default: {usual}{default})")


def speed_of(args: argparse.Namespace, kept: Speed = DEFAULTS) -> Speed:
    """What was chosen; the rest is as in `kept`. Raises ValueError for what is not installed."""
    speed = chosen(args, kept)
    check_installed(speed)
    return speed


def chosen(args: argparse.Namespace, kept: Speed = DEFAULTS) -> Speed:
    """The same, installed or not, of the options that there are."""
    return Speed(**{name: getattr(args, name, None) or getattr(kept, name) for name in CHOICES})
