"""The engine as it is compared with `reference.py`, which has no caches: sizes, step tables by hand, one run."""

from dataclasses import replace

import torch

from histream_core.network.cache.tiers import make_caches
from histream_core.network.cache.window import CacheOptions
from histream_core.network.forward import Denoiser
from histream_core.plan.entry import Entry, Restyle
from histream_core.plan.presets import PRESETS
from histream_core.stream.inputs import Inputs
from histream_core.stream.stream import Stream

GRIDS = {"low": (4, 6), "high": (8, 12)}
SIZE = {"width": 96, "height": 64}
NTK = {"low": 2.0 ** (40 / 42), "high": 5.0 ** (40 / 42)}  # twice and five times the rotary base of Wan's heads
FOUR = [(1.0, "low"), (0.9375, "low"), (0.875, "high"), (0.7, "high")]
FOUR_SD = [(1.0, "low"), (0.9375, "low"), (5 / 6, "high"), (0.625, "high")]
FOUR_HIGH = [(1.0, "high"), (21 / 22, "high"), (0.875, "high"), (0.7, "high")]
TWO = [(1.0, "low"), (0.875, "high")]
HISTREAM = replace(PRESETS["histream"], scale_first_chunk=False)


def noise(chunk, step, shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1000 * chunk + step))


RESTYLE = Restyle(0.95)
RESTYLED = [(0.95, "low"), *TWO[1:]]


def source(chunk):
    """The source of a restyled video, at LOW."""
    return Entry(0.95, 0.95), noise(chunk.index, 100, (2, 4, len(chunk.frames), *GRIDS["low"]))


def restyled_noise(chunk, step, shape):
    """The noise with which the reference makes the same video: a chunk begins with a mixture."""
    return noise(chunk, step, shape) if step else 0.95 * noise(chunk, 0, shape) + 0.05 * noise(chunk, 100, shape)


def run_engine(model, plan, prompts, given=None):
    caches = make_caches(plan, model, CacheOptions(batch=2))
    inputs = Inputs(given, source=source if plan.restyle else None)
    stream = Stream(plan, Denoiser(model), caches, noise, prompts, channels=model.in_dim, inputs=inputs)
    return torch.cat(list(stream.chunks()), dim=2)


def assert_same(video, reference):
    assert video.shape == reference.shape
    assert reference.std() > 0.1
    torch.testing.assert_close(video, reference, atol=1e-5, rtol=0)
