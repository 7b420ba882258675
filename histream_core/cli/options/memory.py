"""Options of memory: the tier of keys and values, and whether to begin a plan that does not fit."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from ...plan.storage import TIERS

if TYPE_CHECKING:
    from ...runs import Settings
    from ...runs.weights import Weights


def add_memory_option(verb: argparse.ArgumentParser) -> None:
    """Add --ignore-memory."""
    verb.add_argument(
        "--ignore-memory", action="store_true", help="begin even where the plan says that memory is too small"
    )


def add_kv_option(verb: argparse.ArgumentParser, *, default: str | None = "full") -> None:
    """Add --kv. `default` None: `with_kv` chooses by the existing run."""
    verb.add_argument(
        "--kv",
        choices=TIERS,
        default=default,
        help="memory of keys and values. "
        + "; ".join(f"{name}: {what}" for name, what in TIERS.items())
        + f" (default: {default or 'full, or fp8 where the run is'})",
    )


def with_kv(weights: Weights, args: argparse.Namespace, settings: Settings) -> Weights:
    """The weights with the requested memory tier, else with one that gives the run's frames."""
    return replace(weights, kv=args.kv or ("fp8" if settings.fp8_kv else "full"))
