"""Decoding beside sampling: while the next chunk is made, this one is decoded on a stream of its own.

The two take turns on one GPU that is full; they run side by side where one of them leaves it idle, or on two devices.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor


def work_ahead(items: Iterable[Tensor], work: Callable[[Tensor], Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield `work(item)` of every item, in order; each but the first is worked on while the next item is made.

    The first comes out at once, so that there is something to see. `work` runs in one thread, on a CUDA device on a
    stream of its own; it takes items from any device. An error in it is raised where its result would come.
    """
    beside = torch.cuda.Stream(device) if device.type == "cuda" else None
    waiting: Future | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as thread:
        for index, item in enumerate(items):
            if waiting is not None:
                yield _taken(waiting.result(), beside)
            ready = torch.cuda.current_stream(item.device).record_event() if item.is_cuda else None
            waiting = thread.submit(_work, work, item, ready, beside)
            if index == 0:
                yield _taken(waiting.result(), beside)
                waiting = None
        if waiting is not None:
            yield _taken(waiting.result(), beside)


def _work(
    work: Callable[[Tensor], Tensor],
    item: Tensor,
    ready: torch.cuda.Event | None,
    beside: torch.cuda.Stream | None,
) -> tuple[Tensor, torch.cuda.Event | None]:
    """The result, and when it is there."""
    if beside is None:
        if ready is not None:
            ready.synchronize()
        return work(item), None
    with torch.cuda.stream(beside):
        if ready is not None:
            beside.wait_event(ready)
            if item.device == beside.device:
                item.record_stream(beside)
        return work(item), beside.record_event()


def _taken(done: tuple[Tensor, torch.cuda.Event | None], beside: torch.cuda.Stream | None) -> Tensor:
    """The result, for whoever computes on the stream that is current now."""
    result, event = done
    if event is not None:
        current = torch.cuda.current_stream(beside.device)
        current.wait_event(event)
        result.record_stream(current)
    return result
