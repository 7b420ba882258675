"""Decoding in parallel to sampling: one chunk is decoded on a CUDA stream of its own while the next one is sampled.

On one GPU that is fully used the two take turns; they overlap where one of them leaves it idle, and on two devices.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from ..network.transfer import download
from .decode import Decoder, Later, is_elsewhere

Event = Any
"""A CUDA event, or None on a CPU."""


def decode_ahead(
    chunks: Iterable[Tensor], ask: Callable[[Tensor], Later], decoder: Decoder, device: torch.device
) -> Iterator[Tensor]:
    """Yield the frames of each chunk, decoded while the next one is made: in a thread, or where the decoder is.

    What `ask` returns waits for them.
    """
    if is_elsewhere(decoder):
        return ask_ahead(chunks, ask)
    return work_ahead(chunks, lambda chunk: ask(chunk)(), device)


def work_ahead(items: Iterable[Tensor], work: Callable[[Tensor], Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield `work(item)` for every item, in order; each but the first is processed while the next item is made.

    The first result is yielded at once, so that there is something to see. `work` runs in one thread, on a CUDA device
    on a stream of its own; items may lie on any device. An exception in it is raised where its result would be yielded.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as thread:

        def ask(item: Tensor) -> Later:
            item, made = _bring(item, device)
            waiting = thread.submit(_work, work, item, made, stream)
            return lambda: _collect(*waiting.result())

        yield from ask_ahead(items, ask)


def ask_ahead(items: Iterable[Tensor], ask: Callable[[Tensor], Later]) -> Iterator[Tensor]:
    """Yield `ask(item)()` for every item, in order; each but the first is waited for when the next item is made."""
    waiting: Later | None = None
    for index, item in enumerate(items):
        if waiting is not None:
            yield waiting()
        waiting = ask(item)
        if index == 0:
            yield waiting()
            waiting = None
    if waiting is not None:
        yield waiting()


def _bring(item: Tensor, device: torch.device) -> tuple[Tensor, Event]:
    """The item on the device of the work, and the event at which it is there.

    Copies are queued here: one that the work asks for would wait for the kernels of the next item, queued meanwhile.
    """
    if not item.is_cuda:
        return item, None
    here = download(item) if device.type == "cpu" else item.to(device, non_blocking=True)
    return here, torch.cuda.current_stream(here.device if here.is_cuda else item.device).record_event()


def _work(
    work: Callable[[Tensor], Tensor], item: Tensor, made: Event, stream: torch.cuda.Stream | None
) -> tuple[Tensor, Event]:
    """The result for an item that is complete at the event `made`, and the event at which the result is complete."""
    if stream is None:
        if made is not None:
            made.synchronize()
        return work(item), None
    with torch.cuda.stream(stream):
        if made is not None:
            stream.wait_event(made)
            item.record_stream(stream)
        return work(item), stream.record_event()


def _collect(result: Tensor, complete: Event) -> Tensor:
    """Make the current stream wait for a result."""
    if complete is not None:
        current = torch.cuda.current_stream(result.device)
        current.wait_event(complete)
        result.record_stream(current)
    return result
