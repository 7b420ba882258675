"""Copies between the CPU and a device that do not make the CPU wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

NON_BLOCKING = ("cuda", "meta")
"""Devices that copies are queued on; meta is among them because waits are counted on it."""


def upload(x: Tensor, device: torch.device | str | None) -> Tensor:
    """Copy `x` to `device`; None: return it as it is.

    For a CUDA device the copy is queued, from pinned memory. A plain copy would make the CPU wait for all work that is
    queued on the device, once for each tensor.
    """
    if device is None:
        return x
    device = torch.device(device)
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=device.type in NON_BLOCKING)


def download(x: Tensor) -> Tensor:
    """Copy `x` to main memory. From a CUDA device the copy is queued: wait for the device before reading the result."""
    if x.device.type != "cuda":
        return x.cpu()
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)


class CopyStream:
    """Copies that a CUDA device makes in order on a stream of their own, beside its computations.

    On other devices the copies are made at once.
    """

    def __init__(self, device: torch.device | None):
        """`device` None: make no stream, copy at once."""
        self._device = device
        self._stream = torch.cuda.Stream(device) if device is not None and device.type == "cuda" else None

    def use(self, tensors: Iterable[Tensor]) -> None:
        """Register tensors that are copied from or to: their memory is not reused before the copies are done."""
        for x in tensors:
            if self._stream:
                x.record_stream(self._stream)

    def run(self, copies: Callable[[], None]) -> torch.Event | None:
        """Make `copies` once all work that is queued on the device is done; return the event for `wait`."""
        if not self._stream:
            copies()
            return None
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            copies()
        return self._stream.record_event()

    def wait(self, copied: torch.Event | None) -> None:
        """Make the device compute nothing more before these copies are done. The CPU does not wait."""
        if self._stream and copied is not None:
            torch.cuda.current_stream(self._device).wait_event(copied)

    def wait_for_all(self) -> None:
        """Make the device compute nothing more before all copies so far are done. The CPU does not wait."""
        if self._stream:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def synchronize(self) -> None:
        """Make the CPU wait until the device has done all copies and all other work."""
        if self._stream:
            torch.cuda.synchronize(self._device)
