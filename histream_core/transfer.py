"""From the CPU to where the work is done, without making the CPU wait."""

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
