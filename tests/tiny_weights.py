"""A tiny model's weights in every file that people have them in."""

import json

import pytest
import torch
from safetensors.torch import save_file
from tiny import wan

from histream_core.weights.checkpoint import read_checkpoint
from histream_core.weights.containers import CheckpointError

HEADS = {"config": json.dumps({"transformer": {"num_heads": 2}})}
WEIGHTS = wan().state_dict()


def same(found, expected=WEIGHTS):
    assert found.keys() == expected.keys()
    for key, x in expected.items():
        assert torch.equal(found[key].float(), x.float()), key


def prefixed(prefix, weights=WEIGHTS):
    return {prefix + key: x.clone() for key, x in weights.items()}


def wrapped(weights=WEIGHTS):
    """Names as sharding, checkpointing and compilation leave them, at several depths."""
    inner = {
        key.replace("blocks.0.", "blocks.0._fsdp_wrapped_module._checkpoint_wrapped_module."): x.clone()
        for key, x in weights.items()
    }
    return prefixed("model._fsdp_wrapped_module._orig_mod.", inner)


def diffusers(weights=WEIGHTS):
    """Tensors under the names of a diffusers model, written out here from its published layout."""
    top = {
        "text_embedding.0": "condition_embedder.text_embedder.linear_1",
        "text_embedding.2": "condition_embedder.text_embedder.linear_2",
        "time_embedding.0": "condition_embedder.time_embedder.linear_1",
        "time_embedding.2": "condition_embedder.time_embedder.linear_2",
        "time_projection.1": "condition_embedder.time_proj",
        "head.head": "proj_out",
    }
    attention = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
    block = {
        f"{a}.{k}": f"{b}.{v}"
        for a, b in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for k, v in attention.items()
    }
    block |= {"ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2", "norm3": "norm2"}
    names = {}
    for key in weights:
        module, _, last = key.rpartition(".")
        if key == "head.modulation":
            names[key] = "scale_shift_table"
        elif last == "modulation":
            names[key] = f"{module}.scale_shift_table"
        elif module.startswith("blocks."):
            number, part = module.split(".", 2)[1:]
            names[key] = f"blocks.{number}.{block[part]}.{last}"
        else:
            names[key] = f"{top.get(module, module)}.{last}"
    return {names[key]: x.clone() for key, x in weights.items()}


def save_torch(content, **settings):
    return lambda path: torch.save(content, path, **settings)


def save_safe(weights, metadata=None):
    return lambda path: save_file(weights, path, metadata)


OTHER = {key: torch.zeros_like(x) for key, x in WEIGHTS.items()}
STATE = {"step": 3, "optimizer": {"state": {0: torch.ones(2)}, "lr": 0.1}}
FILES = {
    "bare": ("safetensors", save_safe(WEIGHTS), ""),
    "model.": ("safetensors", save_safe(prefixed("model.")), "model."),
    "full checkpoint": ("safetensors", save_safe(prefixed("model.diffusion_model.")), "model.diffusion_model."),
    "diffusion_model.": ("safetensors", save_safe(prefixed("diffusion_model.")), "diffusion_model."),
    "module.model.": ("safetensors", save_safe(prefixed("module.model.")), "module.model."),
    "_orig_mod.": ("safetensors", save_safe(prefixed("_orig_mod.")), "_orig_mod."),
    "wrapped": (
        "safetensors",
        save_safe(wrapped()),
        "model._fsdp_wrapped_module._orig_mod._checkpoint_wrapped_module.",
    ),
    "flat ema": (
        "safetensors",
        save_safe(prefixed("generator_ema.model.") | prefixed("generator.model.", OTHER)),
        "generator_ema.model.",
    ),
    "diffusers": ("safetensors, diffusers names", save_safe(diffusers()), ""),
    "bare torch": ("torch", save_torch(WEIGHTS), ""),
    "old torch": ("torch", save_torch(WEIGHTS, _use_new_zipfile_serialization=False), ""),
    "ema first": (
        "torch: generator_ema",
        save_torch({"generator": OTHER, "generator_ema": prefixed("model.", WEIGHTS), **STATE}),
        "model.",
    ),
    "generator": ("torch: generator", save_torch({"critic": OTHER, "generator": wrapped(), **STATE}), "model."),
    "model": ("torch: model", save_torch({"model": WEIGHTS, "state_dict": OTHER}), ""),
    "state_dict": ("torch: state_dict", save_torch({"state_dict": prefixed("module."), "epoch": 1}), "module."),
    "nested": ("torch: generator.state_dict", save_torch({"generator": {"state_dict": WEIGHTS}}), ""),
    "any one dict": ("torch: net", save_torch({"net": WEIGHTS, "step": 1}), ""),
}


KINDS = {
    "lora": {"blocks.0.self_attn.q.lora_A.weight": torch.ones(2)},
    "wan-i2v": WEIGHTS | {"img_emb.proj.0.weight": torch.ones(2)},
    "wan-vae": {"decoder.middle.0.residual.0.gamma": torch.ones(2)},
    "taehv": {"decoder.3.conv.0.weight": torch.ones(2)},
    "diffusers-vae": {"decoder.mid_block.resnets.0.conv1.weight": torch.ones(2)},
    "umt5": {"encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight": torch.ones(2)},
    "umt5-original": {"blocks.0.pos_embedding.embedding.weight": torch.ones(2)},
    "unknown": {"conv_in.weight": torch.ones(2)},
}


def refused(path, *words, load=read_checkpoint, **settings):
    with pytest.raises(CheckpointError) as error:
        load(path, **settings)
    message = str(error.value)
    assert "\n" not in message and len(message) < 700, message
    for word in (str(path), *words):
        assert word in message, message
    return message
