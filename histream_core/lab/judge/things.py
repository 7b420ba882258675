"""Which thing moves how over which place in a clip of a scene, second by second, by the pictures it is painted with.

Every frame is compared with each place, and what differs with each thing, laid where the difference is and as large.
F frames, H W pixels (multiples of GRID), G the side of the square grid that is compared, T things, P poses. Positions
are fractions of the frame, x to the right, y down, on a torus.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...demo.painter import DIRECTIONS
from ...demo.scene_painter import Pictures, View, cut_out, place
from ...demo.scenes import HOP, LEAST_WIDTH, MOST_WIDTH, MOTIONS, PLACES, ROUND, SWELL, THINGS, Scene, Staging
from .judge import GRID, LAG, check_length
from .throughout import LEAST_SIZE, PRESENCE, only, stretches

SCENE_WORDS = ("thing", "place", "motion")
"""Kinds of words in a prompt of a scene."""

PLACE_REACH, THING_REACH = 0.10, 0.12
"""Largest mean difference of colour from a place, and from a thing over it, that has its name."""

PLACE_SHARE = 0.6
"""Share of the frame that must be the place: the largest things leave more of it."""

FAINT, CLEAR = 0.08, 0.20
"""Distances in RGB from a place between which a pixel becomes one of a thing."""

LEAST_COVER = 0.01
"""Share of the frame that makes a thing."""

WIDTHS = (0.94, 1.0, 1.08)
"""Widths of a thing that are compared, relative to the one that the covered area tells."""

TURNS = 32
"""Poses of a round that a turning thing is compared in."""

COARSE, SHORTLIST = 2, 4
"""Cells between those at which all things are compared first, and how many are then fitted."""

MOTION_REACH = 0.03
"""Largest deviation of a track from that of a motion, in fractions of the frame (root of the mean square)."""

TURN_REACH = 1.5
"""Most that the poses of a turn may differ by, against the best pose of every frame; means over frames."""

NEAR, STEPS, SHIFTS = 0.03, (0.03, 0.03, 0.015), ((0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))
"""Mean difference below which a fit is left alone; how far, and which ways, a thing is moved to fit better."""

FILL = 0.7
"""Width of the things that are kept for comparison, as a share of the grid: it leaves room to turn."""

SSIM_WINDOW = 7
SSIM_FLOORS = 0.01**2, 0.03**2


@dataclass(frozen=True, slots=True)
class Poses:
    """All things in the poses that a motion shows: T P pictures."""

    cuts: Tensor
    """Colours times opacity, and opacity, [T, P, 4, G, G], FILL wide."""
    middles: Tensor
    """From the middle of the picture to the middle of what is opaque, [T, P, 2]."""
    covers: Tensor
    """Share of the grid that is covered, [T, P]."""


@dataclass(frozen=True, slots=True)
class Glance:
    """The thing, its place and its size that one frame shows."""

    place: str | None
    thing: str | None
    centre: np.ndarray
    """Centre of the picture of the thing that was asked for, [2]."""
    width: float
    """Width of that picture, as a share of the frame; 0 where there is nothing."""
    apart: np.ndarray
    """Mean difference from the thing that was asked for, in each pose, [P]."""
    likeness: float
    """SSIM of the frame and that thing over its place, where either is."""


@dataclass(frozen=True, slots=True)
class SceneSecond:
    """The words that a second shows in all its frames; None where they differ, or none is shown."""

    thing: str | None
    place: str | None
    motion: str | None
    least_width: float
    most_width: float
    likeness: float
    """SSIM with the true picture at its place, mean over the frames; the painter's own clips are below 1 too."""

    def holds(self, asked: Scene) -> dict[str, bool]:
        """Which of presence and SCENE_WORDS are as a scene asks for."""
        swell = SWELL if asked.motion == "grows" else 0
        least, most = LEAST_WIDTH * (1 - swell), MOST_WIDTH * (1 + swell)
        reach = math.sqrt(LEAST_SIZE)
        there = least * reach <= self.least_width and self.most_width <= most / reach
        return {PRESENCE: there} | {word: getattr(self, word) == getattr(asked, word) for word in SCENE_WORDS}

    def outline(self, asked: Scene) -> float:  # noqa: ARG002
        """How much the thing is like its picture."""
        return self.likeness


