"""`histream bench --limit`: process time of the demo video against the arithmetic limit of one thread.

The limit is the time that the video's operations would take at the rate of a large matrix product, which is measured
between its chunks, so that other load on the machine affects both. Norms, activations and copies have no operations.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_flop_count

from ... import demo
from ...network.forward import Text
from ...plan.chunks import Plan
from ...plan.make import make_plan
from ...plan.presets import find_preset
from ...plan.sizes import latent_frames
from ...runs.weights import Weights
from ...stream.inputs import Inputs
from ...stream.noise import SeededNoise
from ...stream.prompts import Prompt
from ...vae.decode import to_frames
from ...video.pixels import to_uint8
from .cpu import one_thread, spent

NETWORK, DECODE, REST = "network", "VAE decode", "rest"
PARTS = (NETWORK, DECODE, REST)

PRODUCTS, CONVOLUTIONS, ATTENTION = "products", "convolutions", "attention"

SIDE = 512
"""Rows and columns of the matrices whose product is the limit."""

Result = TypeVar("Result")
Measure = Callable[[str, Callable[[], Any]], Any]
"""Function that is given the name of a part and its work, and returns what that returns."""


def _convolution(x: list[int], weight: list[int], *_: object, out_shape: list[int], **__: object) -> int:
    return conv_flop_count(x, weight, out_shape)


def _attention(q: list[int], k: list[int], v: list[int], *_: object, **__: object) -> int:
    return sdpa_flop_count(q, k, v)


OWN = {
    torch.ops.aten.mkldnn_convolution: _convolution,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
}
"""Operations of the CPU that torch's counter does not know."""


@dataclass
class Limit:
    """The operations of a video, its seconds by part, and the rates that were measured between its chunks."""

    flops: dict[str, Counter[str]] = field(default_factory=lambda: {part: Counter() for part in PARTS})
    """Operations by part and kind."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    product_rates: list[float] = field(default_factory=list)
    convolution_rates: list[float] = field(default_factory=list)

    def ratio(self, parts: tuple[str, ...] = PARTS) -> float | None:
        """Process time of some parts per time at the limit; None where they have no operations."""
        flops = sum(self.flops[part].total() for part in parts)
        rate = statistics.median(self.product_rates)
        return sum(self.seconds[part] for part in parts) * rate / flops if flops else None

    def plain(self) -> dict:
        """All figures but seconds, which mean nothing by themselves."""
        return {
            "operations": {part: dict(kinds) for part, kinds in self.flops.items()},
            "ratios": {part: self.ratio((part,)) for part in PARTS} | {"in all": self.ratio()},
            "shares of the time": {part: self.seconds[part] / sum(self.seconds.values()) for part in PARTS},
            "rate of a convolution per product": statistics.median(self.convolution_rates)
            / statistics.median(self.product_rates),
        }


def demo_plan(num_frames: int) -> Plan:
    """The plan of the demo video in the mode histream-plus."""
    size, length = (demo.WIDTH, demo.HEIGHT), latent_frames(num_frames)
    return make_plan(find_preset(demo.PRESET), "histream-plus", size=size, num_latent_frames=length)


def make(plan: Plan, weights: Weights, text: Tensor, measure: Measure) -> None:
    """Make a video, each part of each chunk by way of `measure`."""
    prompts, progress = (Prompt(Text(text)),), weights.new_progress(plan)
    chunks = weights.open_stream(plan, SeededNoise(0), prompts, progress=progress, inputs=Inputs()).chunks()
    decoder = weights.open_decoder()
    while (chunk := measure(NETWORK, partial(next, chunks, None))) is not None:
        pixels = measure(DECODE, partial(decoder.decode, chunk))
        measure(REST, partial(_to_bytes, pixels))


def _to_bytes(pixels: Tensor) -> object:
    return to_uint8(to_frames(pixels)[0])


def count(plan: Plan, weights: Weights, text: Tensor) -> dict[str, Counter[str]]:
    """The operations of a video by part and kind."""
    flops: dict[str, Counter[str]] = {part: Counter() for part in PARTS}

    def measure(part: str, work: Callable[[], Result]) -> Result:
        with FlopCounterMode(display=False, custom_mapping=OWN) as counter:
            result = work()
        for operation, number in counter.get_flop_counts().get("Global", {}).items():
            flops[part][_kind(str(operation))] += number
        return result

    make(plan, weights, text, measure)
    return flops


def _kind(operation: str) -> str:
    if "attention" in operation:
        return ATTENTION
    return CONVOLUTIONS if "conv" in operation else PRODUCTS


def demo_weights() -> tuple[Weights, Tensor]:
    """The bundled model and the embedding of its default prompt."""
    text = demo.load_text_encoder().encode(demo.PROMPT)
    model, vae, preset = demo.load_transformer(), demo.load_vae(), find_preset(demo.PRESET)
    return Weights(model, vae, preset, torch.device("cpu"), torch.float32), text


def measure_limit(num_frames: int = 81) -> Limit:
    """Count the operations of the demo video, then make it again and take the time."""
    with one_thread():
        plan, (weights, text) = demo_plan(num_frames), demo_weights()
        limit = Limit(count(plan, weights, text))

        def measure(part: str, work: Callable[[], Result]) -> Result:
            start = time.process_time()
            result = work()
            limit.seconds[part] += time.process_time() - start
            if part == DECODE:
                _measure_rates(limit)
            return result

        make(plan, weights, text, measure)
    return limit


def _measure_rates(limit: Limit) -> None:
    """Add the operations a second of a product and of a convolution of 32 channels."""
    square = torch.ones(SIDE, SIDE)
    picture = torch.ones(1, 32, 64, 64).to(memory_format=torch.channels_last)
    kernel = torch.ones(32, 32, 3, 3)
    limit.product_rates.append(2 * SIDE**3 / min(spent(lambda: square @ square) for _ in range(3)))
    times = [spent(lambda: torch.conv2d(picture, kernel, padding=1)) for _ in range(3)]
    limit.convolution_rates.append(2 * 9 * 32 * picture.numel() / min(times))


def limit_table(limit: Limit) -> str:
    """A row for each part: operations in 10^9, share of the time, and time per time at the limit."""
    lines = [f"{'':12}{'10^9 operations':>16}{'share of time':>15}{'time / limit':>14}"]
    for name, parts in (*((part, (part,)) for part in PARTS), ("in all", PARTS)):
        flops = sum(limit.flops[part].total() for part in parts)
        share = sum(limit.seconds[part] for part in parts) / sum(limit.seconds.values())
        ratio = limit.ratio(parts)
        lines.append(f"{name:12}{flops / 1e9:16.1f}{share:15.0%}{'' if ratio is None else f'{ratio:.2f}':>14}")
    relative = limit.plain()["rate of a convolution per product"]
    lines.append(f"a convolution of 32 channels has {relative:.2f} of the rate of a product of {SIDE} rows")
    return "\n".join(lines)
