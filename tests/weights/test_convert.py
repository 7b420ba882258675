"""One clean file out of any: what is written, what is refused, and what a full disk or a kill leaves behind."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import CONFIG
from tiny_weights import FILES, HEADS, WEIGHTS, same

from histream_core.vae.model import WanVAE
from histream_core.weights import containers as weight_file
from histream_core.weights import convert as conversion
from histream_core.weights.checkpoint import read_checkpoint
from histream_core.weights.containers import CheckpointError
from histream_core.weights.convert import convert
from histream_core.weights.loading import load_vae


@pytest.mark.parametrize("name", FILES)
def test_a_converted_file_holds_the_source_tensors_under_bare_names(name, tmp_path):
    FILES[name][1](tmp_path / "source.file")
    convert(tmp_path / "source.file", tmp_path / "out.safetensors")
    same(load_file(tmp_path / "out.safetensors"))
    assert sorted(os.listdir(tmp_path)) == ["out.safetensors", "source.file"]


def test_conversion_casts_and_describes_a_causal_model(tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "guess_preset", lambda found: "self-forcing")
    save_file(WEIGHTS, tmp_path / "a.safetensors", HEADS | {"author": "somebody"})
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype=torch.bfloat16)
    found = read_checkpoint(tmp_path / "b.safetensors", kind="wan")
    assert json.loads(found.metadata["config"]) == {"transformer": {"num_heads": 2, "causal_ar": True}}
    assert found.metadata["author"] == "somebody" and found.metadata["histream_preset"] == "self-forcing"
    assert found.dtype == torch.bfloat16 and found.config == CONFIG
    assert found.state_dict["patch_embedding.weight"].dtype == torch.float32
    same(found.state_dict, {key: x.to(found.state_dict[key].dtype) for key, x in WEIGHTS.items()})
    monkeypatch.setattr(conversion, "guess_preset", lambda found: "wan")
    convert(tmp_path / "b.safetensors", tmp_path / "c.safetensors")
    assert "causal_ar" not in read_checkpoint(tmp_path / "c.safetensors").metadata["config"]


def test_causal_metadata_is_written_for_causal_presets_alone(tmp_path, monkeypatch):
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    for preset, causal in (("self-forcing", True), ("wan", False), ("demo", False)):
        monkeypatch.setattr(conversion, "guess_preset", lambda found, preset=preset: preset)
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


def test_conversion_writes_through_no_link(tmp_path):
    """Seen to fail with a partial file that is opened by its name, and with a target that is."""
    source, precious = tmp_path / "a.safetensors", tmp_path / "precious"
    save_file(WEIGHTS, source)
    precious.write_bytes(b"precious")
    for name in ("b.safetensors", "b.partial.safetensors", ".b.safetensors.partial"):
        (tmp_path / name).symlink_to(precious)
    with pytest.raises(CheckpointError, match="exists"):
        convert(source, tmp_path / "b.safetensors")
    convert(source, tmp_path / "b.safetensors", overwrite=True)
    assert precious.read_bytes() == b"precious" and not (tmp_path / "b.safetensors").is_symlink()
    same(load_file(tmp_path / "b.safetensors"))


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
        with pytest.raises(CheckpointError, match=r"cannot write .*: File too large; free space"):
            convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "b.safetensors"]
    assert (tmp_path / "b.safetensors").read_bytes() == b"precious"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_a_kill_in_the_middle_never_leaves_a_half_file_under_the_name(tmp_path):
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(WEIGHTS, source)
    cast, calls = conversion.cast_tensor, []

    def cast_until_killed(*args, **settings):
        calls.append(args)
        if len(calls) == 30:
            os.kill(os.getpid(), signal.SIGKILL)
        return cast(*args, **settings)

    if (child := os.fork()) == 0:
        conversion.cast_tensor = cast_until_killed
        convert(source, target, dtype=torch.bfloat16)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "b.partial.safetensors"]
    with pytest.raises(CheckpointError, match=r"b\.partial\.safetensors exists"):
        convert(source, target)
    convert(source, target, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "b.safetensors"], "the partial file was not reused"
    same(load_file(target))


PEFT = {
    f"blocks.{layer}.{module}.lora_{part}.default.weight": torch.full((2, 2), float(layer))
    for layer in range(2)
    for module in ("self_attn.q", "cross_attn.o", "ffn.0")
    for part in "AB"
}
"""Names of CineScale's LoRA files."""


@pytest.mark.parametrize("prefix", ["", "base_model.model.", "pipe.dit.", "diffusion_model."])
def test_a_lora_of_peft_gets_the_names_that_comfyui_reads(prefix, tmp_path):
    torch.save({prefix + key: x for key, x in PEFT.items()}, tmp_path / "t2v_1.3b_ntk20.ckpt")
    found = convert(tmp_path / "t2v_1.3b_ntk20.ckpt", tmp_path / "lora.safetensors", dtype=torch.bfloat16)
    written = load_file(tmp_path / "lora.safetensors")
    assert written.keys() == {f"diffusion_model.{key.replace('.default', '')}" for key in PEFT}
    assert {x.dtype for x in written.values()} == {torch.bfloat16}
    assert found.kind == "lora" and not read_checkpoint(tmp_path / "lora.safetensors").metadata


def test_two_loras_for_the_same_layers_are_refused(tmp_path):
    twice = PEFT | {key.replace("default", "other"): x.clone() for key, x in PEFT.items()}
    torch.save(twice, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="several LoRAs"):
        convert(tmp_path / "a.ckpt", tmp_path / "b.safetensors")
