"""Painter of scenes: a thing from a picture moves over a painted place.

The pictures are those of Microsoft's Fluent Emoji in 3D (MIT), files of the npm package @lobehub/fluent-emoji-3d; none
of them is here. Clips are [F, H, W, 3] float32 in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .painter import BACKGROUNDS, COLOURS, DIRECTIONS, HeldOutError
from .scenes import HOP, LEFT, ROUND, SWELL, THINGS, TIP, Scene, Staging

Pictures = Mapping[str, Tensor]
"""By name of a thing: colours times opacity, and opacity, [4, H, W] float32 in [0, 1]."""


@dataclass(frozen=True, slots=True)
class View:
    """The part of a world `size` pixels wide that is painted: top, left, height, width; None for all of it."""

    size: int = 256
    window: tuple[int, int, int, int] | None = None

    @property
    def part(self) -> tuple[int, int, int, int]:
        return self.window or (0, 0, self.size, self.size)


def paint_scene(
    scene: Scene,
    times: Sequence[int],
    pictures: Pictures,
    *,
    staging: Staging | None = None,
    view: View | None = None,
    training: bool,
) -> np.ndarray:
    """Paint the pixel frames at `times`, [F, H, W, 3]; with `training` a held-out scene raises HeldOutError."""
    if training and scene.held_out:
        raise HeldOutError(f"{' '.join(astuple(scene))} is held out: evaluation only")
    staging, view = staging or Staging(), view or View()
    thing = cut_out(scene, times, pictures[scene.thing], staging, view)
    top, left, height, width = view.part
    ground = torch.from_numpy(place(scene.place, view.size)[top : top + height, left : left + width]).permute(2, 0, 1)
    frames = thing[:, :3] + ground * (1 - thing[:, 3:])
    return frames.permute(0, 2, 3, 1).clamp(0, 1).numpy()


def cut_out(scene: Scene, times: Sequence[int], picture: Tensor, staging: Staging, view: View) -> Tensor:
    """The thing alone at `times`: colours times opacity, and opacity, [F, 4, H, W]."""
    t = torch.as_tensor(list(times), dtype=torch.float32)
    phase = t / ROUND
    dx, dy = DIRECTIONS.get(scene.motion, (0, 0))
    hop = HOP * (torch.sin(2 * math.pi * phase)).abs() if scene.motion == "bounces" else 0 * phase
    centre = staging.start[0] + dx * phase, staging.start[1] + dy * phase - hop
    wide = staging.width * (1 + (SWELL * torch.sin(2 * math.pi * phase) if scene.motion == "grows" else 0 * phase))
    turn = heading(scene) + (2 * math.pi * phase if scene.motion == "turns" else 0 * phase)
    top, left, height, width = view.part
    pixels = torch.arange(left, left + width), torch.arange(top, top + height)
    x, y = (((p[None] + 0.5) / view.size - c[:, None] + 0.5) % 1 - 0.5 for p, c in zip(pixels, centre, strict=True))
    x, y = x[:, None, :] * 2 / wide[:, None, None], y[:, :, None] * 2 / wide[:, None, None]
    cos, sin = torch.cos(turn)[:, None, None], torch.sin(turn)[:, None, None]
    grid = torch.stack([cos * x + sin * y, cos * y - sin * x], dim=-1)
    if THINGS[scene.thing][1] == LEFT and scene.motion == "right":
        grid[..., 0] *= -1
    return F.grid_sample(
        _shrunk(picture, staging.width * view.size).expand(len(t), -1, -1, -1), grid, align_corners=False
    )


def heading(scene: Scene) -> float:
    """By how much the picture is turned clockwise: a tip shows where the thing moves, otherwise up."""
    if THINGS[scene.thing][1] != TIP:
        return 0.0
    return math.radians({"right": 45, "down": 135, "left": -135}.get(scene.motion, -45))


def _shrunk(picture: Tensor, width: float) -> Tensor:
    """A picture [1, 4, H, W] halved until it is less than twice as wide as it will be shown."""
    found = picture[None]
    while found.shape[-1] >= 2 * width:
        found = F.avg_pool2d(found, 2)
    return found


@cache
def place(name: str, size: int) -> np.ndarray:
    """A place without anything in it, [size, size, 3]; the left edge goes on at the right one."""
    if name in BACKGROUNDS:
        return np.broadcast_to(np.asarray(COLOURS[name], np.float32), (size, size, 3)).copy()
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    return np.clip(_PAINTERS[name](axis[None, :], axis[:, None], size), 0, 1).astype(np.float32)


def _sky(y: np.ndarray, top: Sequence[float], bottom: Sequence[float]) -> np.ndarray:
    share = np.clip(y, 0, 1)[..., None]
    return np.asarray(top) * (1 - share) + np.asarray(bottom) * share


def _over(below: np.ndarray, colour: Sequence[float] | np.ndarray, depth: np.ndarray, size: int) -> np.ndarray:
    """Lay a colour where `depth`, the distance inside in fractions of the frame, is above 0."""
    cover = np.clip(0.5 + depth * size, 0, 1)[..., None]
    return below + (np.asarray(colour) - below) * cover


def _ridge(x: np.ndarray, height: float, swing: float, waves: int, phase: float) -> np.ndarray:
    return height + swing * np.sin(2 * np.pi * (waves * x + phase))


def _disc(x: np.ndarray, y: np.ndarray, at: tuple[float, float], radius: float) -> np.ndarray:
    return radius - np.hypot(x - at[0], y - at[1])


def _meadow(x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    view = _sky(y / 0.6 + 0 * x, (0.42, 0.72, 0.96), (0.82, 0.93, 0.99))
    view = _over(view, (1.0, 0.93, 0.55), _disc(x, y, (0.8, 0.16), 0.08), size)
    view = _over(view, (0.55, 0.78, 0.42), y - _ridge(x, 0.58, 0.05, 1, 0.1), size)
    return _over(view, _sky((y - 0.7) / 0.3 + 0 * x, (0.40, 0.70, 0.30), (0.26, 0.56, 0.22)),
                 y - _ridge(x, 0.72, 0.03, 2, 0.4), size)  # fmt: skip


def _sea(x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    view = _sky(y / 0.4 + 0 * x, (0.58, 0.84, 0.98), (0.93, 0.97, 1.0))
    bands = (0.40, (0.16, 0.62, 0.78)), (0.56, (0.10, 0.50, 0.70)), (0.76, (0.06, 0.38, 0.60))
    for number, (height, colour) in enumerate(bands):
        view = _over(view, colour, y - _ridge(x, height, 0.012 * (number + 1), 4 - number, 0.3 * number), size)
    return view


def _night(x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    view = _sky(y + 0 * x, (0.04, 0.05, 0.18), (0.22, 0.16, 0.42))
    for number in range(14):
        at = (0.07 + 0.618034 * number) % 1, (0.05 + 0.7548777 * number) % 0.8
        view = _over(view, (1.0, 0.97, 0.85), _disc(x, y, at, 0.007 + 0.004 * (number % 3)), size)
    view = _over(view, (0.98, 0.95, 0.80), _disc(x, y, (0.2, 0.2), 0.09), size)
    return _over(view, (0.07, 0.07, 0.20), y - _ridge(x, 0.88, 0.03, 2, 0.2), size)


def _desert(x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    view = _sky(y / 0.6 + 0 * x, (0.98, 0.66, 0.42), (1.0, 0.88, 0.66))
    view = _over(view, (1.0, 0.97, 0.82), _disc(x, y, (0.25, 0.25), 0.09), size)
    view = _over(view, (0.88, 0.62, 0.34), y - _ridge(x, 0.60, 0.05, 1, 0.55), size)
    return _over(view, (0.76, 0.48, 0.24), y - _ridge(x, 0.78, 0.04, 1, 0.0), size)


def _snow(x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    view = _sky(y / 0.6 + 0 * x, (0.60, 0.70, 0.84), (0.86, 0.90, 0.96))
    view = _over(view, (0.80, 0.87, 0.95), y - _ridge(x, 0.55, 0.06, 1, 0.7), size)
    for at in (0.12, 0.34, 0.86):
        depth = np.minimum(0.35 * (y - 0.48) - np.abs(x - at), 0.70 - y)
        view = _over(view, (0.16, 0.38, 0.36), depth, size)
    return _over(view, (0.96, 0.97, 0.99), y - _ridge(x, 0.70, 0.025, 2, 0.15), size)


_PAINTERS = {"meadow": _meadow, "sea": _sea, "night": _night, "desert": _desert, "snow": _snow}
