"""Options of weights: which files to use, checked at once and loaded later."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ... import demo
from ...demo.trained import other_size, untrained
from ...parallel.engine import Engine, describe
from ...plan import Plan
from ...plan.anchoring import describe_idle
from ...plan.presets import Preset, find_preset
from ...runs.weights import Weights, load_demo, load_weights
from ...vae.encode import no_encoder
from ...weights.checkpoint import read_checkpoint
from ...weights.inspection import describe_vae, describe_wan, guess_preset
from ...weights.loading import DTYPES, load_upsampler, read_upsampler, read_vae
from ...weights.text_encoder import load_embeds, load_text_encoder
from .adding import DEMO


@dataclass(frozen=True)
class Source:
    """Weights that were checked but not loaded."""

    preset: Preset
    load: Callable[[], tuple[Weights, list[Tensor]]]
    """Function that loads the weights, and encodes the prompts as embeddings [1, tokens, channels] each."""
    notes: tuple[str, ...] = ()
    """Notes for the user before the run."""
    demo: bool = False
    """Whether they are those of the bundled model."""

    def notes_on(self, plan: Plan) -> tuple[str, ...]:
        """Its notes, also on a video of that plan."""
        return (*self.notes, *(other_size(plan.size) if self.demo else ()), *describe_idle(plan))


def engine_of(args: argparse.Namespace) -> Engine:
    """The devices that the options ask for. Raises ValueError."""
    if args.gpus > 1 and getattr(args, "vae_device", None):
        raise ValueError("--vae-device says where the VAE is, and --gpus chooses it: leave one of them out")
    return Engine(args.gpus, args.split)


def engine_notes(weights: Weights, plan: Plan) -> list[str]:
    """A line that says what each device does; none for one device."""
    return [describe(weights.sharing, plan)] if weights.gpus > 1 else []


def prompt_list(args: argparse.Namespace) -> list[str]:
    """The prompt of --prompt as a list; empty if it was not given."""
    return [args.prompt] if args.prompt else []


def find_source(args: argparse.Namespace, prompts: Sequence[str] | None, *, encodes: bool = False) -> Source:
    """Check the files that the options name. Raises ValueError and OSError that say what to change.

    `prompts` None: the embeddings exist already, and no text encoder is needed. `encodes`: whether the VAE must be one
    that encodes.
    """
    source, upsampler = _find_models(args, prompts, encodes=encodes), getattr(args, "upsampler", None)
    return source if upsampler is None else _with_upsampler(source, upsampler)


def _with_upsampler(source: Source, path: Path) -> Source:
    """The weights with a network that takes LOW estimates to HIGH, which is checked now and loaded with them."""
    read_upsampler(path)

    def load() -> tuple[Weights, list[Tensor]]:
        weights, texts = source.load()
        upsampler = load_upsampler(path, dtype=weights.dtype, device=weights.device)
        return replace(weights, upsampler=upsampler), texts

    return replace(source, load=load)


def _find_models(args: argparse.Namespace, prompts: Sequence[str] | None, *, encodes: bool) -> Source:
    device = pick_device(args.device)
    dtype = DTYPES[args.dtype] if args.dtype else torch.float32 if device.type == "cpu" else torch.bfloat16
    if args.model == DEMO:
        return demo_source((demo.PROMPT,) if prompts == [] else prompts or (), device, preset=args.preset)
    if args.vae is None:
        raise ValueError("--vae is missing: give the Wan 2.1 VAE, such as wan_2.1_vae.safetensors")
    if prompts is not None:
        _check_text_options(args, prompts)
    checkpoint = read_checkpoint(args.model, kind="wan")
    vae = read_vae(args.vae)
    if encodes and vae.kind != "wan-vae":
        raise no_encoder(vae.kind.upper())
    file_notes = [*describe_wan(checkpoint), *describe_vae(vae)]
    vae_device = pick_device(args.vae_device) if getattr(args, "vae_device", None) else device
    preset = find_preset(args.preset or guess_preset(checkpoint))

    def load() -> tuple[Weights, list[Tensor]]:
        texts = [] if prompts is None else _read_texts(args, prompts, device)  # gone again before the model comes
        where = {"device": device, "vae_device": vae_device}
        return load_weights(args.model, args.vae, preset=preset.name, dtype=dtype, **where), texts

    notes = [f"preset {preset.name}: {preset.note}"] if preset.note else []
    return Source(preset, load, (*notes, *file_notes))


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU if there is one. Raises ValueError if it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # the device "meta" has no values
    except (RuntimeError, AssertionError, ImportError) as error:  # torch says "not compiled with CUDA" by assertion
        raise ValueError(f'device "{name[:40]}" cannot be used here: use --device {" or ".join(_devices())}') from error
    return torch.device("cpu") if device.type == "cpu" else device


def _devices() -> list[str]:
    """Names of the devices that this computer has, and `auto`."""
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *mps, *(f"cuda:{index}" for index in range(torch.cuda.device_count())), "auto"]


def demo_source(prompts: Sequence[str], device: torch.device, *, preset: str | None = None) -> Source:
    """The bundled model, always in float32; its notes name what the prompts ask for and it was not trained on."""
    chosen = find_preset(preset or demo.PRESET)

    def load() -> tuple[Weights, list[Tensor]]:
        encoder = demo.load_text_encoder()
        weights = load_demo(device, preset=chosen.name)
        return weights, [encoder.encode(prompt) for prompt in prompts]

    return Source(chosen, load, tuple(untrained(prompts)), demo=True)


def _check_text_options(args: argparse.Namespace, prompts: Sequence[str]) -> None:
    if (args.text_encoder is None) == (args.embeds is None):
        raise ValueError("--text-encoder or --embeds is missing: give a umt5_xxl file, or embeddings made earlier")
    if args.text_encoder and not prompts:
        raise ValueError("--prompt is missing: say what the video shows")
    if args.embeds and len(prompts) > 1:
        raise ValueError("--embeds holds one prompt: give --text-encoder for several")


def _read_texts(args: argparse.Namespace, prompts: Sequence[str], device: torch.device) -> list[Tensor]:
    if args.embeds:
        return [load_embeds(args.embeds)]
    encoder = load_text_encoder(args.text_encoder, device=device)
    return [encoder.encode(prompt).cpu() for prompt in prompts]
