"""Options of memory: where keys and values lie, and whether a plan that does not fit is begun all the same."""

from __future__ import annotations

import argparse
from dataclasses import replace

from ...network.cache.tiers import TIERS
from ...runs import Settings
from ...runs.weights import Weights


def add_memory_option(verb: argparse.ArgumentParser) -> None:
    """--ignore-memory."""
    verb.add_argument(
        "--ignore-memory", action="store_true", help="begin even where the plan says that memory is too small"
    )


def add_kv_option(verb: argparse.ArgumentParser, *, default: str | None = "full") -> None:
    """--kv. `default` None: what `with_kv` makes of a run that is there already."""
    verb.add_argument(
        "--kv",
        choices=TIERS,
        default=default,
        help="memory of keys and values. "
        + "; ".join(f"{name}: {what}" for name, what in TIERS.items())
        + f" (default: {default or 'full, or fp8 where the run is'})",
    )


def with_kv(weights: Weights, args: argparse.Namespace, settings: Settings) -> Weights:
    """The weights, with the memory of keys and values that was asked for, else one that gives the run's frames."""
    return replace(weights, kv=args.kv or ("fp8" if settings.fp8_kv else "full"))
