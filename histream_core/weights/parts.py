"""The models in one set of tensors: their kinds and the prefixes of their key names.

A prefix is found by keys that only one kind of model has, so that it may be any: trainers and hosts have their own.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .containers import MERGE, UNMERGED
from .errors import printable_name
from .key_names import PREFIXES, is_diffusers, rename_diffusers, rename_second, unwrapped, wrappers_in

KINDS = {
    "wan": "a Wan text-to-video model",
    "wan-i2v": "a Wan image-to-video model, whose extra inputs are not supported",
    "wan-5b": "the Wan2.2 5B model, whose latents have 48 channels",
    "wan-vace": "a Wan VACE model, whose extra inputs are not supported",
    "wan-fun": "a Wan Fun model, whose extra inputs are not supported",
    "wan-camera": "a Wan camera model, whose extra inputs are not supported",
    "wan-audio": "a Wan model that follows sound, whose extra inputs are not supported",
    "wan-animate": "a Wan Animate model, whose extra inputs are not supported",
    "wan-unmerged": UNMERGED,
    "wan-vae": "a Wan VAE",
    "wan22-vae": "the VAE of the Wan2.2 5B model, whose latents have 48 channels",
    "taehv": "a TAEHV for Wan 2.1",
    "taehv-22": "a TAEHV for the Wan2.2 5B model, whose latents have 48 channels",
    "upsampler": "the latent upsampler of Ultra Flash, for twice the sides",
    "upsampler-3": "a latent upsampler of Ultra Flash in three stages, which its published configuration does not take",
    "umt5": "a umt5 text encoder",
    "umt5-original": "a umt5 text encoder under Wan's own names (take ComfyUI's umt5_xxl file)",
    "diffusers-vae": "a VAE under diffusers names (take wan_2.1_vae.safetensors)",
    "lora": "a LoRA (it needs the model that it changes)",
    "unknown": "tensors of a model that is not known",
}

_TEXT_TO_VIDEO = "take weights of Wan2.1 text-to-video, 1.3B or 14B"
_PICTURE = f"{_TEXT_TO_VIDEO}, which begin with a picture too (First Frame (I2V), --first-frame)"
ADVICE = {
    "wan-i2v": _PICTURE, "wan-5b": _TEXT_TO_VIDEO, "wan-vace": _TEXT_TO_VIDEO, "wan-fun": _TEXT_TO_VIDEO,
    "wan-camera": _TEXT_TO_VIDEO, "wan-audio": _TEXT_TO_VIDEO, "wan-animate": _PICTURE,
    "wan-unmerged": MERGE,
    "wan22-vae": "take wan_2.1_vae.safetensors", "taehv-22": "take taew2_1 or lighttaew2_1",
    "lora": "give the file of the model, and in ComfyUI load this one by a LoRA node behind Load Model",
}  # fmt: skip
"""The advice where a model of another kind is wanted; "give another file" for the rest."""

SIGNS = {
    "head.modulation": "wan",
    "condition_embedder.time_proj.weight": "wan",
    "decoder.middle.0.residual.0.gamma": "wan-vae",
    "decoder.3.conv.0.weight": "taehv",
    "pre_shuffle.0.weight": "upsampler",
    "net.2.conv.0.weight": "upsampler-3",
    "decoder.mid_block.resnets.0.conv1.weight": "diffusers-vae",
    "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight": "umt5",
    "blocks.0.pos_embedding.embedding.weight": "umt5-original",
}
"""Keys that only one kind of model has, the models in the order in which one of several is taken."""

_NEEDED = ("patch_embedding.weight",), ("blocks.0.modulation", "blocks.0.scale_shift_table")
"""Keys of a whole Wan model: one of each line. Training leaves the sign alone beside it, under other prefixes."""

_PIECE = "piece"
"""In place of a kind: what has the sign of a model beside a whole one of its kind, and is none."""

_INSIDE = re.compile(r"(^|\.)(blocks\.\d+|head)\.")
"""Tensors under no prefix of a model, with their names in the model."""

_PART_OF_WAN = re.compile(r"(?P<prefix>.*?\.|)blocks\.\d+\.(self_attn|cross_attn|attn1|attn2|ffn|modulation)\b")
"""A key of a Wan model of which the sign is missing."""

_LORA = re.compile(r"\.(lora_(down|up|A|B)(\.\w+)?|hada_w\d_\w|lokr_w\d|diff_b?)(\.weight)?$")
_UNMERGED = ".base_layer."

_VARIANTS = (
    ("wan-vace", re.compile(r"vace_(blocks\.\d+|patch_embedding)\.")),
    ("wan-camera", re.compile(r"control_adapter\.|blocks\.\d+\.cam_encoder\.")),
    ("wan-audio", re.compile(r"(casual_)?audio_(encoder|injector|proj|embedding)\.|cond_encoder\.")),
    ("wan-animate", re.compile(r"face_adapter\.|motion_encoder\.|pose_patch_embedding\.")),
    ("wan-fun", re.compile(r"ref_conv\.")),
    ("wan-i2v", re.compile(r"img_emb\.|blocks\.\d+\.cross_attn\.(k|v|norm_k)_img\.")),
)
"""Beginnings of keys that only models with further inputs have."""

_I2V_CHANNELS, CHANNELS_22 = 36, 48
_VAE_22 = "decoder.upsamples.0.upsamples.0.residual.2.weight"

_FIRST, _LAST = {"ema"}, {"critic", "fake", "real", "teacher", "discriminator"}
"""Words in the prefix of a model that is taken before others of its kind, or after them."""

_TOKENIZER = "spiece_model"

_MOST_MODELS = 16
"""Models in one file; every key is compared with every prefix."""


@dataclass(frozen=True)
class Part:
    """One model of a file."""

    kind: str
    prefix: str
    """The prefix that was removed from its key names, wrappers included."""
    tensors: dict[str, Tensor]
    """Its tensors by bare names."""
    renamed: bool
    """Whether its names were those of diffusers."""
    beside: tuple[str, ...]
    """The rest of the file: beginnings of key names, with a number of tensors each."""


def find_part(tensors: Mapping[str, Tensor], kinds: Iterable[str] = ()) -> Part:
    """The model of one of these kinds, else the one that is the most wanted.

    Raises ValueError for several between which nothing decides.
    """
    found = {unwrapped(key): x for key, x in tensors.items()}
    prefixes = _prefixes(found)
    if len(prefixes) > _MOST_MODELS:
        raise ValueError(f"holds {len(prefixes)} models or pieces of models: save the one that is meant by itself")
    base, prefix = _choose(prefixes, set(kinds))
    own = {key.removeprefix(prefix): x for key, x in found.items() if _owner(key, prefixes) == prefix}
    if base == "umt5" and (tokenizer := found.get(prefix.removesuffix("transformer.") + _TOKENIZER)) is not None:
        own[_TOKENIZER] = tokenizer
    beside = Counter(_beginning(key, prefixes) for key in found if _owner(key, prefixes) != prefix)
    lora = _lora(found, base, prefix, own)
    renamed = base == "wan" and is_diffusers(own)
    if renamed:
        own = {rename_diffusers(key): x for key, x in own.items()}
    if base == "wan":
        own = {rename_second(key): x for key, x in own.items()}
    kind = lora or _variant(base, own)
    return Part(kind, prefix + wrappers_in(tensors), own, renamed, tuple(map(_counted, beside.items())))


def _prefixes(found: Mapping[str, Tensor]) -> dict[str, str]:
    """The prefix of each model, and its kind or `_PIECE`."""
    prefixes = {}
    for sign, kind in SIGNS.items():
        for key in found:
            if (key == sign or key.endswith("." + sign)) and not _INSIDE.search(prefix := key.removesuffix(sign)):
                prefixes.setdefault(prefix, kind)
    wans = [prefix for prefix, kind in prefixes.items() if kind == "wan"]
    whole = [x for x in wans if all(any(x + key in found for key in keys) for keys in _NEEDED)]
    if whole:
        prefixes |= dict.fromkeys(wans, _PIECE) | dict.fromkeys(whole, "wan")
    if not prefixes:
        parts = dict.fromkeys(match["prefix"] for key in found if (match := _PART_OF_WAN.match(key)))
        prefixes = dict.fromkeys(parts, "wan")
    return prefixes or {_common(found): "unknown"}


def _common(found: Mapping[str, Tensor]) -> str:
    """The known prefix that all names begin with, if there is one."""
    taken = ""
    while prefix := next((p for p in PREFIXES if found and all(key.startswith(taken + p) for key in found)), None):
        taken += prefix
    return taken


def _choose(prefixes: Mapping[str, str], kinds: set[str]) -> tuple[str, str]:
    """The kind and the prefix of the model to take."""
    there = [kind for kind in prefixes.values() if kind != _PIECE]
    kind = next((kind for kind in there if kind in kinds), there[0])
    same = sorted((_rank(prefix), prefix) for prefix, other in prefixes.items() if other == kind)
    if len(same) > 1 and same[0][0] == same[1][0]:
        names = ", ".join(printable_name(prefix) or "no prefix" for _, prefix in same[:5])
        raise ValueError(f"holds {len(same)} models of one kind ({names}): save the one that is meant by itself")
    return kind, same[0][1]


def _rank(prefix: str) -> int:
    words = set(re.split(r"[._]", prefix))
    return 0 if words & _FIRST else 3 if words & _LAST else 1 if "generator" in words else 2


def _owner(key: str, prefixes: Mapping[str, str]) -> str | None:
    """The longest prefix of a model that a key begins with."""
    return max((prefix for prefix in prefixes if key.startswith(prefix)), key=len, default=None)


def _beginning(key: str, prefixes: Mapping[str, str]) -> str:
    owner = _owner(key, prefixes)
    return key.split(".")[0] if owner is None else owner.removesuffix(".")


def _counted(item: tuple[str, int]) -> str:
    return f"{printable_name(item[0])} ({item[1]} tensors)"


def _lora(found: Mapping[str, Tensor], base: str, prefix: str, own: Mapping[str, Tensor]) -> str | None:
    """The kind of a model among whose tensors there are those of a LoRA, or beside it under its name and "_lora"."""
    named = tuple(f"{prefix[: dot.start()]}_lora." for dot in re.finditer(r"\.", prefix))
    if not any(_LORA.search(key) for key in (*own, *(key for key in found if key.startswith(named)))):
        return None
    whole = base == "wan" and any(key.endswith(("head.modulation", "time_proj.weight")) for key in own)
    return "wan-unmerged" if whole or any(_UNMERGED in key for key in own) else "lora"


def _variant(base: str, own: Mapping[str, Tensor]) -> str:
    """The kind of a model whose base is known: with further inputs, or for other latents."""
    if base == "wan-vae":
        return "wan22-vae" if _VAE_22 in own else base
    if base == "taehv":
        return "taehv-22" if _channels(own, "decoder.1.weight") == CHANNELS_22 else base
    if base != "wan":
        return base
    for kind, sign in _VARIANTS:
        if any(sign.match(key) for key in own):
            return kind
    read, head = _channels(own, "patch_embedding.weight"), own.get("head.head.weight")
    made = head.shape[0] // 4 if head is not None and head.ndim == 2 else None
    if read == _I2V_CHANNELS and made != read:
        return "wan-i2v"
    if read and made and read != made:
        return "wan-fun"
    return "wan-5b" if read == made == CHANNELS_22 else base


def _channels(own: Mapping[str, Tensor], key: str) -> int | None:
    """How many channels a convolution reads, where it is stored as numbers."""
    x = own.get(key)
    return x.shape[1] if x is not None and x.ndim > 1 and x.dtype != torch.uint8 else None
