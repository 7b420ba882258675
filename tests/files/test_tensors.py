"""Safetensors files: readable by the library, and the same bytes for the same content."""

import json

import pytest
import safetensors.torch
import torch

from histream_core.files.tensors import aligned, header, pack

METADATA = {"recipe": "4ff", "format": "3", "text": "ä"}


def by_the_library(tensors, metadata):
    """What the library writes, with the metadata first and in its own order."""
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
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == METADATA
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
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
