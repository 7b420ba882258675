"""A training run in several processes that `torchrun` started: each draws clips of its own, gradients are averaged."""

import atexit
import importlib
import os
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, distributed


def rank() -> int:
    """Number of this process, 0 for the one that writes."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def join() -> None:
    """Join the other processes of the run, until this one ends."""
    if count() > 1 and not distributed.is_initialized():
        # its defaults would keep the group alive if it were imported later; then the group's threads can meet an
        # interpreter that has ended, and abort
        importlib.import_module("torch.distributed.nn")
        distributed.init_process_group("gloo")
        atexit.register(distributed.destroy_process_group)


def wait() -> None:
    """Return when all processes are here."""
    if count() > 1:
        distributed.barrier()


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over the processes."""
    if count() == 1:
        return
    parameters = list(parameters)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(together)
    together /= count()
    for p, gradient in zip(parameters, together.split([p.numel() for p in parameters]), strict=True):
        p.grad = gradient.view_as(p)


def in_parts(work: Callable[[Tensor], Tensor], stack: Tensor) -> Tensor:
    """`work` of a stack [K, ...] whose members do not meet: every process does a part, and all have the whole."""
    if count() == 1 or len(stack) < count():
        return work(stack)
    parts = stack.tensor_split(count())
    done = [work(part) if mine == rank() else torch.empty_like(part) for mine, part in enumerate(parts)]
    for source, part in enumerate(done):
        distributed.broadcast(part, source)
    return torch.cat(done)


def first_value(number: float) -> float:
    """The number of process 0, so that all decide alike."""
    if count() == 1:
        return number
    found = torch.tensor(number, dtype=torch.float64)
    distributed.broadcast(found, 0)
    return float(found)


def gather(value: object) -> list[object]:
    """The values of all processes in order."""
    found = [value] * count()
    if count() > 1:
        distributed.all_gather_object(found, value)
    return found
