"""Every file that people have, on tiny random weights: what is found in it, and what is refused."""

import json
import os
import pickle
import random
import signal
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import CONFIG, wan

from histream_core import checkpoint, weight_file
from histream_core.checkpoint import (
    CheckpointError,
    convert,
    guess_preset,
    inspect,
    load_vae,
    load_wan,
    read_checkpoint,
)
from histream_core.presets import PRESETS
from histream_core.wan_vae import WanVAE

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


@pytest.mark.parametrize("name", FILES)
def test_every_container_and_prefix_gives_the_same_weights(name, tmp_path):
    container, save, prefix = FILES[name]
    save(tmp_path / "weights.file")
    found = read_checkpoint(tmp_path / "weights.file", kind="wan")
    same(found.state_dict)
    assert (found.container, found.kind, found.dtype) == (container, "wan", torch.float32)
    assert found.prefix.startswith(prefix)
    assert found.config.dim == CONFIG.dim and found.config.num_layers == CONFIG.num_layers


def test_sizes_are_told_by_tensors_and_heads_by_metadata(tmp_path):
    save_file(WEIGHTS, tmp_path / "a.safetensors", HEADS)
    assert read_checkpoint(tmp_path / "a.safetensors").config == CONFIG


def test_a_file_is_mapped_and_not_read(tmp_path):
    """Opened tensors share the file's pages: writing to the file shows through in a tensor never touched before."""
    for name, save in (("a.safetensors", save_safe(WEIGHTS)), ("a.pt", save_torch({"generator": WEIGHTS}))):
        save(tmp_path / name)
        x = read_checkpoint(tmp_path / name).state_dict["head.modulation"]
        content = (tmp_path / name).read_bytes()
        at = content.index(WEIGHTS["head.modulation"].numpy().tobytes())
        with (tmp_path / name).open("r+b") as file:
            file.seek(at)
            file.write(torch.tensor([123.0]).numpy().tobytes())
        assert x.flatten()[0] == 123


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loading_casts_down_but_not_what_must_stay_exact(dtype, tmp_path):
    save_file(WEIGHTS, tmp_path / "a.safetensors", HEADS)
    model, found = load_wan(tmp_path / "a.safetensors", dtype=dtype)
    assert model.config == CONFIG and found.dtype == dtype
    for key, x in model.state_dict().items():
        exact = "modulation" in key or key.startswith("patch_embedding")
        assert x.dtype == (torch.float32 if exact else dtype), key
        assert torch.equal(x, WEIGHTS[key].to(x.dtype)), key
        assert found.state_dict[key].data_ptr() == x.data_ptr(), "weights exist twice"
    assert not any(p.requires_grad for p in model.parameters()) and not model.training


def test_loading_without_a_dtype_keeps_the_stored_one_and_the_file_behind_it(tmp_path):
    save_file({key: x.bfloat16() for key, x in WEIGHTS.items()}, tmp_path / "a.safetensors", HEADS)
    model, _ = load_wan(tmp_path / "a.safetensors")
    assert model.blocks[0].ffn[0].weight.dtype == torch.bfloat16
    assert model.patch_embedding.weight.dtype == torch.float32


def test_a_weight_that_overflows_float16_is_named(tmp_path):
    big = WEIGHTS | {"blocks.1.ffn.0.bias": torch.full_like(WEIGHTS["blocks.1.ffn.0.bias"], 1e6)}
    save_file(big, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"overflows float16 in blocks\.1\.ffn\.0\.bias"):
        load_wan(tmp_path / "a.safetensors", dtype=torch.float16)
    load_wan(tmp_path / "a.safetensors", dtype=torch.bfloat16)


def test_a_vae_loads_from_either_format(tmp_path):
    weights = WanVAE(dim=8).state_dict()
    save_file(weights, tmp_path / "vae.safetensors")
    torch.save({"model": weights}, tmp_path / "vae.pth")
    for name in ("vae.safetensors", "vae.pth"):
        vae = load_vae(tmp_path / name, dtype=torch.bfloat16)
        same(vae.state_dict(), {key: x.bfloat16() for key, x in weights.items()})
        assert inspect(tmp_path / name)["kind"] == "wan-vae"


