"""More than the demo model's world: textures, other motions, camera moves and cuts, from a seed, named in words.

The bundled model is trained on the plain world of `painter` alone, and its text encoder knows none of these words. A
scene with all options off is that world. Pure numpy; clips are [F, H, W, 3] float32 in [0, 1], positions are fractions
of the frame, x to the right, y down.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np

from .painter import (
    COLOURS,
    DIRECTIONS,
    HELD_OUT,
    SPEED,
    Combination,
    HeldOutError,
    all_combinations,
    signed_distance,
    training_combinations,
)

PERIOD = 64
"""Frames after which waves, circles, spins and pulses are where they were; how long a zoom takes."""
WAVE, SWAY, ORBIT, PULSE = 0.1, 0.25, 0.2, 0.25
CELL = 1 / 16
"""Width of a stripe, a square and half the distance of two dots."""
SHADE = 0.6
"""How bright the darker part of a texture is."""
PAN_SPEED = 1 / 128
CLOSE = 0.5
"""Part of the frame that is seen when the camera is near."""

TEXTURES = ("flat", "striped", "checkered", "dotted")

MOTIONS = {
    "straight": "",
    "waves": "in waves",
    "sway": "back and forth",
    "circles": "in circles",
    "spin": "spinning",
    "pulse": "pulsing",
}
"""What an object does besides its direction, and how that is said."""

CAMERAS = {
    "still": "",
    "pan-right": "the camera pans right",
    "pan-left": "the camera pans left",
    "pan-down": "the camera pans down",
    "pan-up": "the camera pans up",
    "zoom-in": "the camera zooms in",
    "zoom-out": "the camera zooms out",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """What a clip shows; after `cut` frames it shows `then`."""

    combination: Combination
    texture: str = "flat"
    ground: str = "flat"
    """Texture of the background."""
    motion: str = "straight"
    camera: str = "still"
    cut: int | None = None
    then: Scene | None = None

    def __post_init__(self):
        for value, known in (
            (self.texture, TEXTURES),
            (self.ground, TEXTURES),
            (self.motion, MOTIONS),
            (self.camera, CAMERAS),
        ):
            if value not in known:
                raise ValueError(f'a scene has nothing that is called "{value}": use one of {", ".join(known)}')
        if (self.cut is None) != (self.then is None) or (self.cut is not None and self.cut < 1):
            raise ValueError(f"a cut after {self.cut} frames needs a scene after it: give both, 1 frame or more")

    def caption(self) -> str:
        """The scene in words; a plain one has the painter's."""
        c = self.combination
        kind, ground = ("" if texture == "flat" else f"{texture} " for texture in (self.texture, self.ground))
        action = " ".join(filter(None, (f"moves {c.direction}", MOTIONS[self.motion])))
        words = [f"a {kind}{c.colour} {c.shape} {action} on a {ground}{c.background} background"]
        words += filter(None, [CAMERAS[self.camera], self.then and f"cut to {self.then.caption()}"])
        return ", ".join(words)

    def combinations(self) -> list[Combination]:
        """All that are shown, before and after cuts."""
        return [self.combination, *(self.then.combinations() if self.then else ())]


@dataclass(frozen=True, slots=True)
class Options:
    """Which parts of a scene are drawn; the others are plain."""

    textures: bool = False
    motions: bool = False
    cameras: bool = False
    cuts: bool = False


def draw_scene(rng: random.Random, options: Options, *, num_frames: int, training: bool) -> Scene:
    """A scene for a clip of `num_frames`; with `training`, of combinations that are not held out.

    Every second clip is cut where cuts are drawn and the clip has at least two frames.
    """
    scene = Scene(rng.choice(training_combinations() if training else all_combinations()))
    if options.textures:
        scene = replace(scene, texture=rng.choice(TEXTURES), ground=rng.choice(TEXTURES))
    if options.motions:
        scene = replace(scene, motion=rng.choice(list(MOTIONS)))
    if options.cameras:
        scene = replace(scene, camera=rng.choice(list(CAMERAS)))
    if options.cuts and num_frames > 1 and rng.random() < 0.5:
        cut = rng.randrange(1, num_frames)
        after = draw_scene(rng, replace(options, cuts=False), num_frames=num_frames - cut, training=training)
        scene = replace(scene, cut=cut, then=after)
    return scene


