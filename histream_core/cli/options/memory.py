"""Refuse what has no room in memory, before the first step."""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import replace

import torch

from ...cost.cost import GB, Cost
from ...cost.fitting import does_not_fit, vae_does_not_fit
from ...network.cache.tiers import TIERS
from ...network.model import WanConfig
from ...plan.chunks import Plan
from ...plan.sizes import PIXELS_PER_CELL
from ...plan.speed import Speed
from ...runs import Settings
from ...runs.render import Weights
from ...vae.decoders import strip_ranges
from ...vae.taehv import is_taehv


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


def check_strips(speed: Speed, plan: Plan) -> None:
    """Refuse more strips than the pictures of a plan have room for. Raises ValueError."""
    strip_ranges(max(plan.size) // PIXELS_PER_CELL, int(speed.vae_strips))


def check_memory(args: argparse.Namespace, weights: Weights, plan: Plan, *, num_prompts: int = 1) -> None:
    """Refuse a plan that needs more memory than the device has, or the VAE's own. Raises ValueError: what would fit."""
    check_strips(weights.speed, plan)
    if args.ignore_memory:
        return
    device, vae_device = (next(part.parameters()).device for part in (weights.model, weights.vae))
    cost = Cost(
        WanConfig.from_state_dict(weights.model.state_dict()),
        plan,
        num_prompts=num_prompts,
        dtype=weights.dtype,
        vae_dtype=weights.dtype,
        **_decoder_of(weights),
        vae_elsewhere=vae_device != device,
        kv=weights.kv,
        unified=device.type == "cpu",
    )
    problems = does_not_fit(cost, _gigabytes(device))
    if cost.vae_elsewhere:
        problems += vae_does_not_fit(cost, _gigabytes(vae_device))
    if problems:
        raise ValueError(f"{'; '.join(problems)}; or try with --ignore-memory")


def _gigabytes(device: torch.device) -> float:
    size = installed_memory(device)
    return math.inf if size is None else round(size / GB, 1)


def _decoder_of(weights: Weights) -> dict:
    """What of a `Cost` the VAE and its choices decide."""
    vae = {"taehv": True} if is_taehv(weights.vae) else {"vae_width": weights.vae.dim}
    return vae | {"vae_strips": int(weights.speed.vae_strips)}


def installed_memory(device: torch.device) -> int | None:
    """Bytes of memory that a device has; None where it cannot be asked."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None
