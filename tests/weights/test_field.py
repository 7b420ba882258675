"""Weight files as people have them: each loads as the model that it is and names what is ignored, or says what to do.

The next file is a line more in LOADS or in REFUSED.
"""

import json
import warnings

import pytest
import torch
from safetensors.torch import save_file
from tiny import CONFIG, wan
from tiny_vae import make_taehv, make_vae
from tiny_weights import HEADS, OTHER, WEIGHTS, diffusers, prefixed, refused, same, save_safe, save_torch

from histream_core.cli import main
from histream_core.network.model import WanConfig
from histream_core.weights.checkpoint import read_checkpoint
from histream_core.weights.convert import convert
from histream_core.weights.inspection import describe_wan, inspect
from histream_core.weights.loading import load_vae, load_wan

DIM = CONFIG.dim
VAE = make_vae().state_dict()
FLOWS = {"freqs": torch.ones(8, 24), "rope.inv_freq": torch.ones(4), "blocks.0.self_attn.freqs": torch.ones(DIM)}
TEXT = {
    "transformer.encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight": torch.ones(2),
    "spiece_model": torch.ones(4, dtype=torch.uint8),
}


def sized(read, made, **extra):
    """Weights of a model that reads and makes so many channels, with tensors of further inputs."""
    sizes = {"dim": 48, "ffn_dim": 64, "num_heads": 2, "num_layers": 1, "text_dim": 16, "freq_dim": 16}
    more = {key.replace("__", "."): torch.ones(shape) for key, shape in extra.items()}
    return wan(WanConfig(in_dim=read, out_dim=made, **sizes)).state_dict() | more


def all_in_one(prefix="model.diffusion_model.", vae="vae.", text="text_encoders.umt5xxl."):
    return prefixed(prefix) | prefixed(vae, VAE) | prefixed(text, TEXT)


def shards(folder, *, start="diffusion_pytorch_model", index=True, save=save_file, end=".safetensors"):
    """Two shards, with their index; the path of the first."""
    halves = [dict(list(WEIGHTS.items())[number::2]) for number in range(2)]
    names = [f"{start}-0000{number}-of-00002{end}" for number in (1, 2)]
    for half, name in zip(halves, names, strict=True):
        save(half, folder / name)
    if index:
        weight_map = {key: name for half, name in zip(halves, names, strict=True) for key in half}
        told = json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map})
        (folder / f"{start}{end}.index.json").write_text(told)
    return folder / names[0]


BUFFERS = {
    "position_ids": torch.ones(8, dtype=torch.uint16),
    "freqs_cis": torch.ones(8, 12, dtype=torch.complex64),
    "step_count": torch.ones(1, dtype=torch.uint32),
    "seed": torch.ones(1, dtype=torch.uint64),
    "blocks.0.self_attn.ids": torch.ones(DIM, dtype=torch.uint16),
}
STRAY_LORA = {"lora.blocks.0.lora_A.weight": torch.ones(2, DIM)}
TIME = "condition_embedder.time_proj.weight"


def stray(prefix, key="head.modulation"):
    """One tensor by the name that tells a Wan model, of what is none."""
    return {prefix + key: torch.ones(1, 2, DIM)}


