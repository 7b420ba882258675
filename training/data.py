"""Training clips as latents, with captions and geometry: rolls of the bank, teacher samples, student videos.

B clips, C channels (16), T latent frames, G the cells of a side of the square grid, K channels of the geometry.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from histream_core.demo.painter import (
    COLOURS,
    DIRECTIONS,
    HELD_OUT,
    SHAPES,
    SPEED,
    Combination,
    HeldOutError,
    signed_distance,
)
from histream_core.demo.painter import SENTENCES as SHAPE_SENTENCES
from histream_core.demo.scenes import Scene
from histream_core.demo.text import token_table
from histream_core.demo.words import SHAPE_WORDS
from histream_core.plan.presets import find_preset
from histream_core.plan.sizes import PIXEL_FRAMES_PER_LATENT
from histream_core.stream.resize import resize
from training.captions import DROPOUT, PARTIAL_SHARE, template
from training.checkpoint import read
from training.rng import Rng

BANK_FRAMES = 4
"""Latent frames in the bank; every later frame is a roll of the last one."""
CHANNELS = 16
RESIZE = find_preset("demo").resize
"""How latents are resized between LOW and HIGH."""
LOST = 0.3
"""Share of a perfect fit below which an object counts as lost."""
COVER, OUTLINE = 0, 1
"""Channels of the geometry that weight the loss: object cover of a cell, nearness of the outline."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """Options for drawing clips from the bank."""

    places: int = 16
    """Start positions per side for the object, at most one per LOW cell; 1 is the middle only."""
    noise_coupled: bool = False
    """Start at the place that fits the noise of chunk 0 best (`place`), so that the seed decides it."""
    shape_groups: bool = False
    """Draw groups of clips that differ in their shape alone: same colours, direction, place and noise."""
    dropout: float = DROPOUT
    partial: float = PARTIAL_SHARE


@dataclass(frozen=True, slots=True)
class Clips:
    """A batch of clean clips."""

    tokens: Tensor
    """Captions, [B, L]."""
    latents: Tensor
    """[B, C, T, G, G], normalised."""
    geometry: Tensor | None = None
    """[B, K, T, G, G]; None where it is unknown."""
    noise: Tensor | None = None
    """LOW noise of the first frames that belongs to the clip, [B, C, T', g, g]; None: any noise."""
    twin: Tensor | None = None
    """Index of the first clip of each clip's group, [B]; a group shares its noise. None: no groups."""
    index: Tensor | None = None
    """Index of each clip's combination in the bank, [B]; None for clips from elsewhere."""
    roll: Tensor | None = None
    """Cells by which the bank's clip is rolled down and right, [B, 2]; of scenes, latent frames ahead, [B, 1]."""
    seen: Tensor | None = None
    """Content of the window if it is not `latents`, [B, C, T, g, g]."""
    source: Tensor | None = None
    """The clips that these restyle, [B, C, T, G, G]; None where they begin with noise."""

    def shared(self, drawn: Tensor) -> Tensor:
        """Random numbers [B, ...] of every clip, made equal within each group."""
        return drawn if self.twin is None else drawn[self.twin]

    def at(self, grid: tuple[int, int]) -> "Clips":
        """Resize the clips to another grid, as the engine does."""
        geometry = None if self.geometry is None else resize(self.geometry, grid, "area")
        seen, source = (None if x is None else resize(x, grid, RESIZE) for x in (self.seen, self.source))
        return replace(self, latents=resize(self.latents, grid, RESIZE), geometry=geometry, seen=seen, source=source)


def clip_of_words(row: Sequence[str]) -> Combination | Scene:
    """The clip of a file's words: three are a scene, four a flat shape."""
    return (Scene if len(row) == len(fields(Scene)) else Combination)(*row)


def check_training(combinations: Iterable[Combination | Scene]) -> None:
    """Raise HeldOutError if one of them is held out."""
    for combination in combinations:
        if combination.held_out if isinstance(combination, Scene) else combination in HELD_OUT:
            raise HeldOutError(f"{' '.join(astuple(combination))} is held out: evaluation only")


class Bank:
    """All training combinations, encoded once; other places and later frames are rolls of them."""

    vocabulary = SHAPE_WORDS
    axes = 2
    """Numbers that tell which clip goes on where a video is: cells down and right."""

    def __init__(
        self, latents: Tensor, combinations: Sequence[Combination], scale: float = 1.0, device: str = "cpu"
    ) -> None:
        """Take `latents` [N, BANK_FRAMES, C, G, G] of objects that start in the middle, and their `scale`."""
        check_training(combinations)
        self.combinations, self.grid, self.device = list(combinations), latents.shape[-1], torch.device(device)
        geometry = torch.from_numpy(np.stack([describe(c, self.grid, scale) for c in combinations]))
        self.latents = latents.permute(0, 1, 3, 4, 2).contiguous().to(device)
        self.geometry = geometry.to(device)
        self.features = geometry.shape[-1]
        self.steps = torch.tensor([DIRECTIONS[c.direction] for c in combinations], device=device)
        groups = defaultdict(list)
        for index, c in enumerate(combinations):
            groups[c.colour, c.background, c.direction].append(index)
        self.groups = list(groups.values())

    @classmethod
    def load(cls, path: Path, device: str = "cpu", *, largest: int = 0) -> "Bank":
        """Load a bank. Raises ValueError where it is smaller than `largest`, the largest grid needed."""
        found = read(path)
        if (grid := found["latents"].shape[-1]) < largest:
            raise ValueError(
                f"{path} has {grid} cells a side but {largest} are asked for: train with --size {8 * grid} and no grid "
                f"above {grid}, or make a bank of --size {8 * largest}"
            )
        return cls(found["latents"], [Combination(*c) for c in found["combinations"]], found["scale"], device)

    def draw(self, rng: Rng, count: int, frames: Sequence[int], drawing: Drawing, low: int) -> Clips:
        """Draw `count` clips of these latent frames; places lie on the cells of the LOW grid, `low`."""
        chosen, called, twin = self.choose(rng.choices, count, drawing)
        index, twins = torch.tensor(chosen, device=self.device), torch.tensor(twin, device=self.device)
        tokens = self.captions(chosen, called)
        noise, places = None, min(drawing.places, low)
        if drawing.noise_coupled:
            noise = rng.normal(count, CHANNELS, 3, low, low)[twins]
            start, _ = self.gather(index, range(3), torch.zeros(count, 2, dtype=torch.long, device=self.device))
            roll = place(noise, resize(start, (low, low), RESIZE), places)[twins]
        else:
            roll = rng.below(places, count, 2)[twins] * (low // places)
        roll = roll * (self.grid // low)
        latents, geometry = self.gather(index, frames, roll)
        group = twins if drawing.shape_groups else None
        return Clips(tokens, latents, geometry, noise, group, index, roll)

    def at(self, clips: Clips, frames: Sequence[int]) -> Clips:
        """Other latent frames of the same clips."""
        latents, geometry = self.gather(clips.index, frames, clips.roll)
        return replace(clips, latents=latents, geometry=geometry)

    def gather(self, index: Tensor, frames: Sequence[int], roll: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, C, T, G, G] and geometry of combinations [B], rolled down and right by `roll` [B, 2] cells."""
        times = torch.tensor(frames, device=self.device, dtype=torch.long)
        held = times.clamp(max=BANK_FRAMES - 1)
        beyond = (times - held) * round(SPEED * PIXEL_FRAMES_PER_LATENT * self.grid)
        cells = torch.arange(self.grid, device=self.device)
        rows, columns = (
            (cells - (roll[:, axis, None] + beyond * self.steps[index, 1 - axis, None])[..., None]) % self.grid
            for axis in (0, 1)
        )
        where = index[:, None, None, None], held[:, None, None], rows[..., None], columns[:, :, None]
        return tuple(x[where].permute(0, 4, 1, 2, 3) for x in (self.latents, self.geometry))

    def catch_up(self, clips: Clips, frames: Sequence[int], shown: Tensor) -> Tensor:
        """The roll [B, 2] that aligns `clips` with a video whose `frames` are `shown` [B, C, T, g, g].

        Only along the direction of motion, in which a video may be ahead or behind. Where the video has lost the
        object, the clips keep their roll.
        """
        true = resize(self.at(clips, frames).latents, shown.shape[-2:], RESIZE)
        cells = shown.shape[-1]
        found, best = fit(shown, true).flatten(1).max(1)
        moved = torch.stack([best // cells, best % cells], dim=1) * (self.grid // cells)
        there = found > LOST * fit(true, true)[:, 0, 0]
        return clips.roll + there[:, None] * moved * self.steps[clips.index].abs().flip(1)

    def captions(self, chosen: Sequence[int], called: Sequence[str]) -> Tensor:
        """Caption tokens [B, L] of combinations, each by its template."""
        named = zip(chosen, called, strict=True)
        return token_table([self.combinations[i].caption(name) for i, name in named]).to(self.device)

    def whole(self, index: int) -> str:
        """A template that leaves nothing out."""
        return SHAPE_SENTENCES[0]

    def template(self, index: int, choices, dropout: float, partial: float) -> str:
        """Draw a caption template."""
        return template(choices, dropout, partial)

    def choose(self, choices, count: int, drawing: Drawing) -> tuple[list[int], list[str], list[int]]:
        """Draw combinations, caption templates, and for each clip the one whose noise it shares."""
        chosen, called, twin = [], [], []
        while len(chosen) < count:
            one = [choices.randrange(len(self.combinations))]
            group = choices.choice(self.groups) if drawing.shape_groups else one
            group = choices.sample(group, min(len(group), count - len(chosen)))  # cut anywhere: no shape comes last
            twin += [len(chosen)] * len(group)
            chosen += group
            called += [template(choices, drawing.dropout, drawing.partial)] * len(group)
        return chosen, called, twin


class Pairs:
    """Clips of the teacher with the noise they were sampled from (ODE pairs)."""

    def __init__(self, found: dict, device: str = "cpu") -> None:
        """`found`: tokens [N, L], noise [N, C, T, g, g], latents [N, C, T, G, G], and what was asked for."""
        check_training(clip_of_words(c) for c in found["combinations"])
        self.tokens, self.noise, self.latents = (found[key].to(device) for key in ("tokens", "noise", "latents"))

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> "Pairs":
        return cls(read(path), device)

    def draw(self, rng: Rng, count: int, frames: Sequence[int]) -> Clips:
        index, times = rng.below(len(self.tokens), count), torch.tensor(frames, device=self.tokens.device)
        latents, noise = (x[index][:, :, times].float() for x in (self.latents, self.noise))
        return Clips(self.tokens[index], latents, noise=noise)


def place(noise: Tensor, start: Tensor, places: int) -> Tensor:
    """The roll [B, 2] that moves clips `start` [B, C, T, g, g] to the place that fits `noise` of that shape best.

    There are `places` candidates a side. On a torus all are equally likely, so the noise stays Gaussian, and a network
    that finds a faint picture in noise learns one place for it instead of the average of all places.
    """
    step = noise.shape[-1] // places
    best = fit(noise, start)[:, ::step, ::step].flatten(1).argmax(1)
    return torch.stack([best // places, best % places], dim=1) * step


def fit(shown: Tensor, template: Tensor) -> Tensor:
    """Circular cross-correlation [B, g, g] of `template` with `shown`, [B, C, T, g, g] both: the fit at every roll."""
    template = template - template.mean((3, 4), keepdim=True)
    return torch.fft.ifft2((torch.fft.fft2(shown) * torch.fft.fft2(template).conj()).sum((1, 2))).real


def describe(combination: Combination, grid: int, scale: float = 1.0) -> np.ndarray:
    """Geometry of a combination that starts in the middle, [BANK_FRAMES, G, G, K] float32, from the painter.

    For every cell, averaged over the pixel frames of the latent frame: cover, nearness of the outline, distance and
    direction to it, and where there is an object, its shape, colour and direction of motion.
    """
    cells = (np.arange(grid) + 0.5) / grid
    dx, dy = DIRECTIONS[combination.direction]
    one_hot = [float(combination.shape == shape) for shape in SHAPES]
    words = np.array([*one_hot, *COLOURS[combination.colour], dx, dy], np.float32)
    ground = np.broadcast_to(np.array(COLOURS[combination.background], np.float32), (grid, grid, 3))
    frames = []
    for latent in range(BANK_FRAMES):
        first = max(0, PIXEL_FRAMES_PER_LATENT * (latent - 1) + 1)
        moments = []
        for t in range(first, PIXEL_FRAMES_PER_LATENT * latent + 1):
            x, y = (
                (((cells - 0.5 - step * SPEED * t + 0.5) % 1) - 0.5)[index]
                for step, index in ((dx, np.s_[None, :]), (dy, np.s_[:, None]))
            )
            distance = grid * scale * signed_distance(combination.shape, x / scale, y / scale)
            down, right = np.gradient(distance)
            cover = np.clip(0.5 - distance, 0, 1)
            near = np.clip(1.5 - np.abs(distance), 0, 1)
            moments.append(np.stack([cover, near, np.tanh(distance / 4), near * down, near * right], axis=-1))
        shown = np.mean(moments, axis=0, dtype=np.float32).astype(np.float32)
        frames.append(np.concatenate([shown, shown[..., :1] * words, ground], axis=-1))
    return np.stack(frames)


def cell_weights(geometry: Tensor, object_weight: float, outline_weight: float, fade: Tensor | None = None) -> Tensor:
    """Weights of cells in the loss, [B, 1, T, G, G] with mean 1, larger for object and outline.

    With `fade`, sigmas [B], the extra weight fades with the noise: a weight that depends on what the network cannot
    see would bias its estimate towards objects, and a teacher's estimate has to be the mean.
    """
    extra = (object_weight - 1) * geometry[:, COVER] + (outline_weight - 1) * geometry[:, OUTLINE]
    if fade is not None:
        extra = extra * (1 - fade)[:, None, None, None]
    weight = 1 + extra[:, None]
    return weight / weight.mean((2, 3, 4), keepdim=True)
