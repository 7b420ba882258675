"""A clip streamed, a run that was stopped and resumed, and a branch hold the frames of a clip that is made at once.

F frames, H W pixels; clips are [F, H, W, 3], uint8.
"""

from contextlib import closing
from itertools import islice

import numpy as np
import pytest
import torch
from slow import slow

from histream_core import demo
from histream_core.lab.judge.long import run_chunks
from histream_core.lab.judge.prompts import draw_prompts
from histream_core.network.forward import Text
from histream_core.plan.make import make_plan
from histream_core.plan.presets import find_preset
from histream_core.plan.sizes import latent_frames
from histream_core.runs import create_branch
from histream_core.runs.render import Order, collect
from histream_core.runs.weights import Weights
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.vae.decode import to_frames
from histream_core.video.pixels import to_uint8


def at_once(weights, plan, text, asked, folder):
    """All latents first, then one call of the VAE for all of them."""
    progress = weights.new_progress(plan)
    run = weights.open_stream(plan, SeededNoise(asked.seed), [Prompt(Text(text))], progress=progress)
    return to_uint8(to_frames(weights.open_decoder().decode(torch.cat(list(run.chunks()), dim=2)))[0])


def streamed(weights, plan, text, asked, folder):
    """Every chunk decoded as soon as it is there."""
    return np.stack(collect(weights, Order(plan, (Prompt(Text(text)),), SeededNoise(asked.seed))))


def resumed(weights, plan, text, asked, folder):
    """A run that is kept, stopped in the middle, and opened again."""
    half = len(plan.chunks) // 2
    with closing(run_chunks(weights, folder / "run", plan, text, asked)) as chunks:
        before = list(islice(chunks, half))
    return np.concatenate([*before, *run_chunks(weights, folder / "run", plan, text, asked, half)])


def branched(weights, plan, text, asked, folder):
    """A run that shares its first half with the one that was resumed, and makes the other half again."""
    create_branch(folder / "run", folder / "branch", len(plan.chunks) // 2).close()
    return np.concatenate(list(run_chunks(weights, folder / "branch", plan, text, asked)))


def check(mode, num_frames, folder):
    """Compare every other way with `at_once`, on the weights that are bundled."""
    preset, cpu = find_preset(demo.PRESET), torch.device("cpu")
    weights = Weights(demo.load_transformer(), demo.load_vae(), preset, cpu, torch.float32)
    encoder = demo.load_text_encoder()
    plan = make_plan(preset, mode, size=(demo.WIDTH, demo.HEIGHT), num_latent_frames=latent_frames(num_frames))
    asked = draw_prompts(2, 0)[0]
    text = encoder.encode([asked.prompt])
    wanted = at_once(weights, plan, text, asked, folder)
    assert len(wanted) == num_frames
    for way in (streamed, resumed, branched):
        assert np.array_equal(way(weights, plan, text, asked, folder), wanted), way.__name__


@pytest.mark.parametrize("mode", ["histream", slow("histream-plus")])
def test_every_way_gives_the_same_frames(here, monkeypatch, mode):
    """Seen to fail when a branch begins with the caches of nothing, or a resumed run decodes without its past."""
    monkeypatch.setattr(demo, "WIDTH", 64)
    monkeypatch.setattr(demo, "HEIGHT", 64)
    check(mode, 45, here)


@pytest.mark.slow
def test_every_way_gives_the_same_frames_with_the_bundled_model(tmp_path):
    check("histream", 21, tmp_path)
