"""The ranks of a gang as tensors reach them: a process group of torch.distributed that is nobody's default group.

A host program may have a default group of its own, or none; this one is told to nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor

dist: Any = torch.distributed
"""Its classes are public, and not all of them are declared."""

Work = Any
"""Something that is sent or received; `wait_for` waits for it."""

HERE = "127.0.0.1"

PATIENCE = timedelta(minutes=30)
"""How long a rank waits for a tensor. Whoever watches the processes sees a dead or hung one long before."""


class LostRankError(ConnectionError):
    """A rank does not answer any more: its process ended, or its connection did."""


class EndedRankError(LostRankError):
    """The process of a rank has ended, which is why others lose it."""


def open_store() -> Any:
    """A new store on this computer, at which ranks meet; `port` says where it is."""
    return dist.TCPStore(HERE, 0, is_master=True, wait_for_workers=False, use_libuv=False)


def meet(port: int) -> Any:
    """The store of another process on this computer."""
    return dist.TCPStore(HERE, port, is_master=False, use_libuv=False)


class Link:
    """The connections of one rank to all others."""

    def __init__(self, group: Any, rank: int, size: int):
        self._open: Any = group
        self._is_nccl = type(group).__name__ == "ProcessGroupNCCL"
        self.rank, self.size = rank, size

    @classmethod
    def join(cls, store: Any, rank: int, size: int, device: torch.device) -> Link:
        """Meet the other ranks at a store: over NCCL for CUDA devices, else over gloo. Raises LostRankError."""
        with told_as_loss(f"rank {rank} of {size} did not meet the others"):
            return cls(_group(store, rank, size, device), rank, size)

    def broadcast(self, x: Tensor, root: int = 0) -> Tensor:
        """Give all ranks what `root` has in `x`, which is contiguous. Raises LostRankError."""
        options = dist.BroadcastOptions()
        options.rootRank, options.rootTensor = root, 0
        with told_as_loss():
            self._group.broadcast([_bytes(x)], options).wait()
        return x

    def swap(self, pieces: Sequence[Tensor], sizes: Sequence[int]) -> Sequence[Tensor]:
        """Send a flat piece to each rank, and receive one of so many elements from each. Raises LostRankError."""
        given = torch.cat(list(pieces))
        taken = given.new_empty(sum(sizes))
        counts = [*sizes], [piece.numel() for piece in pieces]
        with told_as_loss():
            self._group.alltoall_base(taken, given, *counts, dist.AllToAllOptions()).wait()
        return taken.split([*sizes])

    def send(self, x: Tensor, to: int, tag: int = 0) -> Work:
        """Begin to send `x`, which must stay as it is until the work is waited for. Raises LostRankError."""
        with told_as_loss():
            return self._group.send([_bytes(x)], to, tag)

    def receive(self, x: Tensor, source: int, tag: int = 0) -> Tensor:
        """Fill `x` with what a rank sends. Raises LostRankError."""
        wait_for(self.expect(x, source, tag))
        return x

    def expect(self, x: Tensor, source: int, tag: int = 0) -> Work:
        """Begin to receive into `x` what a rank sends; wait for the work with `wait_for`. Raises LostRankError."""
        with told_as_loss():
            return self._group.recv([_bytes(x)], source, tag)

    def close(self) -> None:
        """Leave: whoever waits for this rank is told that it is lost."""
        group, self._open = self._open, None
        if group is not None:
            # NCCL's shutdown waits for its kernels, which wait for ranks that are gone; gloo's connections end with it.
            (group.abort if self._is_nccl else group.shutdown)()

    @property
    def _group(self) -> Any:
        if self._open is None:
            raise LostRankError("this rank has left")
        return self._open


def wait_for(work: Work) -> None:
    """Wait until tensors have arrived, or are on their way where a device does it. Raises LostRankError."""
    with told_as_loss():
        work.wait()


@contextmanager
def told_as_loss(what: str = "the connection to another rank broke") -> Iterator[None]:
    """Raises LostRankError in the place of an error of a process group, which is its cause."""
    try:
        yield
    except RuntimeError as error:
        raise LostRankError(what) from error


def _group(store: Any, rank: int, size: int, device: torch.device) -> Any:
    """A process group whose connections do not leave this computer."""
    if device.type == "cuda":
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = PATIENCE
        return dist.ProcessGroupNCCL(store, rank, size, options)
    options = dist.ProcessGroupGloo._Options()
    options._timeout, options._devices = PATIENCE, [dist.ProcessGroupGloo.create_device(hostname=HERE)]
    return dist.ProcessGroupGloo(store, rank, size, options)


def _bytes(x: Tensor) -> Tensor:
    """A tensor's memory as bytes, so that every dtype travels."""
    return x.view(-1).view(torch.uint8)
