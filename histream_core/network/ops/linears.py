"""The matrix products of a layer in FP8, whichever module holds the weights.

There is one scale for each token and one for each output channel. Weights are rounded again in every call, from the
tensor that the module hands to PyTorch: adapters and offloaded weights are included in it, and nothing is stored. At
1080p a layer has 24,480 tokens and 1,536 channels, so the rounding takes less than a hundredth of the layer's time.

M tokens, K input channels, N output channels.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .fp8 import FP8, FP8_MAX

RunBlock = Callable[..., Tensor]
"""The forward of a layer, as in `layer.RunBlock`; its arguments do not matter here."""

MIN_POWER = -14
"""The smallest exponent of a scale 2**n: its inverse must fit into float16."""

SIDE_MULTIPLE = 16
"""Tensor cores take matrices whose sides are multiples of this."""

FIRST_CAPABILITY = (8, 9)
"""The first compute capability with FP8 products."""


def choose_linears(name: str, device: torch.device, run: RunBlock) -> tuple[RunBlock, str]:
    """Return the forward of a layer, `run`, with matrix products of that name in LINEARS, and a description of them.

    Raises ValueError for a device without FP8.
    """
    if name == "plain":
        return run, name
    if device.type == "mps" or (device.type == "cuda" and torch.cuda.get_device_capability(device) < FIRST_CAPABILITY):
        raise ValueError(f"linears {name} needs a CUDA device of compute capability 8.9 or more: choose plain")
    return in_fp8(run), name if device.type == "cuda" else f"{name}, emulated"


@cache  # compiled graphs are found by the function, which has to be the same object in the next run
def in_fp8(run: RunBlock) -> RunBlock:
    """Return the forward of a layer, `run`, with its matrix products in FP8."""

    def run_in_fp8(*inputs) -> Tensor:
        with Fp8Products():
            return run(*inputs)

    return run_in_fp8


class Fp8Products(TorchFunctionMode):
    """A mode in which `linear` of plain weights is `fp8_linear`; weights that are quantised already are left alone."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is nn.functional.linear and type(args[1]) in (Tensor, nn.Parameter):
            return fp8_linear(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def fp8_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x` [..., K] times `weight` [N, K], both rounded to FP8, plus `bias` [N]: [..., N] in the dtype of `x`.

    Weights whose sides are no multiples of 16 are multiplied without rounding.
    """
    if weight.shape[0] % SIDE_MULTIPLE or weight.shape[1] % SIDE_MULTIPLE:
        return nn.functional.linear(x, weight, bias)
    rows, x_scale = to_fp8(x.flatten(0, -2))
    columns, weight_scale = to_fp8(weight)
    multiply = on_tensor_cores if x.is_cuda else emulated
    y = multiply(rows, columns, x_scale, weight_scale).to(x.dtype)
    y = y if bias is None else y + bias
    return torch.unflatten(y, 0, x.shape[:-1])


def to_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round rows [M, K] to FP8; return them and the scale of each row, [M, 1] in float32.

    Rounded rows times their scales are near `x`. Scales are powers of two, so that scaling itself rounds nothing, in
    every dtype of `x`.
    """
    largest = torch.linalg.vector_norm(x, torch.inf, dim=1, keepdim=True).float()
    power = torch.frexp(largest / FP8_MAX).exponent.clamp(min=MIN_POWER).float()
    return (x * torch.exp2(-power).to(x.dtype)).to(FP8), torch.exp2(power)


def on_tensor_cores(x: Tensor, weight: Tensor, x_scale: Tensor, weight_scale: Tensor) -> Tensor:
    """Multiply FP8 rows [M, K] and [N, K] with their scales on tensor cores: [M, N] in bfloat16."""
    return torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage]
        x,
        weight.t(),
        scale_a=x_scale,
        scale_b=weight_scale.t(),
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )


def emulated(x: Tensor, weight: Tensor, x_scale: Tensor, weight_scale: Tensor) -> Tensor:
    """Multiply FP8 rows [M, K] and [N, K] with their scales in float32, for devices without FP8 products: [M, N]."""
    return (x.float() @ weight.float().t()) * x_scale * weight_scale.t()