class SceneJudge:
    """Reads clips of scenes; it needs the pictures, of which nothing is kept on the disk."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self.places = torch.cat([_small(place(name, GRID)[None]) for name in PLACES])
        self.poses: dict[str, Poses] = {}

    def read_seconds(self, frames: np.ndarray, asked: Scene) -> list[SceneSecond]:
        """The seconds of a clip [F, H, W, 3] in [0, 1], things in the poses of the motion that is asked for.

        Raises ValueError for frames of another shape, and for too few to read motion from.
        """
        check_length(frames)
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.shape[1] % GRID or frames.shape[2] % GRID:
            raise ValueError(f"the judge reads frames [F, H, W, 3] of multiples of {GRID} pixels, got {frames.shape}")
        glances = self.look(frames, asked)
        return [_second(glances, stretch) for stretch in stretches(len(frames))]

    def start_of(self, frame: np.ndarray, asked: Scene) -> tuple[np.ndarray, float] | None:
        """Place [2] and width of the thing that is asked for in a frame [H, W, 3]; None where it shows no such one."""
        [glance] = self.look(frame[None], asked)
        return (glance.centre, glance.width) if glance.thing == asked.thing else None

    @torch.inference_mode()
    def look(self, frames: np.ndarray, asked: Scene) -> list[Glance]:
        """Return a glance at each frame."""
        poses = self._poses(asked.motion)
        return [self._look(_small(frame[None])[0], poses, list(THINGS).index(asked.thing)) for frame in frames]

    def _poses(self, motion: str) -> Poses:
        if motion not in self.poses:
            times = [ROUND * turn // TURNS for turn in range(TURNS)] if motion == "turns" else [0]
            staging, view = Staging((0.5, 0.5), FILL), View(GRID)
            cuts = torch.stack(
                [
                    cut_out(Scene(thing, PLACES[0], motion), times, self.pictures[thing], staging, view)
                    for thing in THINGS
                ]
            )
            middles = torch.stack([_middle(cut[3]) - 0.5 for cut in cuts.flatten(0, 1)]).unflatten(0, cuts.shape[:2])
            self.poses[motion] = Poses(cuts, middles, cuts[:, :, 3].mean((2, 3)))
        return self.poses[motion]

    def _look(self, frame: Tensor, poses: Poses, asked: int) -> Glance:
        """Look at a frame [3, G, G] for all things, of which one is asked for."""
        apart = (frame - self.places).abs().mean(1).flatten(1).quantile(PLACE_SHARE, dim=1)
        nearest = int(apart.argmin())
        where = PLACES[nearest] if apart[nearest] <= PLACE_REACH else None
        ground = self.places[nearest]
        mask = (((frame - ground).norm(dim=0) - FAINT) / (CLEAR - FAINT)).clamp(0, 1)
        count = poses.covers.shape[1]
        if (cover := mask.mean()) < LEAST_COVER:
            return Glance(where, None, np.zeros(2), 0.0, np.ones(count), 0.0)
        spot = _Spot(frame, ground, mask, _middle(mask))
        widths = FILL * (cover / poses.covers).sqrt()
        rough = spot.apart(poses, widths, COARSE)
        named = sorted({asked, *rough.amin(1).argsort()[:SHORTLIST].tolist()})
        fine = {thing: spot.fit(poses, widths, (thing, int(rough[thing].argmin()))) for thing in named}
        best = min(fine, key=lambda thing: fine[thing].apart)
        mine = fine[asked]
        return Glance(
            place=where,
            thing=list(THINGS)[best] if where and fine[best].apart <= THING_REACH else None,
            centre=mine.centre,
            width=mine.width,
            apart=rough[asked].numpy(),
            likeness=mine.likeness,
        )


@dataclass(frozen=True, slots=True)
class _Fit:
    """Where and how wide a thing is nearest to a frame."""

    apart: float
    width: float
    centre: np.ndarray
    likeness: float


@dataclass(frozen=True, slots=True)
class _Spot:
    """A frame [3, G, G], its place, and where [G, G] and around which middle [2] it is not the place."""

    frame: Tensor
    ground: Tensor
    mask: Tensor
    middle: Tensor

    def apart(self, poses: Poses, widths: Tensor, every: int) -> Tensor:
        """Mean difference from all things in all poses [T, P], `widths` wide, at every so manieth cell."""
        cuts = _lay(poses.cuts.flatten(0, 1), poses.middles.flatten(0, 1), widths.flatten(), self.middle[None], every)
        return _difference(*self.parts(every), cuts).unflatten(0, widths.shape)

    def fit(self, poses: Poses, widths: Tensor, about: tuple[int, int]) -> _Fit:
        """Fit a thing in WIDTHS, in a pose and those beside it; where that is not near, also at places beside it."""
        thing, pose = about
        middle, width = self.middle, float(widths[thing, pose])
        for step in (0.0, *STEPS):
            near = sorted({(pose + turn) % poses.covers.shape[1] for turn in (-1, 0, 1)})
            shifts = (torch.tensor(SHIFTS) * step)[: len(SHIFTS) if step else 1]
            tried = torch.tensor(list(itertools.product(near, range(len(shifts)), WIDTHS)))
            chosen, places, wide = tried[:, 0].long(), middle + shifts[tried[:, 1].long()], width * tried[:, 2]
            cuts = _lay(poses.cuts[thing, chosen], poses.middles[thing, chosen], wide, places, COARSE)
            apart = _difference(*self.parts(COARSE), cuts)
            best = int(apart.argmin())
            pose, middle, width = int(chosen[best]), places[best], float(wide[best])
            if apart[best] < NEAR:
                break
        size = torch.tensor([width])
        [cut] = cuts = _lay(poses.cuts[thing, pose][None], poses.middles[thing, pose][None], size, middle[None], 1)
        ideal, region = cut[:3] + self.ground * (1 - cut[3:]), torch.maximum(cut[3], self.mask)
        alike = (ssim(self.frame[None], ideal[None])[0] * region).sum() / region.sum()
        centre = (middle - poses.middles[thing, pose] * width / FILL) % 1
        return _Fit(float(_difference(*self.parts(1), cuts)), width, centre.numpy(), float(alike))

    def parts(self, every: int) -> tuple[Tensor, Tensor, Tensor]:
        """Frame, place and mask at every so manieth cell."""
        return self.frame[..., ::every, ::every], self.ground[..., ::every, ::every], self.mask[::every, ::every]


def _small(frames: np.ndarray) -> Tensor:
    """Frames [F, H, W, 3] at [F, 3, G, G]."""
    found = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    return found if found.shape[-2:] == (GRID, GRID) else F.interpolate(found, (GRID, GRID), mode="area")


def _middle(mask: Tensor) -> Tensor:
    """Circular mean [2] of where a mask [G, G] is set."""
    turn = torch.exp(2j * math.pi * (torch.arange(GRID) + 0.5) / GRID)
    return torch.stack([torch.angle((mask.sum(axis) * turn).sum()) / (2 * math.pi) for axis in (0, 1)]) % 1


def _lay(cuts: Tensor, middles: Tensor, widths: Tensor, at: Tensor, every: int) -> Tensor:
    """Pictures [N, 4, g, g] of things laid with middles `at` [N or 1, 2] and [N] wide, at every so manieth cell."""
    axis = (torch.arange(0, GRID, every) + 0.5) / GRID
    x, y = (
        2 * (middles[:, i, None] + ((axis - at[:, i, None] + 0.5) % 1 - 0.5) * FILL / widths[:, None]) for i in (0, 1)
    )
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
    return F.grid_sample(cuts, grid, align_corners=False)


def _difference(frame: Tensor, ground: Tensor, mask: Tensor, cuts: Tensor) -> Tensor:
    """Mean difference [N] of a frame from things [N, 4, g, g] over their place, where either is."""
    ideal = cuts[:, :3] + ground * (1 - cuts[:, 3:])
    region = torch.maximum(cuts[:, 3], mask)
    return ((frame - ideal).abs().mean(1) * region).sum((1, 2)) / region.sum((1, 2))


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Structural similarity [N, G, G] of pictures [N, 3, G, G], mean over the channels, in uniform windows."""
    mean_one, mean_other, square_one, square_other, both = (
        F.avg_pool2d(F.pad(x, (SSIM_WINDOW // 2,) * 4, mode="reflect"), SSIM_WINDOW, 1)
        for x in (one, other, one * one, other * other, one * other)
    )
    vary = square_one - mean_one**2 + square_other - mean_other**2
    together = both - mean_one * mean_other
    light = (2 * mean_one * mean_other + SSIM_FLOORS[0]) / (mean_one**2 + mean_other**2 + SSIM_FLOORS[0])
    return (light * (2 * together + SSIM_FLOORS[1]) / (vary + SSIM_FLOORS[1])).mean(1)


def _second(glances: Sequence[Glance], stretch: range) -> SceneSecond:
    """Read a second; its motion is read from the frames just before it too."""
    now = glances[stretch.start : stretch.stop]
    widths = [glance.width for glance in now]
    return SceneSecond(
        thing=only(glance.thing for glance in now),
        place=only(glance.place for glance in now),
        motion=_motion(glances[max(0, stretch.start - LAG) : stretch.stop]) if min(widths) else None,
        least_width=min(widths),
        most_width=max(widths),
        likeness=float(np.mean([glance.likeness for glance in now])),
    )


def _motion(glances: Sequence[Glance]) -> str | None:
    """The motion whose track fits that of a thing best, and well enough."""
    if not all(glance.width for glance in glances):
        return None
    centres = np.stack([glance.centre for glance in glances])
    steps = (np.diff(centres, axis=0) + 0.5) % 1 - 0.5
    path = np.concatenate([np.zeros((1, 2)), steps.cumsum(0)])
    widths = np.array([glance.width for glance in glances])
    track = np.column_stack([path, widths])
    deviations = {motion: _deviation(track, motion) for motion in MOTIONS}
    if deviations["turns"] <= MOTION_REACH and _turns(np.stack([glance.apart for glance in glances])):
        return "turns"
    best = min(deviations, key=lambda motion: deviations[motion])
    return best if deviations[best] <= MOTION_REACH and best != "turns" else None


def _deviation(track: np.ndarray, motion: str) -> float:
    """By how much a track [F, 3] of place and width deviates from that of a motion, wherever it begins."""
    t, least = np.arange(len(track)), math.inf
    dx, dy = DIRECTIONS.get(motion, (0, 0))
    for start in range(ROUND if motion in ("bounces", "grows") else 1):
        wave = np.sin(2 * np.pi * (t + start) / ROUND)
        hop = HOP * np.abs(wave) if motion == "bounces" else 0 * wave
        swell = 1 + SWELL * wave if motion == "grows" else 1 + 0 * wave
        size = track[:, 2].mean() / swell.mean()
        off = track - np.column_stack([dx * t / ROUND, dy * t / ROUND - hop, size * swell])
        least = min(least, float(np.sqrt(((off - off.mean(0)) ** 2).sum(1).mean())))
    return least


def _turns(apart: np.ndarray) -> bool:
    """Whether the pose changes as that of a turning thing does, from its difference in each pose, [F, P]."""
    frames, count = apart.shape
    if count == 1:
        return False
    t = np.arange(frames)
    still, turning, back = (
        min(float(apart[t, (start + shift) % count].mean()) for start in range(count))
        for shift in (np.round(rate * t * count / ROUND).astype(int) for rate in (0, 1, -1))
    )
    return turning < min(still, back) and turning <= TURN_REACH * float(apart.min(1).mean())
