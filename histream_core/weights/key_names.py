"""Key names of weights: without prefixes, and renamed to those of Wan2.1's published checkpoints."""

import re
from collections.abc import Iterable

WRAPPERS = re.compile(r"_fsdp_wrapped_module\.|_orig_mod\.|_checkpoint_wrapped_module\.|_forward_module\.")
"""Parts of key names that sharding, compilation and activation checkpointing add, at any depth."""

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "module.")
"""Prefixes that are removed from names of no known model."""

_DIFFUSERS = (
    (r"^condition_embedder\.(text|time)_embedder\.linear_1\.", r"\1_embedding.0."),
    (r"^condition_embedder\.(text|time)_embedder\.linear_2\.", r"\1_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^proj_out\.", "head.head."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"\.scale_shift_table$", ".modulation"),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"_attn\.to_([qkv])\.", r"_attn.\1."),
    (r"_attn\.to_out\.0\.", "_attn.o."),
    (r"_attn\.add_([kv])_proj\.", r"_attn.\1_img."),
    (r"_attn\.norm_added_k\.", "_attn.norm_k_img."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
    # Diffusers numbers norms in the order of their use, Wan in the order of its code.
    (r"\.norm([23])\.", lambda match: f".norm{5 - int(match[1])}."),
)


def rename_diffusers(key: str) -> str:
    """The Wan name of a tensor of a diffusers WanTransformer3DModel."""
    for pattern, name in _DIFFUSERS:
        key = re.sub(pattern, name, key)
    return key


def is_diffusers(keys: Iterable[str]) -> bool:
    """Whether these are names of a diffusers WanTransformer3DModel."""
    return any(key.startswith("condition_embedder.") or ".attn1." in key for key in keys)


_SECOND = (
    (r"^memory_(patch_embedding|text_embedding|time_embedding|time_projection|head)\.", r"\1."),
    (r"\.memory_(modulation|weight|bias)$", r".\1"),
)
"""Names in SGF+ files of a second set of weights, which stands beside the first one."""

SECOND = "second."
"""The beginning of the names of a second set."""


def rename_second(key: str) -> str:
    """The name of a tensor with that of a second set, if it is of one, put under SECOND."""
    for pattern, name in _SECOND:
        plain, found = re.subn(pattern, name, key)
        if found:
            return SECOND + plain
    return key


def published_name(key: str) -> str:
    """The name that a tensor has in an SGF+ file; the inverse of `rename_second`."""
    if not key.startswith(SECOND):
        return key
    key = key.removeprefix(SECOND)
    if not key.startswith("blocks."):
        return f"memory_{key}"
    layer, _, last = key.rpartition(".")
    return f"{layer}.memory_{last}"


_OF_LORA = re.compile(r"\.(lora_(?:A|B|up|down))\.\w+\.weight$")
"""The end of a name in a LoRA of peft, with that of its adapter ("default")."""

_MODULE_OF_WAN = re.compile(r"(blocks\.\d+|head|(patch|text|time)_embedding|time_projection)\.")


def lora_name(key: str) -> str:
    """The name that ComfyUI knows of a tensor of a LoRA, from its bare name."""
    key = _OF_LORA.sub(r".\1.weight", key)
    return f"diffusion_model.{key}" if _MODULE_OF_WAN.match(key) else key


def unwrapped(key: str) -> str:
    """A key name without wrappers."""
    return WRAPPERS.sub("", key)


def wrappers_in(keys: Iterable[str]) -> str:
    """The wrappers in these key names, each once."""
    return "".join(dict.fromkeys(name for key in keys for name in WRAPPERS.findall(key)))