def scaled(style):
    """Weights as ComfyUI stores fp8: every linear weight of the blocks with a scale beside it."""
    stored, exact = {}, {}
    for key, x in WEIGHTS.items():
        if x.ndim == 2 and key.startswith("blocks."):
            scale = x.abs().max() / 448
            stored[key] = (x / scale).to(torch.float8_e4m3fn)
            layer = key.removesuffix("weight")
            stored[layer + style["weight"]] = scale
            stored[layer + style["input"]] = torch.tensor(1.0)
            exact[key] = stored[key].float() * scale
        else:
            stored[key] = exact[key] = x
    return stored | style["extra"], exact


STYLES = {
    "older": {"weight": "scale_weight", "input": "scale_input", "extra": {"scaled_fp8": torch.zeros(2)}},
    "newer": {"weight": "weight_scale", "input": "input_scale", "extra": {}},
}


@pytest.mark.parametrize("style", STYLES)
def test_fp8_with_scales_is_multiplied_out_and_kept_for_the_host(style, tmp_path):
    stored, exact = scaled(STYLES[style])
    save_file(prefixed("model.", stored), tmp_path / "a.safetensors", HEADS)
    found = read_checkpoint(tmp_path / "a.safetensors", kind="wan")
    assert found.quantised and inspect(tmp_path / "a.safetensors")["num_left_over"] == 0
    model, _ = load_wan(tmp_path / "a.safetensors", dtype=torch.float32)
    same(model.state_dict(), exact)
    convert(tmp_path / "a.safetensors", tmp_path / "kept.safetensors")
    same(load_file(tmp_path / "kept.safetensors"), stored)
    convert(tmp_path / "a.safetensors", tmp_path / "plain.safetensors", dtype=torch.bfloat16)
    plain = load_file(tmp_path / "plain.safetensors")
    same(plain, {key: x.to(plain[key].dtype) for key, x in exact.items()})


def test_fp8_without_scales_loads_in_bfloat16(tmp_path):
    low = {key: x.to(torch.float8_e4m3fn) if x.ndim == 2 else x for key, x in WEIGHTS.items()}
    save_file(low, tmp_path / "a.safetensors")
    model, _ = load_wan(tmp_path / "a.safetensors")
    assert model.blocks[0].ffn[0].weight.dtype == torch.bfloat16
    same(
        model.blocks[0].ffn[0].state_dict(),
        {key: low[f"blocks.0.ffn.0.{key}"].bfloat16() for key in ("weight", "bias")},
    )


def test_other_quantised_formats_are_refused_headless(tmp_path):
    packed = dict(WEIGHTS)
    packed["blocks.0.ffn.0.weight"] = torch.zeros(64, 24, dtype=torch.uint8)
    packed["blocks.0.ffn.0.weight_scale"] = torch.ones(64, 3)
    save_file(packed, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="only ComfyUI can run"):
        load_wan(tmp_path / "a.safetensors", dtype=torch.bfloat16)


# What is refused.


def refused(path, *words, load=read_checkpoint, **settings):
    with pytest.raises(CheckpointError) as error:
        load(path, **settings)
    message = str(error.value)
    assert "\n" not in message and len(message) < 700, message
    for word in (str(path), *words):
        assert word in message, message
    return message


BYTES = {
    "an empty file": (b"", ["empty (0 bytes)"]),
    "a web page": (b"\n<!DOCTYPE html><html><body>404</body></html>", ["web page"]),
    "an error as JSON": (b'{"error":"Repository not found"}', ["web page"]),
    "an LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        ["git-LFS pointer of 63 bytes"],
    ),
    "GGUF": (b"GGUF\x03\x00\x00\x00", ["GGUF", "ComfyUI"]),
    "plain text": (b"these are not the weights you are looking for", ["not a checkpoint", "b'these ar'"]),
    "three bytes": (b"abc", ["not a checkpoint"]),
    "a zip that is cut": (b"PK\x03\x04" + bytes(100), ["truncated or damaged", "104 bytes"]),
    "a pickle that is cut": (pickle.dumps({"a": 1}, 2)[:-4], ["truncated or damaged"]),
    "a safetensors header that lies": (b"\xff" * 7 + b"\x00{" + bytes(64), ["truncated or damaged"]),
}


@pytest.mark.parametrize("name", BYTES)
def test_what_is_no_checkpoint_is_refused_in_one_sentence(name, tmp_path):
    content, words = BYTES[name]
    (tmp_path / "weights.pt").write_bytes(content)
    refused(tmp_path / "weights.pt", *words)
    refused(tmp_path / "weights.pt", *words, load=inspect)