LOADS = {
    "pipe.dit.": (save_safe(prefixed("pipe.dit.")), []),
    "a trainer's own prefix": (save_safe(prefixed("student.net.transformer.")), []),
    "module. of torch": (save_torch(prefixed("module.")), []),
    "deepspeed": (save_torch({"module": prefixed("_forward_module."), "lr_scheduler": {"last": 1}}), []),
    "all in one": (save_safe(all_in_one()), ["vae (", "text_encoders"]),
    "all in one of before": (save_safe(all_in_one(vae="first_stage_model.", text="cond_stage.")), ["first_stage"]),
    "all in one, bare": (save_safe(all_in_one(prefix="")), ["vae (", "text_encoders"]),
    "all in one of a pipe": (save_safe(all_in_one("pipe.dit.", "pipe.vae.model.", "pipe.text_encoder.")), ["pipe.vae"]),
    "all in one of diffusers": (save_safe(prefixed("transformer.", diffusers()) | prefixed("vae.", VAE)), ["vae ("]),
    "model_type": (save_safe(WEIGHTS | {"model_type": torch.ones(1)}), ["model_type"]),
    "model_type as text": (save_torch(WEIGHTS | {"model_type": "t2v", "step": 7}), []),
    "freqs": (save_safe(WEIGHTS | FLOWS), ["freqs", "rope.inv_freq"]),
    "complex freqs": (save_torch(WEIGHTS | {"freqs": torch.ones(8, 12, dtype=torch.complex128)}), ["freqs"]),
    "stray keys that no weight has": (save_safe(WEIGHTS | BUFFERS), [*BUFFERS]),
    "stray buffers of torch": (save_torch(WEIGHTS | BUFFERS), [*BUFFERS]),
    "a stray key": (save_safe(WEIGHTS | {"a.stray.key": torch.ones(DIM)}), ["a.stray.key"]),
    "a stray key behind a prefix": (save_safe(prefixed("model.") | {"step": torch.ones(1)}), ["step"]),
    "a stray key beside": (save_safe(prefixed("diffusion_model.") | {"scale": torch.ones(1)}), ["scale"]),
    "a stray key of sound": (save_safe(WEIGHTS | {"audio_stats": torch.ones(2)}), ["audio_stats"]),
    "a stray key of VACE": (save_safe(WEIGHTS | {"vace_version": torch.tensor(2.0)}), ["vace_version"]),
    "a key of a LoRA beside": (save_safe(prefixed("model.diffusion_model.") | STRAY_LORA), ["lora (1 tensors)"]),
    "a key of an optimizer": (save_safe(WEIGHTS | stray("optimizer.")), ["optimizer (1 tensors)"]),
    "keys of an optimizer": (save_safe(prefixed("model.") | stray("exp_avg.") | stray("stats.")), ["exp_avg", "stats"]),
    "an optimizer of diffusers": (save_safe(diffusers() | stray("exp_avg.", TIME)), ["exp_avg (1 tensors)"]),
    "generator and critic": (save_safe(prefixed("critic.", OTHER) | prefixed("generator.")), ["critic ("]),
    "ema beside": (save_safe(prefixed("ema.") | prefixed("model.", OTHER)), ["model ("]),
    "student and teacher": (save_safe(prefixed("student.") | prefixed("teacher.", OTHER)), ["teacher ("]),
    "ema_model of torch": (save_torch({"model": OTHER, "ema_model": WEIGHTS, "optimizer": {"state": {}}}), []),
    "net and optimizer": (save_torch({"net": WEIGHTS, "optimizer": {"state": {}, "lr": {"a": 1}}}), []),
    "parameters": (save_torch({key: torch.nn.Parameter(x) for key, x in WEIGHTS.items()}), []),
    "metadata of a trainer": (save_safe(WEIGHTS, {"config": "wan 1.3b, my run", "format": "pt"}), ["config"]),
}  # fmt: skip


@pytest.mark.parametrize("name", LOADS)
def test_a_good_file_loads_whatever_is_around_and_names_what_it_ignored(name, tmp_path):
    save, ignored = LOADS[name]
    save(tmp_path / "a.file")
    model, found = load_wan(tmp_path / "a.file")
    same(model.state_dict(), WEIGHTS)
    notes = "\n".join(describe_wan(found))
    assert bool(notes) == bool(ignored)
    assert all(word in notes for word in ignored), notes
    assert inspect(tmp_path / "a.file")["kind"] == "wan"
    convert(tmp_path / "a.file", tmp_path / "b.safetensors")
    assert describe_wan(read_checkpoint(tmp_path / "b.safetensors", kind="wan")) == []
    same(load_wan(tmp_path / "b.safetensors")[0].state_dict(), WEIGHTS)


def test_the_vae_in_a_file_with_everything_loads_too(tmp_path):
    for vae in ("vae.", "first_stage_model."):
        save_file(all_in_one(vae=vae), tmp_path / "a.safetensors")
        same(load_vae(tmp_path / "a.safetensors").state_dict(), VAE)
    found = read_checkpoint(tmp_path / "a.safetensors", kind="umt5")
    assert found.kind == "umt5" and "spiece_model" in found.state_dict


