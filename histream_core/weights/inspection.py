"""Facts about a weight file as plain values, the preset that fits it, and the latents that a TAEHV takes."""

import re
from collections import Counter
from pathlib import Path

import torch

from ..network.model import WAN_14B
from ..plan.presets import PRESETS
from .checkpoint import Checkpoint, dtype_name, json_object, read_checkpoint
from .errors import first_five

_NAMES = (
    (r"stream.?diffusion.?v?2|causal_dmd_v2v", ((r"", "streamdiffusionv2"),)),
    (r"self.?gradient.?forcing|(?<![a-z])sgf(?![a-z])|(chunk|frame)wise/ar/", (
        (r"framewise|frame.wise", "sgf-framewise"),
        (r"", "sgf"),
    )),
    (r"causal.?forcing|framewise|chunkwise", (
        (r"1.?step", "causal-forcing-1step"),
        (r"2.?step", "causal-forcing-2step"),
        (r"framewise|frame.wise", "causal-forcing-framewise"),
        (r"", "causal-forcing"),
    )),
    (r"hi.?stream", ((r"", "histream"),)),
    (r"caus.?vid|autoregressive_checkpoint", ((r"", "causvid"),)),
    (r"long.?live", ((r"", "longlive"),)),
    (r"reward.?forcing", ((r"", "reward-forcing"),)),
    (r"mem.?flow", ((r"", "memflow"),)),
    (r"self.?forcing", ((r"", "self-forcing"),)),
)  # fmt: skip

_LARGER = {"streamdiffusionv2": "streamdiffusionv2-14b"}
"""The presets of families whose larger model is sampled differently."""

_ANOTHER_SAMPLER = (
    (
        r"^(?!.*(self.?forcing|mem.?flow|long.?live|reward.?forcing))"
        r".*((causal.?forcing|chunkwise).*long.?video|(^|/)long.?video[^/]*$)",
        "the long-video model of Causal-Forcing (licence: Apache-2.0, its mirror says), trained to denoise a window of "
        "frames at once, each at a noise of its own, which HiStream does not do: take chunkwise/causal_forcing.pt, or "
        "SGF",
    ),
    (
        r"rolling.?forcing",
        "RollingForcing (licence: academic use only), trained to denoise a window of frames at once, each at a noise "
        "of its own, which HiStream does not do: take SGF, which is Apache-2.0",
    ),
    (
        r"(?<![a-z])hiar(?![a-z])",
        "HiAR (licence: MIT), trained to see earlier frames at the noise of each step: histories each-step in mode "
        "full is the nearest to it here, and not tested",
    ),
    (
        r"ar.?diffusion",
        "the start of a training, which takes dozens of steps with guidance: take the few-step file beside it",
    ),
)
"""Names of files that are published for another sampler than those of the presets, and what they are."""

_SMALLEST_PUBLISHED = 1024
"""Channels; a narrower Wan model is a toy such as the bundled demo."""


_EXPERT = re.compile(r"(high|low)[ _-]?noise")
"""Names of Wan2.2's pairs of models."""

RAW_LATENTS_KEY = "histream_raw_latents"
"""Metadata key of a TAEHV: "true" where it takes raw latents, "false" for normalised ones."""

_RAW_LATENTS = {"true": True, "false": False}
_TAEHV_NAMES = (("lighttaew2_1", True), ("taew2_1", False))
"""Names of the published files, and whether they take raw latents."""


def takes_raw_latents(checkpoint: Checkpoint) -> tuple[bool, str]:
    """Whether a TAEHV takes raw latents, as the Wan VAE does, or normalised ones; and what decided that.

    The published files, taew2_1 (normalised, float16) and lighttaew2_1 (raw, another dtype), have the same keys and
    shapes. Metadata under `RAW_LATENTS_KEY` decides, then the name of the file, and last its dtype, as in ComfyUI: the
    second value is "metadata", "name" or "dtype".
    """
    told = _RAW_LATENTS.get(checkpoint.metadata.get(RAW_LATENTS_KEY, ""))
    if told is not None:
        return told, "metadata"
    name = checkpoint.path.name.lower()
    named = next((raw for known, raw in _TAEHV_NAMES if known in name), None)
    if named is not None:
        return named, "name"
    return checkpoint.dtype != torch.float16, "dtype"


def describe_vae(checkpoint: Checkpoint) -> list[str]:
    """A line about a guess that had to be made about a VAE, if there was one."""
    if checkpoint.kind != "taehv":
        return []
    raw, told_by = takes_raw_latents(checkpoint)
    if told_by != "dtype":
        return []
    kind = "raw latents, as lighttaew2_1" if raw else "normalised latents, as taew2_1"
    return [
        f"{checkpoint.path.name} does not say which latents it takes; it is {dtype_name(checkpoint.dtype)}, so it is "
        f"given {kind}: where colours are wrong, call it {'taew2_1' if raw else 'lighttaew2_1'}.safetensors"
    ]