def paint_scene(
    scene: Scene,
    times: Sequence[int],
    *,
    size: int = 256,
    start: tuple[float, float] = (0.5, 0.5),
    training: bool,
) -> np.ndarray:
    """The frames of a scene at `times`, [len(times), size, size, 3] float32 in [0, 1].

    After a cut the object starts in the middle. With `training` a held-out combination, before or after a cut, raises
    HeldOutError.
    """
    for combination in scene.combinations():
        if training and combination in HELD_OUT:
            raise HeldOutError(f"{' '.join(astuple(combination))} is held out: evaluation only")
    frames = np.empty((len(times), size, size, 3), np.float32)
    for index, time in enumerate(times):
        frames[index] = _paint(*_at(scene, time, start), size)
    return frames


def _at(scene: Scene, time: int, start: tuple[float, float]) -> tuple[Scene, int, tuple[float, float]]:
    """The scene that is shown at a time, the time since its beginning, and where its object began."""
    while scene.cut is not None and time >= scene.cut:
        scene, time, start = scene.then, time - scene.cut, (0.5, 0.5)
    return scene, time, start


def _paint(scene: Scene, time: int, start: tuple[float, float], size: int) -> np.ndarray:
    """One frame."""
    c = scene.combination
    seen, pan_x, pan_y = _camera(scene.camera, time)
    pixel = (np.arange(size) + 0.5) / size - 0.5
    world_x, world_y = 0.5 + pan_x + seen * pixel[None, :], 0.5 + pan_y + seen * pixel[:, None]
    place_x, place_y, angle, scale = _move(scene.motion, DIRECTIONS[c.direction], time)
    x, y = ((world - place + 0.5) % 1 - 0.5 for world, place in
            ((world_x, start[0] + place_x), (world_y, start[1] + place_y)))  # fmt: skip
    x, y = (math.cos(angle) * x + math.sin(angle) * y) / scale, (math.cos(angle) * y - math.sin(angle) * x) / scale
    cover = np.clip(0.5 - scale * signed_distance(c.shape, x, y) * size / seen, 0, 1)[..., None]
    ink = np.asarray(COLOURS[c.colour]) * _shade(scene.texture, x, y)[..., None]
    ground = np.asarray(COLOURS[c.background]) * _shade(scene.ground, world_x, world_y)[..., None]
    return ground + (ink - ground) * cover


def _camera(camera: str, time: int) -> tuple[float, float, float]:
    """Which part of the frame's width is seen, and how far the camera has gone right and down."""
    kind, _, way = camera.partition("-")
    if kind == "pan":
        dx, dy = DIRECTIONS[way]
        return 1.0, dx * PAN_SPEED * time, dy * PAN_SPEED * time
    if kind == "zoom":
        near = min(1.0, time / PERIOD)
        return CLOSE ** (near if way == "in" else 1 - near), 0.0, 0.0
    return 1.0, 0.0, 0.0


def _move(motion: str, direction: tuple[int, int], time: int) -> tuple[float, float, float, float]:
    """How far an object has gone right and down, how far it has turned, and how large it is."""
    turn, along = 2 * math.pi * time / PERIOD, SPEED * time
    across, angle, scale = 0.0, 0.0, 1.0
    if motion == "waves":
        across = WAVE * math.sin(turn)
    elif motion == "sway":
        along = SWAY * math.sin(turn)
    elif motion == "circles":
        along, across = ORBIT * math.sin(turn), ORBIT * (1 - math.cos(turn))
    elif motion == "spin":
        angle = turn
    elif motion == "pulse":
        scale = 1 - PULSE * (1 - math.cos(turn)) / 2
    dx, dy = direction
    return dx * along - dy * across, dy * along + dx * across, angle, scale


def _shade(texture: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How bright each pixel of a texture is, [H, W]."""
    u, v = np.broadcast_arrays(x / CELL, y / CELL)
    dark = {
        "flat": np.zeros(u.shape, bool),
        "striped": np.floor(u) % 2 == 1,
        "checkered": (np.floor(u) + np.floor(v)) % 2 == 1,
        "dotted": np.hypot(u % 2 - 1, v % 2 - 1) < 0.5,
    }[texture]
    return np.where(dark, SHADE, 1.0)