LORA = {
    "blocks.0.self_attn.q.lora_A.weight": torch.ones(2, DIM),
    "blocks.0.self_attn.q.lora_B.weight": torch.ones(DIM, 2),
}
BASE = {key.replace("attn.q.weight", "attn.q.base_layer.weight"): x for key, x in WEIGHTS.items()}
T2V = "take weights of Wan2.1 text-to-video"
MERGE = "merge it (peft: merge_and_unload)"
REFUSED = {
    "Wan2.1 I2V": (sized(36, 16, img_emb__proj__0__weight=1280), ["image-to-video", T2V, "First Frame (I2V)"]),
    "Wan2.2 I2V": (sized(36, 16), ["image-to-video", T2V, "--first-frame"]),
    "I2V of diffusers": (diffusers(sized(36, 16)), ["image-to-video", T2V]),
    "I2V behind a prefix": (prefixed("model.diffusion_model.", sized(36, 16)), ["image-to-video", T2V]),
    "first and last frame": (sized(36, 16, img_emb__emb_pos=(1, 514, 1280)), ["image-to-video", T2V]),
    "Wan2.2 5B": (sized(48, 48), ["Wan2.2 5B", "48 channels", T2V]),
    "Fun Control": (sized(48, 16, img_emb__proj__0__weight=1280), ["image-to-video", T2V]),
    "Fun Control 2.2": (sized(52, 16, ref_conv__weight=(DIM, 16, 2, 2)), ["Wan Fun model", T2V]),
    "Fun Control, T2V": (sized(32, 16), ["Wan Fun model", T2V]),
    "camera": (sized(32, 16, control_adapter__conv__weight=(DIM, 24, 2, 2)), ["Wan camera model", T2V]),
    "VACE": (sized(16, 16, vace_patch_embedding__weight=(DIM, 96, 1, 2, 2)), ["Wan VACE model", T2V]),
    "S2V": (sized(16, 16, casual_audio_encoder__weights=(1, 25, 1, 1)), ["follows sound", T2V]),
    "HuMo": (sized(16, 16, audio_proj__norm__weight=DIM), ["follows sound", T2V]),
    "Animate": (sized(36, 16, face_adapter__fuser_blocks__0__k_norm__weight=24), ["Wan Animate model", T2V]),
    "another adapter": (WEIGHTS | {"blocks.1.adapter.weight": torch.ones(3)}, ["1 left over (blocks.1.adapter"]),
    "a head in a layer": (WEIGHTS | stray("blocks.1."), ["1 left over (blocks.1.head.modulation)"]),
    "another input": (WEIGHTS | {"new_embedding.weight": torch.ones(DIM, 6)}, ["1 left over (new_embedding"]),
    "no numbers": (WEIGHTS | {"blocks.1.norm3.weight": torch.ones(DIM, dtype=torch.int64)}, ["norm3.weight as int64"]),
    "whole numbers": (WEIGHTS | {"blocks.1.norm3.weight": torch.ones(DIM, dtype=torch.uint16)}, ["weight as uint16"]),
    "pairs": (WEIGHTS | {"blocks.1.norm3.weight": torch.ones(DIM, dtype=torch.complex64)}, ["as complex64"]),
    "two models": (prefixed("high_noise_model.") | prefixed("low_noise_model.", OTHER), ["2 models", "low_noise"]),
    "17 models": ({f"{number}.head.modulation": torch.ones(1) for number in range(17)}, ["holds 17 models or pieces"]),
    "a LoRA": (prefixed("diffusion_model.", LORA), ["a LoRA", "LoRA node"]),
    "a LoRA of peft": (prefixed("base_model.model.", LORA), ["a LoRA", "LoRA node"]),
    "a LoRA of a pipe": (prefixed("pipe.dit.", LORA), ["a LoRA", "LoRA node"]),
    "unmerged": (prefixed("base_model.model.", BASE | LORA), ["not merged", MERGE]),
    "unmerged, flat": (prefixed("generator.") | prefixed("generator_lora.", LORA), ["not merged", MERGE]),
    "the VAE": (VAE, ["a Wan VAE", "give another file"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_another_model_is_named_with_what_to_do(name, tmp_path):
    weights, words = REFUSED[name]
    save_file({key: x.clone() for key, x in weights.items()}, tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", *words, load=load_wan)
    torch.save({"generator": weights}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", *words, load=load_wan)


NESTED = {
    "generator_lora": ({"generator_lora": LORA, "critic_lora": LORA, "step": 3}, ["a LoRA", "LoRA node"]),
    "generator_lora alone": ({"generator_lora": prefixed("base_model.model.", LORA)}, ["a LoRA", "LoRA node"]),
    "generator and its LoRA": ({"generator": WEIGHTS, "generator_lora": LORA}, ["not merged", MERGE]),
    "a module of peft": ({"generator": prefixed("base_model.model.", BASE | LORA)}, ["not merged", MERGE]),
}


@pytest.mark.parametrize("name", NESTED)
def test_a_lora_in_a_training_checkpoint_is_named(name, tmp_path):
    content, words = NESTED[name]
    torch.save(content, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", *words, load=load_wan)


def test_vaes_of_other_latents_are_named(tmp_path):
    large = VAE | {"decoder.upsamples.0.upsamples.0.residual.2.weight": torch.ones(2)}
    save_file(large, tmp_path / "wan2.2_vae.safetensors")
    refused(tmp_path / "wan2.2_vae.safetensors", "Wan2.2 5B", "take wan_2.1_vae.safetensors", load=load_vae)
    small = make_taehv().state_dict()
    small["decoder.1.weight"] = torch.ones(8, 48, 3, 3)
    save_file(small, tmp_path / "taew2_2.safetensors")
    refused(tmp_path / "taew2_2.safetensors", "Wan2.2 5B", "take taew2_1", load=load_vae)


def test_a_model_in_shards_loads_from_its_index_and_from_each_shard(tmp_path):
    """Seen to fail with one shard read alone."""
    for index, save, end in ((True, save_file, ".safetensors"), (False, torch.save, ".bin")):
        first = shards(tmp_path, index=index, save=save, end=end)
        given = [first, first.with_name(first.name.replace("00001-of", "00002-of"))]
        given += [tmp_path / "diffusion_pytorch_model.safetensors.index.json"] if index else []
        for path in given:
            model, found = load_wan(path)
            same(model.state_dict(), WEIGHTS)
            assert found.container.endswith(", 2 files")
    first.unlink()
    refused(given[1], "one part of a model in 2 files", "1 of them", first.name, load=load_wan)


def test_a_conversion_replaces_none_of_the_shards_that_it_reads(tmp_path):
    """Seen to fail with the given shard alone compared."""
    first = shards(tmp_path)
    second = first.with_name(first.name.replace("00001-of", "00002-of"))
    before = second.read_bytes()
    with pytest.raises(ValueError, match="is the file to convert"):
        convert(first, second, overwrite=True)
    assert second.read_bytes() == before


BAD_INDEX = {
    "not JSON": "{", "a list": "[]", "empty": "{}", "no files": '{"weight_map": {}}',
    "numbers": '{"weight_map": {"a": 1}}',
    "elsewhere": '{"weight_map": {"a": "../a.safetensors"}}',
    "another drive": '{"weight_map": {"a": "C:a.safetensors"}}',
    "a script": '{"weight_map": {"a": "a.py"}}', "not there": '{"weight_map": {"a": "b.safetensors"}}',
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_INDEX)
def test_an_index_opens_files_beside_it_alone(name, tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    (inside / "m.safetensors.index.json").write_text(BAD_INDEX[name])
    refused(inside / "m.safetensors.index.json", "get", load=load_wan)


def test_shards_that_hold_a_tensor_twice_are_refused(tmp_path):
    for number in (1, 2):
        save_file(WEIGHTS, tmp_path / f"m-0000{number}-of-00002.safetensors")
    with pytest.raises(ValueError, match="as a file before it"):
        load_wan(tmp_path / "m-00001-of-00002.safetensors")


FOLDERS = {
    "DCP": ({"fsdp": [".metadata", "__0_0.distcp"]}, "fsdp", ["torch.distributed.checkpoint", "dcp_to_torch"]),
    "a file of DCP": ({"": ["__0_0.distcp"]}, "__0_0.distcp", ["torch.distributed.checkpoint", "dcp_to_torch"]),
    "its metadata": ({"": [".metadata"]}, ".metadata", ["torch.distributed.checkpoint", "dcp_to_torch"]),
    "deepspeed": ({"ds": ["zero_to_fp32.py", "latest"]}, "ds", ["DeepSpeed", "zero_to_fp32.py"]),
    "an index": ({"m": ["a.bin.index.json", "a-00001-of-00001.bin"]}, "m", ["(a.bin.index.json)"]),
    "diffusers": ({"w/transformer": ["a.safetensors"]}, "w", ["give the file in", "transformer"]),
    "pictures": ({"p": ["a.jpg"]}, "p", ["give a weights file"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_says_what_to_give(name, tmp_path):
    folders, given, words = FOLDERS[name]
    for folder, files in folders.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for file in files:
            (tmp_path / folder / file).write_bytes(b"PK\x03\x04")
    refused(tmp_path / given, *words, load=load_wan)
    refused(tmp_path / given, *words, load=inspect)


def quantised(dtype, name, scale):
    """Weights of which one is stored in eight bits, with a scale beside it; and what they stand for."""
    key = "blocks.0.ffn.0.weight"
    low = WEIGHTS | {key: WEIGHTS[key].to(dtype), key.removesuffix("weight") + name: scale}
    factor = scale.float().reshape(-1, 1)
    return low, WEIGHTS | {key: low[key].float() * factor} if scale.numel() in (1, len(low[key])) else None


E8M0 = getattr(torch, "float8_e8m0fnu", torch.float32)
ROWS = CONFIG.ffn_dim
SCALED = {
    "e4m3": (torch.float8_e4m3fn, "scale_weight", torch.tensor(0.5)),
    "e5m2": (torch.float8_e5m2, "scale_weight", torch.tensor(0.5)),
    "each row": (torch.float8_e4m3fn, "weight_scale", torch.full((ROWS, 1), 2.0)),
    "e8m0": (torch.float8_e4m3fn, "weight_scale", torch.tensor([2.0]).to(E8M0)),
    "e8m0, each row": (torch.float8_e4m3fn, "weight_scale", torch.full((ROWS, 1), 4.0).to(E8M0)),
    "e8m0, blocks": (torch.float8_e4m3fn, "weight_scale", torch.ones(ROWS, 2).to(E8M0)),
    "blocks": (torch.float8_e4m3fn, "weight_scale_inv", torch.ones(1)),
    "nvfp4": (torch.uint8, "weight_scale_2", torch.ones(1)),
    "int8": (torch.int8, "weight_scale", torch.ones(1)),
}


@pytest.mark.parametrize("name", SCALED)
def test_weights_in_eight_bits_are_multiplied_out_or_left_to_the_host(name, tmp_path):
    """Blocks with scales of their own are refused here, and told apart from what can be multiplied out."""
    stored, exact = quantised(*SCALED[name])
    save_file(stored, tmp_path / "a.safetensors", HEADS)
    torch.save(stored, tmp_path / "a.pt")
    for path in (tmp_path / "a.safetensors", tmp_path / "a.pt"):
        assert inspect(path)["quantised"] and describe_wan(read_checkpoint(path, kind="wan")) == []
        if exact is None or name in ("blocks", "nvfp4", "int8"):
            refused(path, "only ComfyUI can run", "blocks.0.ffn.0.weight", load=load_wan)
        else:
            same(load_wan(path, dtype=torch.float32)[0].state_dict(), exact)


def test_half_of_a_pair_is_named_by_its_file(tmp_path):
    for name, noise in (("wan2.2_t2v_high_noise_14B", "high"), ("Wan2_2-T2V-A14B-LOW", None), ("t2v LowNoise", "low")):
        save_file(WEIGHTS, tmp_path / f"{name}.safetensors")
        notes = describe_wan(read_checkpoint(tmp_path / f"{name}.safetensors", kind="wan"))
        assert len(notes) == bool(noise) and all(f"{noise} noise" in note for note in notes)


def test_the_one_line_of_the_command_line_stands_alone(tmp_path, capsys):
    """No warning of torch comes before it, and it names what was ignored. Seen to fail without the filter."""
    torch.save(WEIGHTS | {"freqs": torch.ones(8, dtype=torch.complex128)}, tmp_path / "a.pt", pickle_protocol=3)
    torch.save(WEIGHTS, tmp_path / "b.pt", pickle_protocol=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "c.safetensors")]) == 0
        assert "freqs" in capsys.readouterr().out
        assert main(["inspect", str(tmp_path / "b.pt")]) != 0
        assert "protocol 4" in (said := capsys.readouterr().err) and len(said.splitlines()) == 1
    assert not [str(warning.message) for warning in caught]
