"""The attention call, and which library computes it.

B batch, L tokens, N heads, D head dim.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries [B, L, N, D] over keys and values [B, K, N, D] with the softmax scale 1 / sqrt(D): gives [B, L, N, D]."""


@dataclass(frozen=True)
class Package:
    """A library of attention kernels for CUDA devices."""

    module: str
    function: str
    """Of [B, L, N, D], or of [B, N, L, D] where `heads_first`; gives the same, alone or first in a tuple."""
    install: str
    """What to install."""
    oldest: tuple[int, int]
    newest: tuple[int, int] = (99, 0)
    """Compute capabilities that it has kernels for."""
    heads_first: bool = False


PACKAGES = {
    "fa3": Package("flash_attn_interface", "flash_attn_func", "flash-attn-3", (9, 0), (9, 9)),
    "fa4": Package("flash_attn.cute", "flash_attn_func", "flash-attn-4", (9, 0)),
    "sage": Package("sageattention", "sageattn", "sageattention", (8, 0), heads_first=True),
    "int8": Package("comfy_kitchen", "int8_attention", "comfy-kitchen", (7, 5), heads_first=True),
}
HALVES = (torch.float16, torch.bfloat16)

HOPPER = (9, 0)
CUDNN_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's own attention; exact, and on every device."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def cudnn_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same, with the kernels in the order of their speed on a Hopper GPU, which is not PyTorch's order."""
    with sdpa_kernel(CUDNN_FIRST, set_priority=True):
        return sdpa(q, k, v)


def choose_attention(
    name: str, device: torch.device, dtype: torch.dtype, *, host: tuple[Attention, str] | None = None
) -> tuple[Attention, str]:
    """The attention of that name for queries of `dtype` on a device, and in words what it is.

    `host` is what comes back for the own one of the program that this runs in, if it has one. Raises ValueError for
    what is not installed or cannot run there.
    """
    if name == "host" or (name == "auto" and host):
        if host is None:
            raise ValueError("attention host is ComfyUI's own: outside of it choose auto or sdpa")
        return host
    if name in ("auto", "sdpa"):
        return (cudnn_first, "sdpa, cuDNN first") if is_hopper(device) else (sdpa, "sdpa")
    check_installed(name)
    package = PACKAGES[name]
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    if not package.oldest <= capability <= package.newest:
        raise ValueError(f"attention {name} has no kernels for this device: choose auto")
    if dtype not in HALVES:
        raise ValueError(f"attention {name} computes in bfloat16 or float16, not {_words(dtype)}: choose auto")
    return partial(packaged, package), name


def is_hopper(device: torch.device) -> bool:
    """Whether PyTorch's order of attention kernels is not the order of their speed there."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) == HOPPER


def check_installed(name: str) -> None:
    """Refuse an attention whose package is not there. Raises ValueError that says what to install."""
    package = PACKAGES.get(name)
    if package and not is_installed(package):
        raise ValueError(f"attention {name} is not installed: install {package.install} for this torch, or choose auto")


def is_installed(package: Package) -> bool:
    """Whether the package can be found; nothing is imported but what it lies in."""
    try:
        return find_spec(package.module) is not None
    except ImportError:  # what it lies in is not there either, or is broken
        return False


def packaged(package: Package, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention by a package, which is imported on first use."""
    call = getattr(import_module(package.module), package.function)
    if package.heads_first:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    y = call(q, k, v)
    y = y[0] if isinstance(y, tuple) else y
    return y.transpose(1, 2) if package.heads_first else y


def _words(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
