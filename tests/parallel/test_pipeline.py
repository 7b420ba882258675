"""Rows of a diagonal order in a ring of ranks give what one process computes, bit for bit."""

import pytest
import tiny
import torch
from slow import slow
from tiny_ranks import gang_of

from histream_core.network.cache.window import CacheOptions
from histream_core.network.forward import PassOptions
from histream_core.network.model import WanConfig
from histream_core.parallel.gang import PipelineDenoiser
from histream_core.plan.entry import Entry
from histream_core.plan.histories import EACH_STEP
from histream_core.plan.order import DIAGONAL
from histream_core.plan.presets import find_preset
from histream_core.plan.speed import DEFAULTS
from histream_core.stream.inputs import Inputs
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.stream.stream import Stream

CONFIG = WanConfig(dim=48, ffn_dim=64, num_heads=2, num_layers=8, in_dim=4, out_dim=4, text_dim=16, freq_dim=16)


def plan_of(num_frames=20):
    return tiny.plan("full", num_frames=num_frames, histories=EACH_STEP, order=DIAGONAL)


def stream(plan, gang, bounds):
    """The stream of a pipeline."""
    model = tiny.wan(CONFIG)
    gang.give_weights(model, CONFIG, torch.float32)
    caches = gang.prepare(plan, model, CacheOptions(), DEFAULTS, plan.levels, bounds)
    denoise, ranks = PipelineDenoiser(gang, PassOptions(), torch.float32), len(bounds) - 1
    inputs = Inputs(source=source if plan.restyle else None)
    return Stream(plan, denoise, caches, SeededNoise(1), [Prompt(tiny.text(3))], channels=4, inputs=inputs, ring=ranks)


def source(chunk):
    return Entry(0.8, 0.8), torch.full((1, 4, len(chunk.frames), 8, 8), 0.1 * chunk.index)


def single_steps(num_frames=20):
    """Restyled in a single step, as StreamDiffusionV2 does it at its fastest."""
    preset = find_preset("streamdiffusionv2").with_steps(1)
    options = {"schedule": preset.schedule("full"), "restyle": preset.restyle}
    return tiny.plan("full", num_frames=num_frames, histories=EACH_STEP, order=DIAGONAL, **options)


@pytest.mark.parametrize(("plan", "least"), [(plan_of(), 4), (single_steps(), 6)], ids=["four steps", "one step"])
def test_rows_are_on_their_way_while_the_next_ones_are_asked_for(plan, least):
    """Two for each rank. Seen to fail when the estimate of a row is waited for at once, and when that of a chunk is
    before the next one begins: of a single step a rank alone was busy then."""
    alone = tiny.video(plan, model=tiny.wan(CONFIG), prompts=[Prompt(tiny.text(3))], source=plan.restyle and source)
    under_way, most = set(), 0
    with gang_of(3) as gang:
        run, submit = stream(plan, gang, (0, 3, 5, 8)), gang.submit

        def watched(*row):
            nonlocal most
            number, later = object(), submit(*row)
            under_way.add(number)
            most = max(most, len(under_way))
            return lambda: under_way.discard(number) or later()

        gang.submit = watched
        assert torch.equal(torch.cat(list(run.chunks()), dim=2), alone)
    assert most >= least and not under_way


@pytest.mark.parametrize(
    "bounds", [(0, 3, 8), (0, 1, 6, 8), slow((0, 2, 3, 5, 6, 8)), slow((0, 1, 2, 3, 4, 5, 6, 7, 8))]
)
def test_the_same_latents(bounds):
    """Seen to fail when a rank computes the layers of the one before it once more."""
    plan = plan_of()
    alone = tiny.video(plan, model=tiny.wan(CONFIG), prompts=[Prompt(tiny.text(3))])
    with gang_of(len(bounds) - 1) as gang:
        assert torch.equal(torch.cat(list(stream(plan, gang, bounds).chunks()), dim=2), alone)


def test_layers_move_in_mid_stream():
    """Seen to fail when what their caches hold stays behind."""
    plan = plan_of(29)
    alone = tiny.video(plan, model=tiny.wan(CONFIG), prompts=[Prompt(tiny.text(3))])
    with gang_of(3) as gang:
        made = []
        for index, chunk in enumerate(stream(plan, gang, (0, 3, 5, 8)).chunks()):
            made.append(chunk)
            gang.move([(0, 1, 6, 8), (0, 5, 6, 8), (0, 2, 4, 8)][index % 3])
        assert torch.equal(torch.cat(made, dim=2), alone)
