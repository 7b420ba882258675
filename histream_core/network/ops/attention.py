"""The attention function, and the choice of the library that computes it.

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
    """Its attention function, which returns a tensor, or a tuple that begins with it."""
    install: str
    """The name to install it by."""
    oldest: tuple[int, int]
    """The first compute capability that it has kernels for."""
    newest: tuple[int, int] = (99, 0)
    """The last compute capability that it has kernels for."""
    heads_first: bool = False
    """Whether the function takes and returns [B, N, L, D] instead of [B, L, N, D]."""
    layout: str | None = None
    """Its word for [B, L, N, D], where it takes both layouts: the other one would have its output copied."""


PACKAGES = {
    "fa2": Package("flash_attn.flash_attn_interface", "flash_attn_func", "flash-attn", (8, 0)),
    "fa3": Package("flash_attn_interface", "flash_attn_func", "flash-attn-3", (9, 0), (9, 9)),
    "fa4": Package("flash_attn.cute", "flash_attn_func", "flash-attn-4", (9, 0)),
    "sage": Package("sageattention", "sageattn", "sageattention", (8, 0), layout="NHD"),
    "int8": Package("comfy_kitchen", "int8_attention", "comfy-kitchen", (7, 5), heads_first=True),
}
HALF_DTYPES = (torch.float16, torch.bfloat16)

HOPPER = (9, 0)
"""The compute capability of Hopper GPUs."""

CUDNN_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's own attention: exact, on every device."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def cudnn_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's own attention with its kernels tried in the order of their speed on a Hopper GPU."""
    with sdpa_kernel(CUDNN_FIRST, set_priority=True):
        return sdpa(q, k, v)


def choose_attention(
    name: str, device: torch.device, dtype: torch.dtype, *, host: tuple[Attention, str] | None = None
) -> tuple[Attention, str]:
    """Choose an attention by its name in ATTENTION for queries of `dtype` on a device; return it and a description.

    `host` is the attention of the host program, with its description; None without a host. Raises ValueError for an
    attention that is not installed or cannot run there.
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
    if dtype not in HALF_DTYPES:
        raise ValueError(f"attention {name} computes in bfloat16 or float16, not {_name(dtype)}: choose auto")
    return partial(packaged, package), name


def is_hopper(device: torch.device) -> bool:
    """Whether a device is a Hopper GPU, on which PyTorch's order of attention kernels is not that of their speed."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) == HOPPER


def check_installed(name: str) -> None:
    """Refuse an attention whose package is missing. Raises ValueError that says what to install."""
    package = PACKAGES.get(name)
    if package and not is_installed(package):
        raise ValueError(f"attention {name} is not installed: install {package.install} for this torch, or choose auto")


def is_installed(package: Package) -> bool:
    """Whether the package can be found; only packages above the module are imported for that."""
    try:
        return find_spec(package.module) is not None
    except ImportError:  # the package above the module is missing or broken
        return False


def packaged(package: Package, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute attention by a package, which is imported on first use."""
    call = getattr(import_module(package.module), package.function)
    if package.heads_first:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    y = call(q, k, v, **({"tensor_layout": package.layout} if package.layout else {}))
    y = y[0] if isinstance(y, tuple) else y
    return y.transpose(1, 2) if package.heads_first else y


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
