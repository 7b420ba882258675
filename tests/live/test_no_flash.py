"""Prompts that come while a live stream runs change the picture without a flash, with the bundled model."""

import numpy as np
import pytest
import torch
from slow import slow
from tiny_live import Camera, FakeClock

from histream_core import demo
from histream_core.live.budget import Target
from histream_core.live.engine import Engine
from histream_core.live.feed import Feed
from histream_core.live.intake import ALL, Intake
from histream_core.live.pacer import Pacer
from histream_core.live.player import Player
from histream_core.live.session import BLEND, LiveSession, Wanted
from histream_core.network.forward import Text
from histream_core.plan import PlanOptions, make_plan
from histream_core.plan.chunks import ENDLESS
from histream_core.plan.entry import Restyle
from histream_core.runs.weights import load_demo
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.stream.timeline import Change

SIDE, FPS = 128, 16


class Circle(Camera):
    """A red circle that goes to and fro."""

    def __call__(self):
        while self.index < self.count and self.clock() >= self.index / FPS:
            rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
            left = SIDE * (0.5 + 0.2 * np.sin(self.index / 20))
            inside = (columns - left) ** 2 + (rows - SIDE / 2) ** 2 < (SIDE / 6) ** 2
            frame = torch.full((SIDE, SIDE, 3), 230, dtype=torch.uint8)
            frame[inside] = torch.tensor([200, 30, 30], dtype=torch.uint8)
            self.feed.put(frame, self.index / FPS)
            self.index += 1
        if self.index == self.count:
            self.feed.end()


def untimed(weights):
    """The engine of weights whose calls cost no time, so that the budget has nothing to decide."""
    engine = Engine.of(weights)

    def open_stream(plan, noise, prompts, watched, inputs):
        watched.settle = lambda: (0.0, 0.0)
        return engine.open_stream(plan, noise, prompts, watched, inputs)

    return Engine(open_stream, engine.open_source, engine.decoder, engine.decode_device)


def restyled(said, count, change=BLEND):
    """The frames of a stream, in which `said` are prompts by the number of chunks after which they are said."""
    weights, encoder = load_demo(), demo.load_text_encoder()
    clock, shown = FakeClock(), []
    options = PlanOptions(restyle=Restyle(0.9))
    plan = make_plan(weights.preset, "histream", size=(SIDE, SIDE), num_latent_frames=ENDLESS, options=options)
    feed = Feed(Intake(24, ALL), clock)
    player = Player(Pacer(FPS, 1.0, clock), clock, [lambda frame, _: shown.append(frame)], room=48)
    target = Target(FPS, 1.0, len(plan.chunks[1].steps), 3)
    prompt = Prompt(Text(encoder.encode("a red circle on white")))
    wanted = Wanted(plan, prompt, SeededNoise(3), target, (SIDE, SIDE), drops=False)
    session, left = LiveSession(untimed(weights), wanted, feed, player, clock), dict(said)

    def speak():
        if session.chunks in left:
            words = left.pop(session.chunks)
            session.say(words, encoder.encode(words), change)

    clock.events += [Circle(feed, clock, count), player.show_due, speak]
    session.run(threads=False)
    while len(player):
        clock.spend(1 / 64)
    return np.stack(shown).astype(float)


def largest_step(frames):
    """The largest change from one frame to the next, of 255, on average over all pixels."""
    return np.abs(np.diff(frames, axis=0)).mean((1, 2, 3)).max()


COUNT, CHANGES = 9 + 12 * 9, (1, 4, 7)


@pytest.mark.parametrize(
    "prompts", [slow(("a green square on white", "a blue circle on white", "a yellow triangle on white"))]
)
def test_three_prompts_make_no_step_that_is_twice_as_large_as_without_them(prompts):
    plain = restyled({}, COUNT)
    spoken = restyled(dict(zip(CHANGES, prompts, strict=True)), COUNT)
    assert len(plain) == len(spoken) == COUNT
    assert largest_step(spoken) <= 2 * largest_step(plain)
    black = restyled(dict(zip(CHANGES, ("a blue square on black",) * 3, strict=True)), COUNT)
    cut = np.concatenate([plain[:100], black[100:]])  # a control: one picture and then the other
    assert largest_step(cut) > 2 * largest_step(plain)


@pytest.mark.parametrize("prompts", [slow(("a green square on white", "a blue circle on black", "a yellow triangle"))])
def test_where_the_background_changes_too_a_blend_makes_smaller_steps_than_a_change_at_once(prompts):
    """Seen to fail without blends."""
    said = dict(zip(CHANGES, prompts, strict=True))
    assert largest_step(restyled(said, COUNT)) < 0.8 * largest_step(restyled(said, COUNT, Change("cut")))
