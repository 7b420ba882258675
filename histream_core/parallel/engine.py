"""On how many devices a run is computed, and how its work is split between them: chosen, checked and opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..cost.cost import Cost
from ..network.cache.window import CacheOptions, KVCache
from ..network.forward import Forward, PassOptions
from ..network.kernels import choose_kernels
from ..network.model import WanConfig, WanModel
from ..plan.chunks import Plan
from ..plan.histories import Level
from ..plan.schedule import Scale
from ..plan.sharing import AUTO, DECODE, ONE, PIPELINE, Sharing, shared_levels
from ..plan.speed import Speed
from ..vae.model import WanVAE
from ..vae.taehv import TAEHV
from .balance import bounds_of, even_split
from .devices import LINKS, Machine, find_device
from .gang import PipelineDenoiser
from .last_rank import LastRankDecoder
from .predict import check_gpus, choose
from .workers import NO_RAY, devices_from, hold_gang, kept_gang, ray_is_there

ALONE = Sharing(ONE)

ANY_GPU = "H100"
"""The device whose rates stand for one of which none are known: they decide which split `auto` takes, and no more."""


@dataclass(frozen=True)
class Engine:
    """The devices that are wished for; `chosen` checks them."""

    gpus: int = 1
    """How many devices there are: GPUs, or processes on the CPU."""
    split: str = AUTO
    """AUTO, or one of SPLITS."""


def chosen(engine: Engine, cost: Cost, speed: Speed, kv: str, device: torch.device) -> Sharing:
    """How an engine makes the video of a plan, the first device given. Raises ValueError where it cannot.

    Without Ray `auto` takes a split that needs no other process.
    """
    check_gpus(engine.gpus)
    if engine.gpus == 1:
        return ALONE
    machine = machine_of(device)
    if engine.split == AUTO and not ray_is_there():
        sharing = choose(cost, engine.gpus, machine, DECODE).sharing
    else:
        sharing = choose(cost, engine.gpus, machine, engine.split).sharing
    devices_from(device, sharing.gpus)
    if sharing.ranks > 1:
        if not ray_is_there():
            raise ValueError(f"the split {sharing.split} needs Ray: {NO_RAY}, or take the split {DECODE}")
        _check_shared(sharing, speed, kv)
    return sharing


def machine_of(device: torch.device) -> Machine:
    """The rates of a device, or those of ANY_GPU."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ANY_GPU
    try:
        found = find_device(name)
    except ValueError:
        found = find_device(ANY_GPU)
    return Machine(found, LINKS["nvlink"])


def _check_shared(sharing: Sharing, speed: Speed, kv: str) -> None:
    """Refuse choices that other ranks cannot follow. Raises ValueError."""
    for name, wanted in (("compile", "off"), ("graphs", "off"), ("seen_keys", "all")):
        if getattr(speed, name) != wanted:
            raise ValueError(
                f"several GPUs compute without {name} {getattr(speed, name)}: set it to {wanted}, or use one GPU"
            )
    if sharing.split == PIPELINE and kv != "full":
        raise ValueError(f"the split pipeline keeps keys and values in the memory full, not {kv}: use full")


def describe(sharing: Sharing, plan: Plan) -> str:
    """A line that says what each of several devices does."""
    if sharing.split == ONE:
        return "one device makes it: by prediction the others would not make it faster"
    apart = "another one decodes a chunk while the next one is sampled" if sharing.vae_apart else ""
    if sharing.split == DECODE:
        return f"one device samples, {apart} ({DECODE})"
    if sharing.split == PIPELINE:
        return f"{sharing.ranks} devices have some layers each, the last one decodes, and rows go round ({PIPELINE})"
    levels = shared_levels(plan, sharing.ranks)
    scales = {level if isinstance(level, Scale) else level[0] for level in levels}
    part = "" if len(scales) == len(plan.grids) else f" at {scales.pop().name}"
    return f"{sharing.ranks} devices compute each pass{part} together{', ' * bool(apart)}{apart} ({sharing.split})"


@dataclass(frozen=True)
class Network:
    """A loaded transformer, as ranks are given it."""

    model: WanModel
    config: WanConfig
    dtype: torch.dtype
    """The dtype of the computation."""
    device: torch.device
    key: object = None
    """A hash of its weights; None: they are sent for every run."""


@dataclass(frozen=True)
class Opened:
    """The caches of a run, and the functions that compute with them."""

    caches: dict[Level, KVCache]
    forward: Forward | None = None
    """In place of `forward_chunk`, where several ranks compute a pass."""
    denoiser: PipelineDenoiser | None = None
    """In place of a `Denoiser`, where rows go round and their estimates are there later."""


def open_caches(sharing: Sharing, plan: Plan, network: Network, options: CacheOptions, speed: Speed) -> Opened:
    """The caches of a run on several devices. Raises LostRankError."""
    rows = sharing.split == PIPELINE
    gang = hold_gang(sharing.ranks, network.device)
    gang.give_weights(network.model, network.config, network.dtype, network.key)
    bounds = bounds_of(even_split(len(network.model.blocks), sharing.ranks)) if rows else ()
    levels = plan.levels if rows else shared_levels(plan, sharing.ranks)
    caches = gang.prepare(plan, network.model, options, speed, levels, bounds)
    if not rows:
        return Opened(caches, gang.forward)
    kernels = choose_kernels(speed, network.device, network.dtype)
    options_of_rows = PassOptions(attention=kernels.attention, block_forward=kernels.run_block)
    return Opened(caches, None, PipelineDenoiser(gang, options_of_rows, network.dtype))


def open_last_rank_decoder(
    sharing: Sharing, vae: WanVAE | TAEHV, options: Mapping[str, Any], device: torch.device, key: object
) -> LastRankDecoder:
    """The decoder of a pipeline whose first device is `device`. `key`: a hash of its weights. Raises LostRankError."""
    return LastRankDecoder(hold_gang(sharing.ranks, device), vae, options, key)


def rest_gang() -> None:
    """Let the ranks of a run that has ended free its caches; they are kept for the next run for a while."""
    if gang := kept_gang():
        gang.close()
