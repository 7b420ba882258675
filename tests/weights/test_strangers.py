"""Files that claim more than they hold: each is refused in a sentence, within little memory and time."""

import json
import os
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
import torch
from forks import Child
from safetensors.torch import save_file
from tiny_weights import WEIGHTS, refused, same

from histream_core.files.tensors import DTYPES, header
from histream_core.vae.model import WanVAE
from histream_core.vae.taehv import TAEHV
from histream_core.weights import load_vae, load_wan
from histream_core.weights.checkpoint import read_checkpoint
from histream_core.weights.containers import open_weights
from histream_core.weights.errors import CheckpointError
from histream_core.weights.inspection import describe_wan
from histream_core.weights.text_encoder import load_embeds

resource = pytest.importorskip("resource", reason="limits on memory and time are of POSIX")

ROOM, SECONDS = 2**30, 5
"""Bytes and seconds of CPU that a refusal may take."""


def refused_soon(path, *words, load=read_checkpoint):
    """`refused` in a process that is ended beyond ROOM and SECONDS."""

    def work(say):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        say.write(refused(path, *words, load=load))

    child = Child(work)
    said, status = child.said.read(), child.wait()
    assert status == 0, said or f"ended by signal {-status}"


def archive(pickled, method=zipfile.ZIP_STORED):
    def save(path):
        with zipfile.ZipFile(path, "w", method) as file:
            file.writestr("a/data.pkl", pickled)
            file.writestr("a/version", b"3\n")

    return save


def torch_file(content, **settings):
    return lambda path: torch.save(content, path, **settings)


def bytes_of(content):
    return lambda path: path.write_bytes(content)


def holding_itself():
    held = {}
    held["generator"] = held
    return held


def nested(depth):
    return {"a": nested(depth - 1)} if depth else {"x": torch.ones(2)}


NESTED_NAME = b"\x80\x02})q\x00" + b"h\x00h\x00\x86q\x00" * 80 + b"K\x01s."
"""A dictionary whose one name is 80 pairs in each other: its hash is that of 2**80 values."""

HIDDEN = b"\x80\x02ccollections\nOrderedDict\n)R}(X\x05\x00\x00\x00itemsK\x05X\x04\x00\x00\x00keysK\x05ub."
"""A dictionary with attributes under the names of methods."""

