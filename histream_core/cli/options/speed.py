"""Options of speed: one for each field of `Speed`."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import Any

from ...plan.speed import CHOICES, DEFAULTS, Speed

KERNELS = ("attention", "linears", "elementwise")
"""Fields of `Speed` that choose kernels."""

LEVERS = ("high_keys", "cached_frames", "low_keys", "seen_keys")
"""Fields of `Speed` that change the plan."""


def add_speed_options(verb: Any, names: Collection[str] = tuple(CHOICES), *, kept: bool = False) -> None:
    """Add an option for each field of `Speed`, or for those in `names`; with `kept` the default is the run's choice."""
    for name in names:
        usual = "as the run is, else " if kept else ""
        listed = "; ".join(f"{option}: {what}" for option, what in CHOICES[name].items())
        flag, default = f"--{name.replace('_', '-')}", getattr(DEFAULTS, name)
        verb.add_argument(flag, choices=CHOICES[name], help=f"{listed} (default: {usual}{default})")


def speed_of(args: argparse.Namespace, kept: Speed = DEFAULTS) -> Speed:
    """The chosen `Speed`; fields without an option are those of `kept`. Raises ValueError for what is not installed."""
    from ...network.kernels import check_installed  # loads torch, which --help does without

    speed = chosen(args, kept)
    check_installed(speed)
    return speed


def chosen(args: argparse.Namespace, kept: Speed = DEFAULTS) -> Speed:
    """The chosen `Speed`, without a check of what is installed."""
    return Speed(**{name: getattr(args, name, None) or getattr(kept, name) for name in CHOICES})
