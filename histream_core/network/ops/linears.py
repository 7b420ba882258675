"""The matrix products of a layer in FP8, whatever module holds the weights.

A scale for each token and for each output channel. Weights are rounded anew in every call, from what the module that
is called hands to PyTorch: adapters and offloaded weights are in it, and nothing is kept. At 1080p a layer has 24,480
tokens to 1,536 channels, so that takes less than a hundredth of the layer's time.

M tokens, K input channels, N output channels.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .fp8 import FP8, FP8_MAX

RunBlock = Callable[..., Tensor]
"""The forward of a layer, as in `layer.RunBlock`: whatever it computes, its matrix products are replaced."""

LEAST_POWER = -14
"""Of two in a scale: one over it must fit into float16."""

MULTIPLE = 16
"""Sides of a product that tensor cores take."""

ADA = (8, 9)
"""The oldest compute capability with FP8 products."""


def choose_linears(name: str, device: torch.device, run: RunBlock) -> tuple[RunBlock, str]:
    """The forward of a layer with its matrix products as `name` says, and in words how they are computed.

    Raises ValueError for a device without FP8.
    """
    if name == "plain":
        return run, name
    if device.type == "mps" or (device.type == "cuda" and torch.cuda.get_device_capability(device) < ADA):
        raise ValueError(f"linears {name} needs a CUDA device of compute capability 8.9 or more: choose plain")
    return in_fp8(run), name if device.type == "cuda" else f"{name}, emulated"


@cache  # what is compiled is known by its function, which has to be the same in the next run
def in_fp8(run: RunBlock) -> RunBlock:
    """The same forward of a layer, its matrix products in FP8."""

    def run_in_fp8(*inputs) -> Tensor:
        with Fp8Products():
            return run(*inputs)

    return run_in_fp8


class Fp8Products(TorchFunctionMode):
    """While it is on, `linear` of plain weights is `fp8_linear`; weights that are quantised already are left alone."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is nn.functional.linear and type(args[1]) in (Tensor, nn.Parameter):
            return fp8_linear(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def fp8_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x` [..., K] times `weight` [N, K] plus `bias` [N], both rounded to FP8: [..., N] in the dtype of `x`.

    Sides that are no multiples of 16 are computed as they are.
    """
    if weight.shape[0] % MULTIPLE or weight.shape[1] % MULTIPLE:
        return nn.functional.linear(x, weight, bias)
    rows, x_scale = to_fp8(x.flatten(0, -2))
    columns, weight_scale = to_fp8(weight)
    multiply = on_tensor_cores if x.is_cuda else emulated
    y = multiply(rows, columns, x_scale, weight_scale).to(x.dtype)
    y = y if bias is None else y + bias
    return torch.unflatten(y, 0, x.shape[:-1])


def to_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [M, K] as FP8 and the scale of each, [M, 1] in float32, that gives them back.

    Scales are powers of two, so that scaling itself rounds nothing, in whatever dtype `x` has.
    """
    largest = torch.linalg.vector_norm(x, torch.inf, dim=1, keepdim=True).float()
    power = torch.frexp(largest / FP8_MAX).exponent.clamp(min=LEAST_POWER).float()
    return (x * torch.exp2(-power).to(x.dtype)).to(FP8), torch.exp2(power)


def on_tensor_cores(x: Tensor, weight: Tensor, x_scale: Tensor, weight_scale: Tensor) -> Tensor:
    """The product [M, N] in bfloat16 of FP8 rows [M, K] and [N, K] with their scales."""
    return torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage]
        x,
        weight.t(),
        scale_a=x_scale,
        scale_b=weight_scale.t(),
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )


def emulated(x: Tensor, weight: Tensor, x_scale: Tensor, weight_scale: Tensor) -> Tensor:
    """The same in float32, for devices without FP8 products: only the sums are rounded, each at its end."""
    return (x.float() @ weight.float().t()) * x_scale * weight_scale.t()
