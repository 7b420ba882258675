"""Memory and disk space that a video would take on this computer, with the loaded weights."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_management
import folder_paths
import torch

from ...histream_core.cost.cost import GB, Cost, gb
from ...histream_core.cost.memory_plan import Way, card_line, describe, verdict, ways
from ...histream_core.files.disk import nearest_existing
from ...histream_core.plan.chunks import Plan
from ...histream_core.plan.speed import DEFAULTS, Speed
from ...histream_core.runs import Settings
from ...histream_core.runs.store.video import run_bytes
from ...histream_core.vae.taehv import is_taehv
from . import sampler as host
from .caches import dtype_of
from .ranks import wan_config
from .second import second_of


def cost_of(model, vae, plan: Plan, *, batch: int = 1, num_prompts: int = 1, speed: Speed = DEFAULTS) -> Cost:
    """The cost of a plan on a MODEL and a VAE of the host, which moves weights in and out at need.

    `vae` None: that of Wan 2.1, in the type that the MODEL computes in.
    """
    device, management = model.load_device, comfy.model_management
    dtype = dtype_of(model)
    decoding: dict[str, Any] = {"vae_dtype": vae.vae_dtype, **decoder_sizes(vae)} if vae else {"vae_dtype": dtype}
    return Cost(
        wan_config(model.model.diffusion_model),
        plan,
        batch=batch,
        num_prompts=num_prompts,
        dtype=dtype,
        vae_strips=int(speed.vae_strips),
        offloaded=not management.is_device_cpu(device),
        kv=host.model_settings(model).kv,
        unified=management.is_device_cpu(device) or management.is_device_mps(device),
        **decoding,
    )


def decoder_sizes(vae) -> dict:
    """The fields of a `Cost` that tell the size of a VAE of the host."""
    module = vae.first_stage_model
    return {"taehv": True} if is_taehv(module) else {"vae_width": module.dim}


def device_memory(device: torch.device) -> float:
    """Memory that a device has, in GB."""
    return round(comfy.model_management.get_total_memory(device) / GB, 1)


def plan_text(model, cost: Cost, settings: Settings | None) -> str:
    """A plan in lines: the verdict, what the video takes, what runs here and on which card, and what goes to the disk.

    `settings` are those of a run that is kept; None: nothing is.
    """
    device = model.load_device
    on_cpu = comfy.model_management.is_device_cpu(device)
    sets = [known for known in (model, second_of(model)) if known is not None]
    cost = replace(cost, offloaded=False, stored_bytes=sum(known.model_size() for known in sets))
    found = ways(cost, device=device, files=_lighter_files(), offload=not on_cpu, apart=settings is None)
    disk = _disk(cost, settings)
    first = verdict(cost, found, device_memory(device))
    if disk.needed > disk.free:
        first += f". The disk is too small: {gb(disk.needed)} are needed, and {gb(disk.free)} are free"
    memory = _memory(device, cost, found, kept=settings is not None)
    return "\n".join([first, *_video(cost, settings), *memory, disk.line])


def _video(cost: Cost, settings: Settings | None) -> Iterator[str]:
    plan, (width, height) = cost.plan, cost.plan.size
    fps = settings.fps if settings else 16
    calls = sum(sum(chunk.values()) for chunk in cost.passes)
    yield (
        f"{width}x{height}, {plan.num_pixel_frames} frames ({plan.num_pixel_frames / fps:.1f} s at {fps:g} fps) in "
        f"{len(plan.chunks)} chunks; {calls} network calls, {cost.flops / 1e12:.3g} TFLOP without the VAE"
    )


def _memory(device: torch.device, cost: Cost, found: Sequence[Way], *, kept: bool) -> Iterator[str]:
    yield from describe(cost, found)
    yield f"what runs here, on {comfy.model_management.get_torch_device_name(device)} with"
    yield from card_line(found, device_memory(device))
    if kept:
        yield "without a Video Output, decoding afterwards by Streaming VAE Decode would take less"


def _lighter_files() -> tuple[str, ...]:
    """The kinds of lighter decoders that Load VAE offers and finds, by the folders that it looks into for each name."""
    full = any(name.startswith("taew2_1") for name in folder_paths.get_filename_list("vae"))
    light = any(Path(name).stem == "lighttaew2_1" for name in folder_paths.get_filename_list("vae_approx"))
    return ("taehv",) if full or light else ()


class Disk(NamedTuple):
    """Disk space of a plan, in bytes."""

    needed: int
    free: int
    line: str


def _disk(cost: Cost, settings: Settings | None) -> Disk:
    folder = nearest_existing(Path(folder_paths.get_output_directory()))
    free = shutil.disk_usage(folder).free
    if settings is None:
        line = f"on the disk: nothing before it is decoded, as no Video Output is connected; {gb(free)} are free"
        return Disk(0, free, line)
    parts = {name: size for name, size in run_bytes(cost.plan, settings, low=False).items() if size}
    listed = ", ".join(f"{name} {gb(size)}" for name, size in parts.items())
    needed = sum(parts.values())
    return Disk(needed, free, f"on the disk, about: {listed}, together {gb(needed)}; {gb(free)} are free")