MANY = b"\x8a\x06" + (10**12).to_bytes(6, "little")
OLD = {"_use_new_zipfile_serialization": False}
BOMBS = {
    "a dictionary that holds itself": (torch_file(holding_itself()), "more than 8 deep"),
    "ten dictionaries": (torch_file(nested(10)), "more than 8 deep"),
    "a bomb in an archive": (archive(bytes(50_000_000), zipfile.ZIP_DEFLATED), "is a compressed archive"),
    "one value as a terabyte": (torch_file({"a": torch.ones(1).expand(2**40)}), "larger than the file"),
    "one value as a terabyte, old": (torch_file({"a": torch.ones(1).expand(2**40)}, **OLD), "larger than the file"),
    "one tensor a thousand times": (torch_file(dict.fromkeys(map(str, range(1000)), torch.ones(9999))), "would have"),
    "a terabyte of bytes": (archive(b"\x80\x02cbuiltins\nbytearray\n" + MANY + b"\x85R."), "builtins.bytearray"),
    "a terabyte as a storage": (archive(b"\x80\x02ctorch.storage\nUntypedStorage\n" + MANY + b"\x85R."), "a call of"),
    "names in names": (archive(NESTED_NAME), "names that are no names"),
    "names in names, old": (bytes_of(NESTED_NAME), "names that are no names"),
    "instructions": (torch_file({"a": [0] * 1_100_000}), "more than 1000000 instructions"),
    "an object with attributes": (archive(b"\x80\x02ctorch\nSize\n)\x85R}b."), "an object with attributes"),
    "a hidden method": (archive(HIDDEN), "no weights, only nothing"),
    "a new object": (archive(b"\x80\x02ctorch\nFloatStorage\n)\x81."), "code or objects"),
    "sparse": (torch_file({"a": torch.eye(3).to_sparse()}), "_rebuild_sparse_tensor"),
    "on no device": (torch_file({"a": torch.ones(3, device="meta")}), "_rebuild_meta_tensor"),
    "a name of 513 letters": (torch_file({"a" * 513: torch.ones(3)}), "a name of 513 letters"),
    "the end is elsewhere": (lambda path: (archive(b"")(path), path.open("ab").write(b"x")), "not at its end"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_of_torch_that_claims_too_much_is_refused(name, tmp_path):
    """Seen to fail on each without its check: most ended by the limits."""
    save, words = BOMBS[name]
    save(tmp_path / "a.pt")
    refused_soon(tmp_path / "a.pt", words)


@pytest.mark.skipif(not hasattr(torch, "quantize_per_tensor"), reason="this torch makes no quantised tensors")
def test_torchs_own_quantised_tensors_are_refused(tmp_path):
    torch.save({"a": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, tmp_path / "a.pt")
    refused_soon(tmp_path / "a.pt", "_rebuild_qtensor")


@pytest.mark.parametrize("settings", [{}, OLD], ids=["archive", "old"])
def test_what_a_training_checkpoint_holds_beside_weights_is_read(settings, tmp_path):
    """A module's own dictionary, an optimizer, counters, dtypes, shapes, numbers of any size."""
    layer = torch.nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = OrderedDict(layer.state_dict())
    state.note = 5
    beside = {
        "optimizer": optimizer.state_dict(), "steps": Counter({3: 1}), "seed": 2**200, "minus": -3, "rate": 0.1,
        "kind": (torch.float16, torch.Size([1, 2]), torch.device("cpu"), None, True), "none": torch.empty(0, 4096),
        "rng": torch.get_rng_state(), "parameters": dict(layer.named_parameters()), "half": layer.weight.T,
    }  # fmt: skip
    torch.save({"generator": state, **beside}, tmp_path / "a.pt", **settings)
    tensors, _, container = open_weights(tmp_path / "a.pt")
    assert container == "torch: generator"
    same(tensors, dict(layer.state_dict()))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.safetensors")
    for load in (read_checkpoint, load_wan, load_vae, load_embeds):
        refused_soon(tmp_path / "a.safetensors", "is a pipe", load=load)


def config(**transformer):
    return json.dumps({"transformer": transformer})


CONFIGS = {
    "text": config(num_heads="2"),
    "a truth": config(num_heads=True), "none": config(num_heads=0),
    "infinite": config(num_heads=float("inf")),
    "a wide epsilon": config(eps=1e300), "no epsilon": config(eps="a"),
    "NaN": '{"transformer": {"eps": NaN}}',
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_metadata_that_no_model_has_are_refused(name, tmp_path):
    save_file(WEIGHTS, tmp_path / "a.safetensors", {"config": CONFIGS[name]})
    refused_soon(tmp_path / "a.safetensors", "sizes that no Wan model has")


NO_CONFIGS = {
    "words": "trained by me", "deep": "[" * 100_000, "a list": "[]", "a list in it": '{"transformer": []}',
    "digits": '{"transformer": {"num_heads": %s}}' % ("9" * 5000), "nothing": "",
}  # fmt: skip


@pytest.mark.parametrize("name", NO_CONFIGS)
def test_metadata_that_are_no_json_of_the_host_are_left_out_and_named(name, tmp_path):
    """So that the host, which parses them, does not fail either. Seen to fail with a ValueError of json."""
    told = {"config": NO_CONFIGS[name], "author": "somebody"}
    if "list" not in name:
        told["_quantization_metadata"] = NO_CONFIGS[name]
    save_file(WEIGHTS, tmp_path / "a.safetensors", told)
    model, found = load_wan(tmp_path / "a.safetensors")
    assert found.metadata == {"author": "somebody"}
    assert all(key in describe_wan(found)[0] for key in told if key != "author")
    same(model.state_dict(), WEIGHTS)


def sizes_of(weights, **changed):
    """The bytes of a file with these tensors, some of another shape, all zeros."""
    names = {key.replace(".", "__"): key for key in weights}
    shapes = {key: list(x.shape) for key, x in weights.items()} | {names[key]: x for key, x in changed.items()}
    layout = {key: (torch.float32, shape) for key, shape in shapes.items()}
    return header(layout, {}) + bytes(sum(4 * torch.Size(shape).numel() for shape in shapes.values()))


WIDE = {
    "no width": sizes_of(WEIGHTS, head__modulation=[1, 2, 0]),
    "no values, and wide": sizes_of(WEIGHTS, head__modulation=[0, 2, 2**40]),
    "odd times": sizes_of(WEIGHTS, time_embedding__0__weight=[48, 15]),
    "no output": sizes_of(WEIGHTS, head__head__weight=[3, 48]),
}


@pytest.mark.parametrize("name", WIDE)
def test_sizes_beyond_every_model_are_refused(name, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(WIDE[name])
    refused_soon(tmp_path / "a.safetensors", "sizes that no Wan model has")


def test_layers_are_counted_and_bounded(tmp_path):
    """Seen to fail with the largest number of a layer plus one for their count: it ran out of memory."""
    save_file(WEIGHTS | {"blocks.999999999.norm3.weight": torch.ones(48)}, tmp_path / "a.safetensors")
    refused_soon(tmp_path / "a.safetensors", "missing", "blocks.2.", load=load_wan)
    save_file(WEIGHTS | {f"blocks.{i}.norm3.weight": torch.ones(1) for i in range(2, 1001)}, tmp_path / "b.safetensors")
    refused_soon(tmp_path / "b.safetensors", "1001 layers, and at most 1000")


def test_a_vae_of_no_size_is_refused(tmp_path):
    for vae, key in ((WanVAE(dim=8), "conv2__weight"), (TAEHV(widths=(8, 8, 8, 8)), "decoder__8__weight")):
        (tmp_path / "a.safetensors").write_bytes(sizes_of(vae.state_dict(), **{key: [0, 2**40]}))
        refused_soon(tmp_path / "a.safetensors", "sizes that no VAE has", load=load_vae)


@pytest.mark.parametrize("dtype", [x for x in DTYPES if x.itemsize < 2 or not x.is_floating_point], ids=str)
def test_embeddings_are_numbers_that_were_not_packed(dtype, tmp_path):
    """Seen to fail with bytes that were read as embeddings."""
    (tmp_path / "a.safetensors").write_bytes(header({"a": (dtype, (2, 3))}, {}) + bytes(6 * dtype.itemsize))
    with pytest.raises(CheckpointError, match="embeddings are fp32, bf16 or fp16"):
        load_embeds(tmp_path / "a.safetensors")


def test_embeddings_without_channels_are_refused(tmp_path):
    save_file({"a": torch.ones(2, 0)}, tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", "[1, 2, 0]", load=load_embeds)
