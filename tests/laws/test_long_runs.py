"""A long run holds as much memory as a short one; `long_run` in lab/bench/meta.py counts the operations."""

import gc

import pytest
import tiny
import torch


def alive() -> list[torch.Tensor]:
    """All tensors on the CPU that this process holds.

    A compiler's tensors (FakeTensor and the like), which an earlier test may leave, hold no bytes.
    """
    gc.collect()
    kinds = (torch.Tensor, torch.nn.Parameter)
    tensors = (x for x in gc.get_objects() if type(x) in kinds and x.device.type == "cpu")
    return [x for x in tensors if x.layout is torch.strided]


def bytes_of(tensors: list[torch.Tensor]) -> int:
    """Bytes of these tensors, each storage once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def held(mode: str, num_chunks: int) -> int:
    """The most bytes that a run holds when it hands over a chunk."""
    model, before = tiny.wan(), alive()  # held on to: those of earlier tests would go meanwhile
    chunks = tiny.stream(tiny.plan(mode, num_frames=3 * num_chunks, width=32, height=32), model=model).chunks()
    return max(bytes_of(alive()) - bytes_of(before) for index, _ in enumerate(chunks) if index % 10 == 9)


def test_thirty_chunks_hold_no_more_than_ten():
    """Seen to fail with the `history` mode, which the next test holds on to."""
    assert 0 < held("histream-plus", 30) <= held("histream-plus", 10)


@pytest.mark.slow
def test_the_whole_history_fails_the_same_check():
    assert held("history", 30) > 2.5 * held("history", 10)
