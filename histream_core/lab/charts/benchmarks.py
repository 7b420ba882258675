"""Plots of costs per frame: by length, size and steps, and compared with others. Counted; no times of our own."""

from __future__ import annotations

from collections.abc import Iterator

from ...cost.cost import Cost
from ...network.model import WAN_1_3B
from ...plan.make import PlanOptions, make_plan
from ...plan.presets import find_preset
from ...plan.schedule import make_steps
from ...plan.sizes import latent_frames
from ...plan.window import Window

SIZES = ((832, 480), (1280, 704), (1920, 1088), (2560, 1408))
LENGTHS = (21, 81, 141, 201, 261, 321)
STEPS = (2, 4, 6, 8)
CLIP_FRAMES = 81


ARMS = {
    "histream-plus": {"mode": "histream-plus"},
    "histream": {"mode": "histream"},
    "without a window": {"mode": "history"},
    "full resolution, no window": {"mode": "full", "window": Window(local_frames=None)},
}

SCHEDULES = {
    "Wan2.1, 50 steps, guidance": 7231,
    "ComfyUI's own, Self-Forcing": 218.37,
    "HiStream, published schedule": 77.10,
    "HiStream+, published schedule": 53.83,
}
"""TFLOP per frame of other implementations, which make whole cache passes, also after the last chunk."""

SECONDS = {
    "Wan2.1, published": 36.56,
    "Self-Forcing, published": 1.20,
    "without a window, published": 0.78,
    "without two resolutions, published": 0.70,
    "HiStream, published": 0.48,
    "HiStream+, published": 0.34,
    "HiStream+ on an H100, published": 0.21,
    "HiStream, derived at 790 TFLOP/s": 0.098,
    "HiStream+, derived at 790 TFLOP/s": 0.068,
    "StreamDiffusionV2, 512x512, four H100": 0.0155,
}
"""Seconds of denoising per frame, at 1920x1088 on an A100-class GPU unless the name says otherwise: arXiv 2512.21338
and 2511.07399; those at 790 TFLOP/s are the operations of SCHEDULES by that rate. None of our own has been measured
yet."""


def tflops(mode: str, size: tuple[int, int] = (1920, 1088), frames: int = CLIP_FRAMES, **settings) -> float:
    """TFLOP per pixel frame of Wan 1.3B, with cache passes and without decoding."""
    options = PlanOptions(**settings)
    plan = make_plan(find_preset("histream"), mode, size=size, num_latent_frames=latent_frames(frames), options=options)
    return Cost(WAN_1_3B, plan).flops / plan.num_pixel_frames / 1e12


def plots() -> Iterator[tuple[str, bytes]]:
    """Yield the file name and the SVG file of every plot."""
    from .plots import bar_plot, line_plot

    by_length = {name: [tflops(frames=n, **arm) for n in LENGTHS] for name, arm in ARMS.items()}
    yield "cost-length.svg", line_plot("TFLOP per frame of 1920x1088, by pixel frames", LENGTHS, by_length)

    sizes = [f"{width}x{height}" for width, height in SIZES]
    by_size = {name: [tflops(size=size, **arm) for size in SIZES] for name, arm in ARMS.items()}
    yield "cost-size.svg", line_plot("TFLOP per frame of an 81-frame clip, by size", sizes, by_size)

    by_steps = {
        "dual-resolution caching": [steps_cost(n, n // 2) for n in STEPS],
        "every step at full resolution": [steps_cost(n, 0) for n in STEPS],
    }
    yield "cost-steps.svg", line_plot("TFLOP per frame of 1920x1088, by steps of a chunk", STEPS, by_steps)

    ours = {"ours, histream": tflops("histream"), "ours, histream-plus": tflops("histream-plus")}
    levers = {
        f"ours, histream-plus with {x}": tflops("histream-plus", levers=[x]) for x in ("clean-anchor", "last-step")
    }
    everything = SCHEDULES | ours | levers
    yield "cost-others.svg", bar_plot("TFLOP per frame of 1920x1088, 81 frames, logarithmic", everything)
    yield "seconds-others.svg", bar_plot("Seconds of denoising per frame as others report, logarithmic", SECONDS)


def steps_cost(steps: int, low: int) -> float:
    """TFLOP per frame with `steps` steps in every chunk, `low` of them at half resolution."""
    timesteps = [1000 * (1 - index / steps) for index in range(steps)]
    schedule = (make_steps(timesteps, low, shift_low=5.0, shift_high=7.0),)
    return tflops("histream", schedule=schedule)
