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
from histream_core.plan.histories import EACH_STEP
from histream_core.plan.order import DIAGONAL
from histream_core.plan.speed import DEFAULTS
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
    denoise = PipelineDenoiser(gang, PassOptions(), torch.float32)
    return Stream(plan, denoise, caches, SeededNoise(1), [Prompt(tiny.text(3))], channels=4, ring=True)


def test_rows_are_on_their_way_while_the_next_ones_are_asked_for():
    """Seen to fail when the estimate of a row is waited for at once."""
    plan, asked, most = plan_of(), set(), 0
    with gang_of(2) as gang:
        run, submit = stream(plan, gang, (0, 4, 8)), gang.submit

        def watched(*row):
            nonlocal most
            number, later = len(asked) + len(done), submit(*row)
            asked.add(number)
            most = max(most, len(asked))

            def arrived():
                asked.discard(number)
                done.add(number)
                return later()

            return arrived

        done: set[int] = set()
        gang.submit = watched
        list(run.chunks())
    assert most >= len(plan.levels) and not asked


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
