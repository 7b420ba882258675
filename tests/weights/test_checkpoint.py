"""Every file that people have, on tiny random weights: what is found in it, and what is refused."""

import json
import os
import pickle
import random
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from tiny import CONFIG
from tiny_weights import FILES, HEADS, KINDS, WEIGHTS, refused, same, save_safe, save_torch

from histream_core.weights import checkpoint
from histream_core.weights.checkpoint import read_checkpoint
from histream_core.weights.containers import CheckpointError
from histream_core.weights.inspection import inspect
from histream_core.weights.loading import load_vae, load_wan


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


# What is refused.


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
    save_file(WEIGHTS | {"blocks.1.x.bias": torch.ones(3)}, tmp_path / "name.safetensors")
    refused(tmp_path / "name.safetensors", "1 left over (blocks.1.x.bias)", kind="wan")
    headless = {key: x for key, x in WEIGHTS.items() if key != "head.modulation"}
    save_file(headless, tmp_path / "headless.safetensors")
    refused(tmp_path / "headless.safetensors", "1 missing (head.modulation)", kind="wan")


def test_one_shard_of_several_is_told_as_such(tmp_path):
    half = {key: x for key, x in WEIGHTS.items() if "blocks.1" not in key and "head" not in key}
    save_file(half, tmp_path / "model-00001-of-00002.safetensors")
    refused(
        tmp_path / "model-00001-of-00002.safetensors", "one part of a model in 2 files", "00002-of-00002", kind="wan"
    )


def test_sizes_that_cannot_be_are_refused(tmp_path):
    save_file(WEIGHTS, tmp_path / "a.safetensors", {"config": json.dumps({"transformer": {"num_heads": 5}})})
    refused(tmp_path / "a.safetensors", "48 channels do not split into 5 heads")


@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_of_model_is_named_where_a_wan_model_is_wanted(kind, tmp_path):
    save_file(KINDS[kind], tmp_path / "a.safetensors")
    assert inspect(tmp_path / "a.safetensors")["kind"] == kind
    refused(tmp_path / "a.safetensors", checkpoint.KINDS[kind], "not a Wan text-to-video model", load=load_wan)
    if kind not in ("wan-vae", "taehv"):
        refused(tmp_path / "a.safetensors", checkpoint.KINDS[kind], "not a Wan VAE", load=load_vae)
