"""Restyled clips of the painter: do they show the prompt's words where, and moving as, the source's object is?

A word counts where it holds in every second of the clip (`throughout`). The source differs from the prompt in colour,
background and shape; place, time and direction are the same. F frames, H W pixels; positions are fractions of the
frame, x to the right and y down, on a torus.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...demo.painter import DIRECTIONS, SPEED, Combination, all_combinations, paint
from ...network.forward import Text
from ...plan.chunks import Plan
from ...plan.entry import MotionRule, Restyle
from ...plan.make import PlanOptions, make_plan
from ...plan.presets import Preset
from ...plan.sizes import latent_frames
from ...plan.window import Window
from ...runs.render import Order, collect
from ...runs.weights import Weights
from ...stream.noise import SeededNoise
from ...stream.prompts import Prompt
from .bootstrap import Estimate, estimate
from .judge import LEAST_AREA, Verdict, judge, segment, shrink
from .outline import centres
from .prompts import DemoPrompt, draw_prompts
from .throughout import WORDS, read_seconds, throughout
from .video import MeasureSettings, measure

NEAR = 0.04
"""Largest mean distance of centres, as a share of the frame, of an object that kept its place."""

FARTHEST = 0.5**0.5
"""Distance of a frame without an object: that of the two points of a torus that are farthest apart."""

MOTION_EVERY = 8
"""Warp error is read at every so many frames."""

BARS = {"colour": 0.90, "background": 0.90, "shape": 0.90, "direction": 0.95}
"""Least mean of a word over the pairs of a model that restyles; with it the distance is at most NEAR."""

RESTYLED = {
    "restyled": "all four words hold in every second, and the object kept its place",
    "colour": "the object has the colour of the prompt, not the source's, in every frame",
    "background": "the background has the colour of the prompt, not the source's, in every frame",
    "shape": "in every second the outline is that of the prompt's shape, not the source's",
    "direction": "in every second the object moves as the source's, without a jump",
    "held": "share of seconds in which the four words and an object hold",
    "last_second": "share of the five that holds in the last second",
    "distance": "of its centre from the source's, mean over the frames, as a share of the frame; 0 is best",
    "warp_error": "mean square of what the source's flow from the frame before does not explain; 0 is best",
    "clip_reference": "100 x cosine of the CLIP features of a frame and of the source's",
}
"""Names and meanings of the scores, in the order in which they are shown."""

MOST = {"distance": FARTHEST, "clip_reference": 100.0}
"""The largest value of a score; of the others 1."""

RANDOM = "random weights"


@dataclass(frozen=True, slots=True)
class Pair:
    """A source clip, and the prompt that it is restyled to."""

    asked: DemoPrompt
    source: Combination
    start: tuple[float, float]
    """Place of the object in the first frame."""

    def paint_source(self, num_frames: int, size: int) -> np.ndarray:
        """The source clip [F, H, W, 3] in [0, 1]."""
        return paint(self.source, range(num_frames), size=size, start=self.start, training=False)


@dataclass(frozen=True)
class RestyleArm:
    """A plan that restyles, and whether with random weights."""

    name: str
    what: str
    plan: Plan
    untrained: bool = False


@dataclass(frozen=True)
class RestyleRecord:
    """Scores of one restyled clip of one arm."""

    arm: str
    number: int
    """Number of the pair, from 0."""
    seen: dict[str, str | None]
    """The word that the clip shows, for each kind of word in a prompt."""
    scores: dict[str, float]
    """By the names of RESTYLED; without a CLIP, without its score."""


@dataclass(frozen=True)
class Clips:
    """The settings that all clips of an evaluation share."""

    preset: Preset
    mode: str
    size: tuple[int, int]
    num_pixel_frames: int

    def plan(self, restyle: Restyle, window: Window | None = None) -> Plan:
        """The plan of a clip. Raises ValueError for sizes, lengths and modes that are impossible."""
        options = PlanOptions(window=window, restyle=restyle)
        length = latent_frames(self.num_pixel_frames)
        return make_plan(self.preset, self.mode, size=self.size, num_latent_frames=length, options=options)


def draw_pairs(count: int, seed: int) -> list[Pair]:
    """Draw `count` pairs; the prompts of the second half are held out. Raises ValueError as `draw_prompts` does."""
    pairs = []
    for asked in draw_prompts(count, seed):
        rng, target = random.Random(asked.seed), asked.combination
        others = [source for source in all_combinations() if _only_moves_alike(source, target)]
        pairs.append(Pair(asked, rng.choice(others), (rng.random(), rng.random())))
    return pairs


def strength_arms(clips: Clips, strengths: Sequence[float], *, controls: bool) -> list[RestyleArm]:
    """An arm for each strength, and the controls: random weights at the first one, strengths 1 and 0."""
    wanted = [*strengths, *((1.0, 0.0) if controls else ())]
    arms = [_strength_arm(clips, share) for share in dict.fromkeys(wanted)]
    if controls:
        arms.append(replace(arms[0], name=RANDOM, what=f"random weights at {arms[0].name}", untrained=True))
    return arms


def ablation_arms(clips: Clips, strength: float) -> list[RestyleArm]:
    """StreamDiffusionV2's ablation: with and without sink frames and dynamic noise, by its rule of motion.

    A sink is an anchor frame of the window; without it the frames before the chunk are as many more. Raises ValueError
    for a mode without a window, and a strength that leaves no room for motion.
    """
    sink = clips.plan(Restyle(strength)).window
    if sink.local_frames is None or not sink.anchor_frames:
        raise ValueError(f"mode {clips.mode} has no window with an anchor to leave out: use --mode histream")
    none = replace(sink, anchor_frames=0, local_frames=sink.anchor_frames + sink.local_frames)
    still, moved = Restyle(strength), Restyle(strength, motion=MotionRule())
    return [
        RestyleArm("none", "no sink frame, the same noise in every chunk", clips.plan(still, none)),
        RestyleArm("dynamic-noise", "no sink frame, less noise where the source moves", clips.plan(moved, none)),
        RestyleArm("sink", "a sink frame, the same noise in every chunk", clips.plan(still, sink)),
        RestyleArm("sink+dynamic-noise", "a sink frame, less noise where the source moves", clips.plan(moved, sink)),
    ]


def restyle_pair(arm: RestyleArm, weights: Weights, text: Tensor, pair: Pair) -> np.ndarray:
    """The restyled clip [F, H, W, 3] in [0, 1] of a pair; `text` [1, tokens, channels] is the prompt's embedding."""
    source = torch.from_numpy(pair.paint_source(arm.plan.num_pixel_frames, arm.plan.size[0]))
    opened = weights.open_source(iter(source), arm.plan)
    order = Order(arm.plan, (Prompt(Text(text)),), SeededNoise(pair.asked.seed), source=opened)
    return np.stack(collect(weights, order)).astype(np.float32) / 255