@pytest.mark.parametrize("name", ["bare", "bare torch", "old torch"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.999])
def test_a_truncated_file_is_refused(name, part, tmp_path):
    FILES[name][1](tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(content[: int(len(content) * part)])
    refused(tmp_path / "a.pt", "truncated or damaged", f"{int(len(content) * part)} bytes")


@pytest.mark.parametrize("name", ["bare", "bare torch", "old torch"])
def test_damaged_bytes_never_raise_anything_else(name, tmp_path):
    """Random bytes in header, directory and data: the file is refused in one sentence, or it still loads."""
    FILES[name][1](tmp_path / "a.pt")
    content, draw = (tmp_path / "a.pt").read_bytes(), random.Random(0)
    refusals = 0
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(4):
            damaged[draw.randrange(4000)] = draw.randrange(256)
            damaged[-draw.randrange(1, 4000)] = draw.randrange(256)
        (tmp_path / "a.pt").write_bytes(damaged)
        try:
            inspect(tmp_path / "a.pt")
        except CheckpointError as error:
            refusals += 1
            assert "\n" not in str(error)
    assert refusals > 20


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "none.pt", "does not exist")
    (tmp_path / "b.safetensors").touch()
    refused(tmp_path, "is a folder", "b.safetensors")


def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"PK\x03\x04")
    (tmp_path / "a.pt").chmod(0)
    if os.access(tmp_path / "a.pt", os.R_OK):
        pytest.skip("this user may read everything")
    refused(tmp_path / "a.pt", "cannot be read", "Permission denied")


class Bomb:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("save", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x, 2))])
def test_code_in_a_pickle_is_named_and_never_runs(save, tmp_path):
    trace = tmp_path / "it ran".replace(" ", "_")
    save({"step": 3, "extra": Bomb(trace), "generator": WEIGHTS}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "posix.system" if os.name == "posix" else "system", "nothing of it was executed")
    refused(tmp_path / "a.pt", "nothing of it was executed", load=inspect)
    refused(tmp_path / "a.pt", "nothing of it was executed", load=load_wan)
    assert not trace.exists()
    assert not list(tmp_path.glob("*.partial"))
    pickle.loads(pickle.dumps(Bomb(trace)))  # the bomb works: unpickled, it does leave its trace
    assert trace.exists()


def test_a_torchscript_program_and_a_common_zip_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/data.pkl", b"")
        archive.writestr("script/code/__torch__.py", b"")
    refused(tmp_path / "script.pt", "TorchScript", "executed")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("cat.jpg", b"meow")
    refused(tmp_path / "photos.zip", "zip archive without weights")


def test_objects_that_hold_no_weights_are_refused(tmp_path):
    for content, word in (([1, 2], "holds a list"), ({"step": 3}, "only step"), ({}, "only nothing")):
        torch.save(content, tmp_path / "a.pt")
        refused(tmp_path / "a.pt", word)


def test_missing_and_left_over_tensors_are_counted_and_five_named(tmp_path):
    short = {key: x for key, x in WEIGHTS.items() if not key.startswith("blocks.0.cross_attn.")}
    save_file(short | {f"extra.{i}": torch.ones(1) for i in range(7)}, tmp_path / "a.safetensors")
    message = refused(tmp_path / "a.safetensors", "10 missing", "7 left over", "extra.0", "extra.4", kind="wan")
    assert "extra.5" not in message and message.count("blocks.0.cross_attn.") == 5
    found = inspect(tmp_path / "a.safetensors")
    assert (found["num_missing"], found["num_left_over"], len(found["missing"])) == (10, 7, 5)


def test_a_layer_that_is_not_there_a_wrong_size_and_a_stray_name_are_named(tmp_path):
    gap = {key.replace("blocks.1.", "blocks.2."): x for key, x in WEIGHTS.items()}
    save_file(gap, tmp_path / "gap.safetensors")
    refused(tmp_path / "gap.safetensors", "27 missing (blocks.1.", "27 left over (blocks.2.", kind="wan")
    save_file(WEIGHTS | {"blocks.0.ffn.2.bias": torch.ones(3)}, tmp_path / "size.safetensors")
    refused(tmp_path / "size.safetensors", "blocks.0.ffn.2.bias [3] instead of [48]", kind="wan")
    save_file(WEIGHTS | {"blocks.x.bias": torch.ones(3)}, tmp_path / "name.safetensors")
    refused(tmp_path / "name.safetensors", "1 left over (blocks.x.bias)", kind="wan")
    headless = {key: x for key, x in WEIGHTS.items() if key != "head.modulation"}
    save_file(headless, tmp_path / "headless.safetensors")
    refused(tmp_path / "headless.safetensors", "1 missing (head.modulation)", kind="wan")


