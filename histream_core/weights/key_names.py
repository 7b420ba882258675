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


def unwrapped(key: str) -> str:
    """A key name without wrappers."""
    return WRAPPERS.sub("", key)


def wrappers_in(keys: Iterable[str]) -> str:
    """The wrappers in these key names, each once."""
    return "".join(dict.fromkeys(name for key in keys for name in WRAPPERS.findall(key)))
