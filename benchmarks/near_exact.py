"""PSNR of each choice that changes frames against the exact run, on the bundled demo model with the default prompt.

    python benchmarks/near_exact.py --frames 33 --mode histream

One line for each choice: PSNR in dB of all frames and of the worst one, and values of 255 that differ. The figures of
docs/performance.md come from here; a choice that is not installed is a line that says so.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from histream_core import demo
from histream_core.network.forward import Text
from histream_core.network.kernels import check_installed
from histream_core.plan.make import PlanOptions, make_plan
from histream_core.plan.presets import find_preset
from histream_core.plan.sizes import latent_frames
from histream_core.plan.speed import APPROXIMATE, Speed
from histream_core.runs.render import Order, collect
from histream_core.runs.weights import Weights
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.weights.loading import cast_model

LAST_BITS = {"elementwise": ["fused"], "compile": ["inductor"], "vae_layout": ["channels-last"]}
"""Choices that are no approximations but change the last bits of numbers."""


def choices(exact: Weights) -> Iterator[tuple[str, Weights]]:
    """Yield the name of each choice, and weights that use it."""
    for field, options in (APPROXIMATE | LAST_BITS).items():
        yield from ((f"{field} {option}", replace(exact, speed=Speed(**{field: option}))) for option in options)
    yield "keys and values fp8", replace(exact, kv="fp8")
    half = torch.bfloat16
    yield "network bfloat16", replace(exact, model=cast_model(demo.load_transformer(), half), dtype=half)
    yield "vae bfloat16", replace(exact, vae=demo.load_vae().to(half))


def psnr(squares: np.ndarray) -> float | None:
    """PSNR in dB from mean squares on the scale of 255; None where nothing differs."""
    return round(float(10 * np.log10(255**2 / squares)), 1) if squares else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--mode", default="histream")
    args = parser.parse_args()
    torch.set_num_threads(1)
    preset, text = find_preset(demo.PRESET), demo.load_text_encoder().encode(demo.PROMPT)
    exact = Weights(demo.load_transformer(), demo.load_vae(), preset, torch.device("cpu"), torch.float32)

    def frames(weights: Weights) -> np.ndarray:
        size, options = (demo.WIDTH, demo.HEIGHT), PlanOptions(levers=weights.speed.levers)
        length = latent_frames(args.frames)
        plan = make_plan(preset, args.mode, size=size, num_latent_frames=length, options=options)
        return np.stack(collect(weights, Order(plan, (Prompt(Text(text)),), SeededNoise(0)))).astype(float)

    wanted = frames(exact)
    for name, chosen in choices(exact):
        try:
            check_installed(chosen.speed)
            error = (frames(chosen) - wanted) ** 2
        except ValueError as reason:
            row = {"choice": name, "absent": str(reason)}
        else:
            each = error.mean(axis=(1, 2, 3))
            row = {
                "choice": name,
                "all": psnr(each.mean()),
                "worst": psnr(each.max()),
                "differ": int((error > 0).sum()),
            }
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