def test_one_shard_of_several_is_told_as_such(tmp_path):
    half = {key: x for key, x in WEIGHTS.items() if "blocks.1" not in key and "head" not in key}
    save_file(half, tmp_path / "model-00001-of-00002.safetensors")
    refused(tmp_path / "model-00001-of-00002.safetensors", "one part of several", "merged", kind="wan")


def test_sizes_that_cannot_be_are_refused(tmp_path):
    save_file(WEIGHTS, tmp_path / "a.safetensors", {"config": json.dumps({"transformer": {"num_heads": 5}})})
    refused(tmp_path / "a.safetensors", "48 channels do not split into 5 heads")


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


@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_of_model_is_named_where_a_wan_model_is_wanted(kind, tmp_path):
    save_file(KINDS[kind], tmp_path / "a.safetensors")
    assert inspect(tmp_path / "a.safetensors")["kind"] == kind
    refused(tmp_path / "a.safetensors", checkpoint.KINDS[kind], "not a Wan text-to-video model", load=load_wan)
    if kind not in ("wan-vae", "taehv"):
        refused(tmp_path / "a.safetensors", checkpoint.KINDS[kind], "not a Wan VAE", load=load_vae)


# What is guessed.

NAMES = {
    "checkpoints/self_forcing_dmd.pt": "self-forcing",
    "chunkwise/causal_forcing.pt": "causal-forcing",
    "framewise/causal_forcing.pt": "causal-forcing-framewise",
    "x/causal_forcing-framewise.safetensors": "causal-forcing-framewise",
    "causal-forcing++/framewise-2step.pt": "causal-forcing-2step",
    "causal-forcing++/framewise-1step.pt": "causal-forcing-1step",
    "autoregressive_checkpoint/model.pt": "causvid",
    "models/longlive_base.pt": "longlive",
    "models/HiStream_1.3B.safetensors": "histream",
    "histream/wan2.1_t2v_1.3B_bf16.safetensors": "wan",
    "diffusion_models/wan2.1_t2v_14B_fp8.safetensors": "wan",
}


def wide(path, container="torch", metadata=None, dim=1536):
    """A checkpoint as the guess sees it; what its tensors hold plays no part."""
    config = checkpoint.WanConfig(dim=dim, ffn_dim=8960, num_heads=12, num_layers=30)
    return checkpoint.Checkpoint(Path(path), "wan", container, "", {}, metadata or {}, torch.bfloat16, config)


@pytest.mark.parametrize("name", NAMES)
def test_the_preset_is_guessed_from_the_name(name):
    assert guess_preset(wide(name)) == NAMES[name]
    assert NAMES[name] in PRESETS


def test_the_preset_is_guessed_from_metadata_container_and_width():
    causal = {"config": json.dumps({"transformer": {"causal_ar": True}})}
    assert guess_preset(wide("model.safetensors", metadata=causal)) == "self-forcing"
    assert guess_preset(wide("model.pt", container="torch: generator")) == "self-forcing"
    assert guess_preset(wide("model.safetensors", dim=96)) == "demo"
    told = {"histream_preset": "longlive"}
    assert guess_preset(wide("self_forcing.safetensors", metadata=told)) == "longlive"
    assert guess_preset(wide("model.safetensors", metadata={"histream_preset": "no such", "config": "{"})) == "wan"


# What is told and written.


def test_inspect_tells_everything_as_plain_values(tmp_path):
    low = {key: x.half() if "ffn" in key else x for key, x in WEIGHTS.items()}
    torch.save({"generator": prefixed("model.", low)}, tmp_path / "a.pt")
    found = inspect(tmp_path / "a.pt")
    assert json.loads(json.dumps(found)) == found
    assert found["sizes"] == {"dim": 48, "layers": 2, "heads": 1, "ffn": 64, "in": 4, "out": 4, "text": 16}
    assert found["tensors"] == len(WEIGHTS) == 15 + 27 * 2
    assert found["params"] == sum(x.numel() for x in WEIGHTS.values())
    assert found["bytes"] == sum(x.numel() * x.element_size() for x in low.values())
    assert found["dtypes"] == {"float32": len(WEIGHTS) - 8, "float16": 8}
    assert (found["container"], found["prefix"], found["preset"]) == ("torch: generator", "model.", "demo")


