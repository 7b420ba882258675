"""A live stream of tiny weights on a clock that passes only while someone waits, or where work costs time."""

from collections import defaultdict

import tiny
import tiny_vae
import torch

from histream_core.live.budget import Target
from histream_core.live.feed import Feed
from histream_core.live.intake import EVEN, Intake
from histream_core.live.pacer import Pacer
from histream_core.live.player import Player, Recorder
from histream_core.live.session import Engine, LiveSession, Wanted
from histream_core.network.forward import Denoiser
from histream_core.plan.chunks import ENDLESS
from histream_core.plan.entry import Restyle
from histream_core.runs.restyle import EncodedSource
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.vae.decoders import open_decoder
from histream_core.video.formats import find_format
from histream_core.video.writers import open_writer

SIDE, FPS = 32, 16
STEP, AN_HOUR = 1 / 64, 3600
MODEL, VAE = tiny.wan(), tiny_vae.make_vae(z_dim=4)


class FakeClock:
    """Time that passes where someone waits; what happens meanwhile is in `events`, each called at every step."""

    def __init__(self):
        self.now, self.events = 0.0, []

    def __call__(self):
        return self.now

    def wait(self, condition, seconds):
        self.spend(min(seconds, STEP))

    def spend(self, seconds):
        """Let time pass, and what happens meanwhile."""
        assert self.now < AN_HOUR, "an hour is over: this would never end"
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now = min(self.now + STEP, end)
            for event in self.events:
                event()


class Camera:
    """A source that gives `count` frames at an even rate, except from `gone` on for some seconds."""

    def __init__(self, feed, clock, count, fps=FPS, gone=(0.0, 0.0)):
        self.feed, self.clock, self.fps = feed, clock, fps
        self.index, self.count, self.gone = 0, count, gone

    def __call__(self):
        while self.index < self.count and self.clock() >= self.index / self.fps:
            time = self.index / self.fps
            self.index += 1
            if not self.gone[0] <= time < self.gone[1]:
                self.feed.put(picture(self.index), time)
        if self.index == self.count:
            self.feed.end()


def picture(number, side=SIDE):
    return torch.full((side, side, 3), number % 256, dtype=torch.uint8)


def endless(**options):
    """The plan of a live stream."""
    return tiny.plan("histream", num_frames=ENDLESS, width=SIDE, height=SIDE, restyle=Restyle(0.8), **options)


class Living:
    """A session with all that belongs to it. `costs` are seconds of a network call and of decoding a latent frame."""

    def __init__(self, count, *, policy=EVEN, costs=(0.01, 0.01), latency=1.0, clock=None, plan=None, **more):
        self.clock = clock or FakeClock()
        self.costs, self.shown, self.calls, self.latents = costs, [], [], []
        self.sigmas, self.texts = defaultdict(list), defaultdict(list)
        """The noise levels of each chunk's steps, and their texts."""
        plan = plan or endless()
        target = Target(FPS, latency, steps=len(plan.chunks[1].steps), chunk_frames=3)
        self.feed = Feed(Intake(24, policy), self.clock)
        pacer = Pacer(FPS, latency, self.clock)
        self.player = Player(pacer, self.clock, [self.show], room=48)
        prompt = Prompt(tiny.text(0), words="a cat")
        drops, cues = policy != "all", more.pop("cues", ())
        wanted = Wanted(plan, prompt, SeededNoise(1), target, (SIDE, SIDE), drops=drops, cues=cues)
        self.session = LiveSession(self.engine(), wanted, self.feed, self.player, self.clock)
        self.camera = Camera(self.feed, self.clock, count, **more)

    def engine(self):
        decoder, place = open_decoder(VAE, normalised=False), torch.device("cpu")

        def open_stream(plan, noise, prompts, watched, inputs):
            def denoise(latent, step, cache, text):
                watched.begin_call(step)
                self.calls.append(text)
                if step.sigma:
                    self.sigmas[self.session.chunks].append(step.sigma)
                    self.texts[self.session.chunks].append(text)
                self.spend(self.costs[0])
                watched.times.denoise += self.costs[0]
                return Denoiser(MODEL)(latent, step, cache, text)

            return tiny.stream(plan, model=MODEL, denoise=denoise, prompts=prompts, source=inputs.source)

        def open_source(frames, plan):
            return EncodedSource(frames, plan, VAE, normalised=False)

        return Engine(open_stream, open_source, _Slow(decoder, self), place)

    def spend(self, seconds):
        if isinstance(self.clock, FakeClock):
            self.clock.spend(seconds)

    def show(self, frame, captured):
        self.shown.append((self.clock(), captured, frame))

    def run(self, *events):
        """Run to the end, frames shown as the clock passes."""
        self.clock.events += [self.camera, self.player.show_due, *events]
        self.session.run(threads=False)
        while len(self.player):
            self.clock.spend(STEP)
        return self.session.report()


class _Slow:
    """A decoder that takes its time."""

    def __init__(self, decoder, living):
        self.decoder, self.living = decoder, living
        self.reset = decoder.reset

    def decode(self, latent):
        self.living.spend(self.living.costs[1])
        self.living.latents.append(latent)
        return self.decoder.decode(latent)


class After:
    """An event that acts once so many chunks were sampled."""

    def __init__(self, living, chunks, act):
        self.living, self.chunks, self.act = living, chunks, act

    def __call__(self):
        if self.act and self.living.session.chunks >= self.chunks:
            act, self.act = self.act, None
            act()


def recorders(living, folder):
    """Opens recordings one, two, ... in a folder."""
    names = iter(("one.mkv", "two.mkv", "three.mkv"))

    def open_one():
        path = folder / next(names)
        return Recorder(open_writer(path, find_format("ffv1"), size=(32, 32), fps=FPS), FPS, path.name)

    living.session.open_recorder = open_one
