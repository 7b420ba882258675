"""Decoding beside sampling, on the CPU, where both are threads."""

import contextlib
import threading

import pytest
import torch

from histream_core.vae.ahead import work_ahead

CPU = torch.device("cpu")


def test_results_come_in_order_and_the_next_item_is_made_meanwhile():
    """Seen to fail when each result is waited for before the next item is asked for, and when the first one waits."""
    made, next_is_made = [], [threading.Event() for _ in range(6)]

    def items():
        for n in range(5):
            made.append(n)
            next_is_made[n].set()
            yield torch.tensor(n)

    def work(item):
        n = int(item)
        if 0 < n < 4:
            assert next_is_made[n + 1].wait(timeout=60)  # never, if the item behind is not made before this is done
        return item * 10

    found = []
    for result in work_ahead(items(), work, CPU):
        if not found:
            assert made == [0]
        found.append(int(result))
    assert found == [0, 10, 20, 30, 40]


def test_an_error_comes_out_where_the_result_would_and_items_can_end_early():
    def work(item):
        if int(item) == 2:
            raise ValueError("no")
        return item

    results = work_ahead(iter(torch.arange(5)), work, CPU)
    assert [int(next(results)) for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="no"):
        next(results)
    stopped = work_ahead(iter(torch.arange(5)), lambda item: item, CPU)
    assert int(next(stopped)) == 0
    stopped.close()
    assert not list(work_ahead(iter(()), work, CPU))


class Item:
    """A stand-in for a tensor on one GPU, with copies on others; `log` is told what is queued, and where."""

    is_cuda = True

    def __init__(self, log, number, device="cuda:0"):
        self.log, self.number, self.device = log, number, torch.device(device)

    def to(self, device, non_blocking):
        assert non_blocking
        if device != self.device:
            self.log.append(f"copy {self.number}")
        return Item(self.log, self.number, device)

    def record_stream(self, stream):
        assert stream.device == self.device


class Stream:
    """A stand-in for a CUDA stream, which writes down the events that are recorded."""

    def __init__(self, device, log):
        self.device, self.log = torch.device(device), log

    def record_event(self):
        self.log.append(f"event on {self.device}")

    def wait_event(self, _event):
        pass


def test_a_chunk_is_copied_to_another_gpu_before_the_next_one_is_queued(monkeypatch):
    """Seen to fail with the copy left to the thread: it waits for the kernels of the next chunk."""
    log = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(device, []))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(device, log))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())

    def items():
        for number in range(3):
            log.append(f"make {number}")
            yield Item(log, number)

    found = list(
        work_ahead(items(), lambda item: item.to(torch.device("cuda:1"), non_blocking=True), torch.device("cuda:1"))
    )
    assert [item.number for item in found] == [0, 1, 2]
    assert log == [word for n in range(3) for word in (f"make {n}", f"copy {n}", "event on cuda:1")]