@pytest.mark.parametrize("name", FILES)
def test_a_converted_file_holds_the_source_tensors_under_bare_names(name, tmp_path):
    FILES[name][1](tmp_path / "source.file")
    convert(tmp_path / "source.file", tmp_path / "out.safetensors")
    same(load_file(tmp_path / "out.safetensors"))
    assert sorted(os.listdir(tmp_path)) == ["out.safetensors", "source.file"]


def test_conversion_casts_and_describes_a_causal_model(tmp_path):
    save_file(WEIGHTS, tmp_path / "a.safetensors", HEADS | {"author": "somebody"})
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype=torch.bfloat16, causal=True)
    found = read_checkpoint(tmp_path / "b.safetensors", kind="wan")
    assert json.loads(found.metadata["config"]) == {"transformer": {"num_heads": 2, "causal_ar": True}}
    assert found.metadata["author"] == "somebody" and found.metadata["histream_preset"] == "demo"
    assert found.dtype == torch.bfloat16 and found.config == CONFIG
    assert found.state_dict["patch_embedding.weight"].dtype == torch.float32
    same(found.state_dict, {key: x.to(found.state_dict[key].dtype) for key, x in WEIGHTS.items()})
    convert(tmp_path / "b.safetensors", tmp_path / "c.safetensors", causal=False)
    assert "causal_ar" not in read_checkpoint(tmp_path / "c.safetensors").metadata["config"]


def test_causal_metadata_is_written_for_causal_presets_alone(tmp_path, monkeypatch):
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    for preset, causal in (("self-forcing", True), ("wan", False), ("demo", False)):
        monkeypatch.setattr(checkpoint, "guess_preset", lambda found, preset=preset: preset)
        convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", overwrite=True)
        assert ("causal_ar" in read_checkpoint(tmp_path / "b.safetensors").metadata.get("config", "")) is causal


def test_a_converted_vae_is_whole(tmp_path):
    weights = WanVAE(dim=8).state_dict()
    torch.save(weights, tmp_path / "vae.pth")
    convert(tmp_path / "vae.pth", tmp_path / "vae.safetensors", dtype=torch.bfloat16)
    same(load_vae(tmp_path / "vae.safetensors").state_dict(), {key: x.bfloat16() for key, x in weights.items()})


def test_conversion_refuses_bad_targets_and_never_overwrites_unasked(tmp_path):
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"precious")
    (tmp_path / "d.safetensors").mkdir()

    def fails(target, word, **settings):
        with pytest.raises(CheckpointError, match=word):
            convert(tmp_path / "a.safetensors", tmp_path / target, **settings)

    fails("b.safetensors", "exists")
    fails("b.pt", "must end in .safetensors")
    fails("a.safetensors", "is the file to convert", overwrite=True)
    fails("no/b.safetensors", "folder .* does not exist")
    fails("d.safetensors", "is a folder", overwrite=True)
    fails("c.safetensors", "use fp32, bf16, fp16", dtype=torch.float8_e4m3fn)
    assert (tmp_path / "b.safetensors").read_bytes() == b"precious"
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", overwrite=True)
    same(load_file(tmp_path / "b.safetensors"))


def test_a_lora_is_not_converted(tmp_path):
    save_file(KINDS["lora"], tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="a LoRA"):
        convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(tmp_path, monkeypatch):
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(weight_file.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CheckpointError, match=r"needs 0\.\d+ GB and 0\.00 GB are free"):
        convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_a_disk_that_fills_up_half_way_leaves_nothing(tmp_path):
    """The real thing: a limit on the size of files makes write() fail after 100 kB."""
    resource = pytest.importorskip("resource", reason="no file size limits on this system")
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"precious")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match="could not be written, and nothing was left: File too large"):
            convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "b.safetensors"]
    assert (tmp_path / "b.safetensors").read_bytes() == b"precious"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_a_kill_in_the_middle_never_leaves_a_half_file_under_the_name(tmp_path):
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(WEIGHTS, source)
    cast, calls = checkpoint.cast_tensor, []

    def cast_until_killed(*args, **settings):
        calls.append(args)
        if len(calls) == 30:
            os.kill(os.getpid(), signal.SIGKILL)
        return cast(*args, **settings)

    if (child := os.fork()) == 0:
        checkpoint.cast_tensor = cast_until_killed
        convert(source, target, dtype=torch.bfloat16)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert sorted(os.listdir(tmp_path)) == [".b.safetensors.partial", "a.safetensors"]
    convert(source, target)
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "b.safetensors"], "the partial file was not reused"
    same(load_file(target))
