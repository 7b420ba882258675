"""From the CPU to where the work is done, without making the CPU wait."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

NON_BLOCKING = ("cuda", "meta")
"""Devices that may take a copy when they get there; meta stands for them where waits are counted."""


def upload(x: Tensor, device: torch.device | str | None) -> Tensor:
    """`x` on `device` (None: as it is). A CUDA device takes it from pinned memory when it gets there, the CPU goes on.

    A plain copy would wait for everything that the device still has to do, once for each tensor.
    """
    if device is None:
        return x
    device = torch.device(device)
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=device.type in NON_BLOCKING)


def download(x: Tensor) -> Tensor:
    """`x` in main memory, pinned where a CUDA device copies it when it gets there; read it only behind that."""
    if x.device.type != "cuda":
        return x.cpu()
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)


class Beside:
    """Copies that run beside what a CUDA device computes, one after the other; elsewhere they simply run."""

    def __init__(self, device: torch.device | None):
        """`device` None: on no stream of their own."""
        self._device = device
        self._stream = torch.cuda.Stream(device) if device is not None and device.type == "cuda" else None

    def use(self, tensors: Iterable[Tensor]) -> None:
        """Say which tensors are copied from or to, so that their memory is not given away before that is done."""
        for x in tensors:
            if self._stream:
                x.record_stream(self._stream)

    def run(self, copies: Callable[[], None]) -> torch.cuda.Event | None:
        """Begin `copies` as soon as all that is asked for is computed; what comes back is for `wait`."""
        if not self._stream:
            return copies()
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            copies()
        return self._stream.record_event()

    def wait(self, copied: torch.cuda.Event | None) -> None:
        """Compute nothing more before these copies are done. The CPU goes on."""
        if self._stream:
            torch.cuda.current_stream(self._device).wait_event(copied)

    def wait_for_all(self) -> None:
        """The same, for all copies so far."""
        if self._stream:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def synchronize(self) -> None:
        """Make the CPU wait until the device is done, with copies and with all else."""
        if self._stream:
            torch.cuda.synchronize(self._device)
