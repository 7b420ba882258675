"""Short hashes of what a run depends on, to be compared when it continues later."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ... import __version__
from ...files.reading import open_file
from ...files.tensors import tensor_bytes

SAMPLE = 4096
"""Number of values of each tensor that are hashed; a smaller tensor is hashed whole."""

PIECE = 2**20
"""Number of bytes of a file that are read at once."""


def hash_tensor(tensor: Tensor) -> str:
    """The SHA-256 of all bytes of a tensor."""
    return hashlib.sha256(tensor_bytes(tensor)).hexdigest()


def hash_bytes(data: bytes) -> str:
    """The SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, which may be larger than memory. Raises OSError for what is no ordinary file."""
    digest = hashlib.sha256()
    with open_file(path) as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def fingerprint_weights(weights: nn.Module | Iterable[tuple[str, Tensor]]) -> str:
    """A hash of names, types, shapes and at most 4096 evenly spaced values of each tensor.

    Hashing all of 26 GB would take a minute. Another training step, adapter, precision or file changes almost every
    value of the tensors that it touches, so a sample detects it; a deliberate change of values between the samples is
    not detected.
    """
    named = weights.state_dict().items() if isinstance(weights, nn.Module) else weights
    total = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda item: item[0]):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        flat = tensor.detach().reshape(-1)
        total.update(tensor_bytes(flat[:: max(1, -(-flat.numel() // SAMPLE))]))
    return total.hexdigest()


def environment(device: torch.device | str = "cpu", in_use: Mapping[str, str] | None = None) -> dict[str, str]:
    """Other conditions that decide the last bits of numbers: versions, device, number of threads, kernels.

    `in_use` are the kernels, from `Kernels.in_use`.
    """
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = {"threads": str(torch.get_num_threads())} if device.type == "cpu" else {}
    return {"histream": __version__, "torch": torch.__version__, "device": name} | threads | dict(in_use or {})
