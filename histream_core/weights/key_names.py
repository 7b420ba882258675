"""Key names of weights: without prefixes, and renamed to those of Wan2.1's published checkpoints."""

import re

from .containers import CONTAINERS, Tensors

WRAPPERS = re.compile(r"_fsdp_wrapped_module\.|_orig_mod\.|_checkpoint_wrapped_module\.")
"""Parts of key names that sharding, compilation and activation checkpointing add, at any depth."""

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "module.")

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


def bare_names(tensors: Tensors) -> tuple[Tensors, str]:
    """The tensors without wrappers in their key names and without a common prefix; and what was removed."""
    stripped = {WRAPPERS.sub("", key): x for key, x in tensors.items()}
    taken = ""
    for container in CONTAINERS[:2]:
        inner = {key.removeprefix(f"{container}."): x for key, x in stripped.items() if key.startswith(f"{container}.")}
        if inner:
            stripped, taken = inner, f"{container}."
            break
    while prefix := next((p for p in PREFIXES if stripped and all(key.startswith(p) for key in stripped)), None):
        stripped = {key.removeprefix(prefix): x for key, x in stripped.items()}
        taken += prefix
    wrappers = dict.fromkeys(name for key in tensors for name in WRAPPERS.findall(key))
    return stripped, taken + "".join(wrappers)