def score_restyled(
    frames: np.ndarray, pair: Pair, settings: MeasureSettings | None = None
) -> tuple[Verdict, dict[str, float]]:
    """Verdict and RESTYLED scores of a clip [F, H, W, 3] in [0, 1]; with `settings` those of CLIP too.

    Raises ValueError as `judge` does.
    """
    verdict, held = judge(frames), throughout(read_seconds(frames), pair.asked.combination)
    distance = float(distances(frames, verdict.shape, pair).mean())
    source = pair.paint_source(len(frames), frames.shape[2])
    settings = replace(settings or MeasureSettings(MOTION_EVERY), flicker=False)
    moving = measure(iter(torch.from_numpy(frames)), iter(torch.from_numpy(source)), settings)
    scores = {name: held[name] for name in (*WORDS, "held", "last_second")} | {"distance": distance}
    scores["restyled"] = float(all(held[word] for word in WORDS) and distance <= NEAR)
    scores |= {name: moving[name] for name in ("warp_error", "clip_reference") if moving.get(name) is not None}
    return verdict, {name: scores[name] for name in RESTYLED if name in scores}


def distances(frames: np.ndarray, shape: str | None, pair: Pair) -> np.ndarray:
    """Distance [F] of the object, which has that shape, from the source's, frame by frame."""
    masks = shrink(segment(frames).masks)
    dx, dy = DIRECTIONS[pair.source.direction]
    times = np.arange(len(frames))[:, None]
    apart = centres(masks, shape) - (np.asarray(pair.start) + np.asarray((dx, dy)) * SPEED * times)
    found = np.linalg.norm((apart + 0.5) % 1 - 0.5, axis=1)
    return np.where(masks.mean((1, 2)) > LEAST_AREA, found, FARTHEST)


def restyle_estimates(clips: Sequence[RestyleRecord]) -> dict[str, Estimate]:
    """Mean and interval of every score that some clip has."""
    values = {name: [clip.scores[name] for clip in clips if name in clip.scores] for name in RESTYLED}
    return {name: estimate(found, most=MOST.get(name, 1.0)) for name, found in values.items() if found}


def below_bars(found: Mapping[str, Estimate]) -> list[str]:
    """Names of the scores whose means miss BARS, or NEAR."""
    missed = [name for name, least in BARS.items() if found[name].mean < least]
    return [*missed, *(["distance"] if found["distance"].mean > NEAR else [])]


def restyle_groups(clips: Mapping[int, RestyleRecord], pairs: Sequence[Pair]) -> dict[str, list[RestyleRecord]]:
    """Group the clips of an arm, by number, by the kind of their prompt: all, seen and held out."""
    kinds = {"all": (True, False), "seen": (False,), "held_out": (True,)}
    return {
        kind: [clip for number, clip in sorted(clips.items()) if pairs[number].asked.held_out in wanted]
        for kind, wanted in kinds.items()
    }


def record_of(arm: RestyleArm, number: int, verdict: Verdict, scores: Mapping[str, float]) -> dict:
    """The line of a clip, as `RestyleRecord` reads it."""
    return asdict(RestyleRecord(arm.name, number, {word: getattr(verdict, word) for word in WORDS}, dict(scores)))


def _only_moves_alike(source: Combination, target: Combination) -> bool:
    return source.direction == target.direction and all(
        getattr(source, word) != getattr(target, word) for word in ("shape", "colour", "background")
    )


def _strength_arm(clips: Clips, share: float) -> RestyleArm:
    what = {0.0: "the source, encoded and decoded", 1.0: "text to video"}.get(share, f"{share:g} of noise")
    return RestyleArm(f"s={share:g}", what, clips.plan(Restyle(share)))