def describe_wan(checkpoint: Checkpoint) -> list[str]:
    """Lines about what a file holds besides the model, a model that is half of a pair, or made for another sampler."""
    name, ignored = checkpoint.path.name, [*checkpoint.left_over, *checkpoint.beside]
    notes = [f"{name}: ignored, as the model has no place for it: {first_five(ignored)}"] if ignored else []
    if match := _EXPERT.search(name.lower()):
        notes.append(
            f"{name} is by its name one of the two models of Wan2.2, made for {match[1]} noise alone: take weights of "
            "Wan2.1, which are made for all of it"
        )
    other = next((what for names, what in _ANOTHER_SAMPLER if re.search(names, _words(checkpoint.path))), None)
    return [*notes, f"{name} is by its name {other}"] if other else notes


def _words(path: Path) -> str:
    """The name of a file and those of the two folders above it.

    A folder named after this project says nothing about the weights in it.
    """
    *folders, file = path.absolute().parts[-3:]
    return "/".join([*(folder for folder in folders if folder.lower() != "histream"), file]).lower()


def guess_preset(checkpoint: Checkpoint) -> str:
    """The preset that fits a Wan checkpoint: that of its metadata, else a guess from its name, container and width.

    The names of the two folders above the file count too (chunkwise/causal_forcing.pt). Training checkpoints under
    another name count as Self-Forcing, other files as plain Wan: families of one size have the same keys and shapes,
    so that nothing in a file called model.pt alone tells them apart. Those of StreamDiffusionV2 differ in size, and
    SGF+ has a second set of weights.
    """
    told = checkpoint.metadata.get("histream_preset")
    if told in PRESETS:
        return told
    name = _words(checkpoint.path)
    if checkpoint.second:
        return "sgf-plus-framewise" if re.search(r"frame.?wise", name) else "sgf-plus"
    if checkpoint.config and checkpoint.config.dim < _SMALLEST_PUBLISHED:
        return "demo"
    for family, variants in _NAMES:
        if re.search(family, name):
            preset = next(preset for variant, preset in variants if re.search(variant, name))
            return _LARGER.get(preset, preset) if _is_large(checkpoint) else preset
    config = json_object(checkpoint.metadata.get("config"))
    causal = json_object(config.get("transformer")).get("causal_ar") or "generator" in checkpoint.container
    return "self-forcing" if causal else "wan"


def _is_large(checkpoint: Checkpoint) -> bool:
    """Whether a transformer is as wide as the 14B one."""
    return checkpoint.config is not None and checkpoint.config.dim >= WAN_14B.dim


def inspect(path: str | Path) -> dict:
    """Facts about a file as plain values for printing; the tensors are not read where the format allows."""
    checkpoint = read_checkpoint(path)
    config = checkpoint.config
    sizes = {} if config is None else {
        "dim": config.dim,
        "layers": config.num_layers,
        "heads": config.num_heads,
        "ffn": config.ffn_dim,
        "in": config.in_dim,
        "out": config.out_dim,
        "text": config.text_dim,
    }  # fmt: skip
    return {
        "file": str(checkpoint.path),
        "kind": checkpoint.kind,
        "container": checkpoint.container,
        "prefix": checkpoint.prefix,
        "tensors": len(checkpoint.state_dict),
        "params": checkpoint.num_params,
        "bytes": checkpoint.nbytes,
        "dtypes": dict(Counter(dtype_name(x.dtype) for x in checkpoint.state_dict.values()).most_common()),
        "quantised": checkpoint.quantised,
        "sizes": sizes,
        "preset": guess_preset(checkpoint) if checkpoint.kind == "wan" else None,
        "second_weights": True if checkpoint.second else None,
        "raw_latents": takes_raw_latents(checkpoint)[0] if checkpoint.kind == "taehv" else None,
        "metadata": dict(checkpoint.metadata),
        "num_missing": len(checkpoint.missing),
        "missing": list(checkpoint.missing[:5]),
        "num_left_over": len(checkpoint.left_over),
        "left_over": list(checkpoint.left_over[:5]),
        "foreign": list(checkpoint.foreign[:5]),
        "beside": list(checkpoint.beside[:5]),
        "wrong_size": list(checkpoint.wrong_size[:5]),
        "notes": describe_wan(checkpoint) if checkpoint.kind == "wan" else [],
    }
