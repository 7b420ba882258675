"""Safetensors files: readable by the library, and the same bytes for the same content."""

import json
import os

import pytest
import safetensors.torch
import torch

from histream_core.files.tensors import MAX_TENSORS, TensorFileError, aligned, header, pack, read_safetensors

METADATA = {"recipe": "4ff", "format": "3", "text": "ä"}


def by_the_library(tensors, metadata):
    """The bytes that the library writes, with the metadata first and in its own order."""
    data = safetensors.torch.save(tensors)
    start = 8 + int.from_bytes(data[:8], "little")
    text = json.dumps({"__metadata__": metadata} | json.loads(data[8:start])).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[start:]


@pytest.mark.parametrize("metadata", [METADATA, {}], ids=["metadata", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool], ids=str)
def test_a_file_is_the_librarys_but_for_the_order_of_its_metadata(dtype, metadata):
    """Seen to fail with names in the order of the dictionary."""
    make = torch.Generator().manual_seed(0)
    tensors = {
        name: (torch.rand(shape, generator=make) * 9).to(dtype)
        for name, shape in (("noisy", (1, 2, 3)), ("latent", (5,)), ("a", ()), ("none", (0, 4)))
    }
    assert pack(tensors, metadata) == by_the_library(tensors, metadata)


def test_wide_elements_come_first_and_all_are_read_back(tmp_path):
    """Seen to fail with offsets counted in elements."""
    tensors = {
        "a": torch.arange(3, dtype=torch.uint8),
        "b": torch.rand(5),
        "c": torch.rand(2, 2).half(),
        "d": torch.arange(2),
        "e": torch.rand(3).to(torch.float8_e4m3fn),
    }
    (tmp_path / "a.safetensors").write_bytes(pack(tensors, METADATA))
    found, metadata = read_safetensors(tmp_path / "a.safetensors")
    assert metadata == METADATA
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name].view(torch.uint8), x.view(torch.uint8)) for name, x in tensors.items())
    layout = aligned({name: (x.dtype, x.shape) for name, x in tensors.items()})
    assert list(layout) == ["d", "b", "c", "a", "e"]


def test_a_header_keeps_the_order_that_it_is_given():
    layout = {"video": (torch.float32, (1, 2)), "format": (torch.float32, (0,))}
    start = header(layout, {})
    assert len(start) % 8 == 0 and int.from_bytes(start[:8], "little") == len(start) - 8
    assert json.loads(start[8:]) == {
        "__metadata__": {},
        "video": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
        "format": {"dtype": "F32", "shape": [0], "data_offsets": [8, 8]},
    }


def with_header(text, data=bytes(64)):
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


TWICE = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}'
HOSTILE = {
    "cut": (b"\x01", "would have 1 bytes"),
    "a header beyond the file": (b"\xff" * 4 + bytes(4) + b"{}", "would have 4294967295 bytes"),
    "a header of 11 MB": (with_header(b"{" + b" " * 11_000_000 + b"}"), "at most 10000000 are read"),
    "no JSON": (with_header(b"{]"), "truncated or damaged"),
    "no text": (with_header(b"{\xff}"), "truncated or damaged"),
    "a list": (with_header([]), "no JSON object"),
    "deep": (with_header(b"[" * 100_000), "too deep"),
    "a name twice": (with_header(TWICE), "a name twice"),
    "too many": (
        with_header(dict.fromkeys(map(str, range(MAX_TENSORS + 1)))),
        "holds 20001 tensors, and at most 20000",
    ),
    "metadata of numbers": (with_header({"__metadata__": {"a": 1}}), "metadata are no texts"),
    "metadata that are a list": (with_header({"__metadata__": []}), "metadata are no texts"),
    "no entry": (with_header({"a": 3}), "entry of 'a' is none"),
    "a negative length": (with_header(entry(shape=[-2, -1])), "entry of 'a' is none"),
    "a length that is a truth": (with_header(entry(shape=[True, 2])), "entry of 'a' is none"),
    "a length without end": (with_header(entry(shape=[10**30, 0], offsets=(0, 0))), "entry of 'a' is none"),
    "fifty axes": (with_header(entry(shape=[1] * 49 + [2])), "entry of 'a' is none"),
    "nothing, and wide": (with_header(entry(shape=[0, 2**62], offsets=(0, 0))), "would have the shape"),
    "32 bits without a sign": (with_header(entry("U32")), "holds 'a' as U32: give a file with F64"),
    "4 bits": (with_header(entry("F4", shape=[4])), "holds 'a' as F4: give a file with F64"),
    "another size": (with_header(entry(offsets=(0, 12))), "another size than its shape"),
    "beyond the end": (with_header(entry(offsets=(60, 68))), "lies beyond its end"),
    "one offset": (with_header(entry(offsets=[0])), "lies beyond its end"),
    "overlapping": (with_header(entry() | {"b": entry(offsets=(4, 12))["a"]}), "tensors overlap"),
    "a gap": (with_header(entry(offsets=(8, 16))), "truncated or damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_strangers_file_is_refused_before_a_tensor_is_made(name, tmp_path):
    """Seen to fail on each bound without its line."""
    content, words = HOSTILE[name]
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(TensorFileError, match=words) as error:
        read_safetensors(tmp_path / "a.safetensors")
    assert str(error.value).startswith(str(tmp_path / "a.safetensors")) and "\n" not in str(error.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
def test_what_is_no_file_of_tensors_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(OSError, match="is a pipe"):
        read_safetensors(tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError):
        read_safetensors(tmp_path / "none.safetensors")
