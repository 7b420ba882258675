"""`histream plan`: the cost of a video, before anything is loaded or computed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict

import torch

from ... import demo
from ...cost.cost import GB, VAE_WIDTH, Cost
from ...cost.fitting import check_strips, decoders, does_not_fit, tiers
from ...cost.memory_plan import CARDS, card_lines, choices, ways
from ...network.forward import check_sets
from ...network.model import WAN_1_3B, WAN_14B, WanConfig
from ...parallel.devices import Machine, find_device, find_link
from ...parallel.predict import check_gpus
from ...parallel.table import lines, predictions
from ...plan.anchoring import describe_idle
from ...plan.histories import HISTORIES
from ...plan.make import PlanOptions
from ...plan.order import ORDERS
from ...plan.presets import find_preset
from ...plan.storage import TIERS
from ...vae.model import WanVAE
from ...weights.checkpoint import read_checkpoint
from ...weights.inspection import guess_preset
from ...weights.loading import DTYPES, load_vae
from ..options.adding import DEMO
from ..options.plans import anchor_source, guidance_of, sink_rule, time_of
from ..options.speed import chosen
from ..parsers.costs import MODELS as NAMES
from ..progress import print_notes
from .videos import plan_video

MODELS = dict(zip(NAMES, (WAN_1_3B, WAN_14B), strict=True))


def run_plan(args: argparse.Namespace) -> tuple[dict, str]:
    """Chunks, network calls, operations and bytes of a plan."""
    if args.vram is not None and not args.vram > 0:
        raise ValueError(f"a card of {args.vram:g} GB holds nothing: give --vram 24")
    machine = _machine(args)
    config, guessed, second = find_model(args.model)
    preset = find_preset(args.preset or guessed)
    speed = chosen(args)
    options = PlanOptions(
        temporal=time_of(args),
        levers=speed.levers,
        restyle=preset.restyle,
        histories=args.histories,
        order=args.order,
        sinks=sink_rule(args),
        anchor_source=anchor_source(args),
        guidance=guidance_of(args),
    )
    plan, notes = plan_video(preset, args.mode, size=args.size, num_frames=args.frames, options=options)
    notes += describe_idle(plan)
    check_sets(plan, preset.second_weights if second is None else second)
    check_strips(plan, int(speed.vae_strips))
    dtype = DTYPES[args.dtype or ("fp32" if args.model == DEMO else "bf16")]
    width = _demo_vae_width() if args.model == DEMO else VAE_WIDTH
    strips = int(speed.vae_strips)
    cost = Cost(config, plan, dtype=dtype, vae_dtype=dtype, kv=args.kv, vae_strips=strips, vae_width=width)
    problems = list(does_not_fit(cost, args.vram)) if args.vram is not None else []
    result = {"model": args.model, "preset": preset.name, "mode": args.mode, **cost.summary()}
    result["restyle"] = asdict(preset.restyle) if preset.restyle else None
    result["kv_tiers"] = {
        name: {"kv_bytes": tier.kv_bytes, "kv_main_bytes": tier.kv_main_bytes, "peak_bytes": tier.peak_bytes}
        for name, tier in tiers(cost).items()
    }
    result["decoders"] = {
        name: {
            "vae_cache_bytes": way.vae_cache_bytes,
            "vae_main_bytes": way.vae_main_bytes,
            "vae_working_bytes": way.vae_working_bytes,
            "peak_bytes": way.peak_bytes,
        }
        for name, way in decoders(cost).items()
    }
    runs = ways(cost, files=["taehv"])
    result["cards"] = {
        str(card): [
            {"settings": way.settings, "bytes": way.bytes_needed, "costs": way.prices} for way in choices(runs, card)
        ]
        for card in CARDS
    }
    if args.vram is not None:
        result |= {"vram_gb": args.vram, "fits": not problems, "does_not_fit": problems}
    shared = []
    if machine is not None:
        result["several_gpus"] = predictions(cost, args.gpus, machine)
        shared = list(lines(result["several_gpus"]))
    result["notes"] = notes
    print_notes(notes)
    return result, "\n".join([*_lines(result), *card_lines(runs), *problems, *shared])


def _machine(args: argparse.Namespace) -> Machine | None:
    """The GPUs that rates are predicted for; None where none are asked for."""
    if args.gpus is None:
        if args.link or args.device:
            raise ValueError("--link and --device are for predictions on several GPUs: give --gpus 4 too")
        return None
    check_gpus(args.gpus)
    return Machine(find_device(args.device or "H100"), find_link(args.link or "nvlink"))


def find_model(name: str) -> tuple[WanConfig, str, bool | None]:
    """The sizes of a published model, of the bundled one or of a file, the preset that fits it, and whether it has a
    second set of weights; None: that of the preset."""
    if name in MODELS:
        return MODELS[name], "histream", None
    checkpoint = read_checkpoint(demo.TRANSFORMER_PATH if name == DEMO else name, kind="wan")
    assert checkpoint.config is not None  # a transformer has one
    return checkpoint.config, guess_preset(checkpoint), bool(checkpoint.second)


def _demo_vae_width() -> int:
    vae = load_vae(demo.VAE_PATH, dtype=torch.float32)
    assert isinstance(vae, WanVAE)
    return vae.dim


def _lines(result: dict) -> Iterator[str]:
    yield f"{result['model']}, preset {result['preset']}, mode {result['mode']}"
    yield f"{result['width']}x{result['height']}, {result['frames']} frames in {result['chunks']} chunks"
    yield f"histories: {result['histories']}, {HISTORIES[result['histories']]}"
    if restyle := result["restyle"]:
        moving = f", {restyle['motion']['span']:g} less where it moves" if restyle["motion"] else ""
        told = f", the network is told {restyle['offset']:g} less" if restyle["offset"] else ""
        yield f"restyles a video: strength {restyle['share']:g}{moving}{told}"
    if sinks := result["sinks"]:
        yield f"sinks: the least alike gives way to a frame below a cosine of {sinks['threshold']:g}"
    if anchor := result["anchor"]:
        walk, share = anchor["walk"], anchor["share"]
        yield f"anchor: walks over {walk} frames and back" if walk else f"anchor: an average that keeps {share:g}"
    if result["guidance"]["cfg"] != 1:
        yield f"CFG {result['guidance']['cfg']:g}: every network call is two passes, each with caches of its own"
    if result["guidance"]["nag"] != 1:
        yield f"NAG {result['guidance']['nag']:g}: every layer reads the negative prompt too"
    yield f"order: {result['order']}, {ORDERS[result['order']]}; {result['calls']} network calls in all"
    yield f"network calls per chunk (high + low): {_calls(result['passes'])}"
    yield f"{result['tflops_per_frame']:.1f} TFLOP per frame, {result['tflops']:.0f} in all, without the VAE"
    encoder = ("encoder", "encoder_working") if result["restyle"] else ()
    for name in ("weight", "kv", "vae_weight", "vae_cache", "working", "vae_working", *encoder, "peak"):
        yield f"{name.replace('_', ' '):12} {result[f'{name}_bytes'] / GB:8.2f} GB"
    yield "memory of keys and values (--kv):"
    for name, tier in result["kv_tiers"].items():
        device, main, peak = (tier[key] / GB for key in ("kv_bytes", "kv_main_bytes", "peak_bytes"))
        besides = f" and {main:.2f} GB of main memory" if main else ""
        yield f"{name:6} {device:6.2f} GB{besides}, peak {peak:.2f} GB: {TIERS[name]}"
    yield "memory of decoding (--vae-strips, or another --vae), remembered and at work:"
    for name, way in result["decoders"].items():
        device, main, working, peak = (
            way[f"{key}_bytes"] / GB for key in ("vae_cache", "vae_main", "vae_working", "peak")
        )
        besides = f" and {main:.2f} GB of main memory" if main else ""
        yield f"{name:13} {device:5.2f} + {working:4.2f} GB{besides}, peak {peak:.2f} GB"


def _calls(passes: list[dict[str, int]]) -> str:
    """Network calls per chunk, equal chunks grouped: "4 + 3, then 5 x 3 + 3, then 2 + 2"."""
    runs: list[list] = []
    for chunk in passes:
        text = f"{chunk['high']} + {chunk['low']}"
        if runs and runs[-1][1] == text:
            runs[-1][0] += 1
        else:
            runs.append([1, text])
    return ", then ".join(text if count == 1 else f"{count} times {text}" for count, text in runs)
