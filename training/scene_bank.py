"""Training clips of scenes as latents: every motion begins again after ROUND frames, so a clip is a cycle.

A bank is a folder that `make_bank --pictures` fills. N clips, R latent frames of a cycle, C channels (16), G the cells
of a side. A clip that starts at another moment, or a later latent frame, is another place in the cycle; only the first
latent frames of a video, which have no past, are encoded apart, for STARTS moments.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from histream_core.demo import painter, scenes
from histream_core.demo.painter import Combination
from histream_core.demo.scenes import ROUND, Scene
from histream_core.demo.staging import along, motion_of, tell
from histream_core.demo.text import token_table
from histream_core.demo.words import VOCABULARY
from histream_core.plan.sizes import PIXEL_FRAMES_PER_LATENT
from histream_core.stream.resize import resize
from training.captions import SCENE_STILL, STILL, scene_template, template
from training.checkpoint import read
from training.data import CHANNELS, LOST, RESIZE, Bank, Clips, Drawing, check_training, clip_of_words
from training.rng import Rng

CYCLE = ROUND // PIXEL_FRAMES_PER_LATENT
"""Latent frames after which a clip begins again."""
STARTS = 4
"""Moments of the cycle that a video can begin at."""
HEAD = 3
"""Latent frames of a video that differ from the cycle's because they have no past: one chunk."""
SCENES_SHARE = 0.8
"""Share of drawn clips that are scenes; the others are flat shapes."""
TRIES = 1000
"""Draws after which a bank counts as one without pairs."""
ABOUT, LATENTS, GEOMETRY = "bank.json", "latents.npy", "geometry.npy"


class SceneBank:
    """Scenes, and flat shapes in the same form, each encoded once for every staging."""

    vocabulary = VOCABULARY
    axes = 1
    """Numbers that tell which clip goes on where a video is: latent frames that it is ahead."""

    def __init__(self, about: dict, latents: np.ndarray, geometry: np.ndarray, device: str = "cpu") -> None:
        """`about`: words of the clips and of their stagings, mean and std of the latents; `latents`
        [N, R + STARTS * HEAD, C, G, G] with the cycle first; `geometry` [N, R, 2, G, G] uint8."""
        self.combinations = [clip_of_words(row) for row in about["combinations"]]
        check_training(self.combinations)
        self.stagings = [tuple(words) for words in about["stagings"]]
        self.latents, self.stored, self.device = latents, geometry, torch.device(device)
        self.mean, self.std = (
            torch.tensor(about[name])[:, None, None, None].to(self.device) for name in ("mean", "std")
        )
        self.grid, self.features = latents.shape[-1], geometry.shape[2]
        self.alike = defaultdict(list)
        for index, clip in enumerate(self.combinations):
            self.alike[type(clip), motion_of(clip), self.stagings[index]].append(index)
        self.kinds = [
            [index for index, clip in enumerate(self.combinations) if isinstance(clip, kind)]
            for kind in (Scene, Combination)
        ]

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", *, largest: int = 0) -> "SceneBank":
        """Open a bank. Raises ValueError where it is not finished, or smaller than `largest`, the largest grid."""
        if not (folder / ABOUT).exists():
            raise FileNotFoundError(f"{folder} holds no bank: make it with training.make_bank --pictures")
        about = json.loads((folder / ABOUT).read_text("utf-8"))
        if about["mean"] is None:
            raise ValueError(f"{folder} has {about['done']} of its clips: start training.make_bank again, it goes on")
        if "stagings" not in about:
            raise ValueError(f"{folder} does not say where its clips begin: make it again with training.make_bank")
        latents, geometry = (np.load(folder / name, mmap_mode="r") for name in (LATENTS, GEOMETRY))
        if (grid := latents.shape[-1]) < largest:
            raise ValueError(f"{folder} has {grid} cells a side but {largest} are asked for: take no larger grid")
        return cls(about, latents, geometry, device)

    def draw(self, rng: Rng, count: int, frames: Sequence[int], drawing: Drawing, low: int) -> Clips:
        """Draw `count` clips of these latent frames; their captions say at which of the STARTS the video begins.

        Windows without a first frame are of any moment: where a video is later its caption does not say.
        """
        if drawing.noise_coupled:
            raise ValueError("the words of a scene say where it begins, not the noise: leave the option out")
        chosen, called, starts = self._choose_starts(rng.choices, count, drawing)
        moments = (
            torch.tensor(starts)[:, None] * (CYCLE // STARTS) if min(frames) < HEAD else rng.below(CYCLE, count, 1)
        )
        index, moments = torch.tensor(chosen, device=self.device), moments.to(self.device)
        latents, geometry = self.gather(index, frames, moments)
        return Clips(self.captions(chosen, called), latents, geometry, index=index, roll=moments)

    def draw_pairs(self, rng: Rng, count: int, frames: Sequence[int]) -> Clips:
        """Draw `count` clips with a `source` of other words that moves alike: half are scenes, half flat shapes.

        Captions do not say size and place, which the source shows, and half of them not the motion. Flat shapes begin
        at any place. Raises ValueError for a bank without such pairs.
        """
        found = [self._pair(rng.choices) for _ in range(count)]
        chosen, sources = (torch.tensor(indices, device=self.device) for indices in zip(*found, strict=True))
        called = [self._unplaced(index, rng.choices) for index, _ in found]
        moments = rng.below(STARTS, count, 1) * (CYCLE // STARTS) if min(frames) < HEAD else rng.below(CYCLE, count, 1)
        cells = (2 * rng.below(self.grid // 2, count, 2)).tolist()  # whole cells at LOW
        rolls = [
            roll if isinstance(self.combinations[index], Combination) else (0, 0)
            for (index, _), roll in zip(found, cells, strict=True)
        ]
        latents, geometry, source = (
            torch.stack([one.roll(roll, (-2, -1)) for one, roll in zip(x, rolls, strict=True)])
            for x in (*self.gather(chosen, frames, moments), self.gather(sources, frames, moments)[0])
        )
        tokens = self.captions(chosen.tolist(), called)
        return Clips(tokens, latents, geometry, index=chosen, roll=moments, source=source)

    def _pair(self, choices) -> tuple[int, int]:
        """A clip, and one that moves alike and has no other word in common with it."""
        kinds = [kind for kind in self.kinds if kind]
        for _ in range(TRIES):
            index = choices.choice(choices.choice(kinds))
            clip = self.combinations[index]
            others = self.alike[type(clip), motion_of(clip), self.stagings[index]]
            source = choices.choice(others)
            if sum(a == b for a, b in zip(astuple(clip), astuple(self.combinations[source]), strict=True)) == 1:
                return index, source
        raise ValueError("the bank has no two clips that share their motion alone: leave --restyle-share out")

    def _unplaced(self, index: int, choices) -> str:
        """A template that does not say size and place, and in half of the cases not the motion."""
        scene = isinstance(self.combinations[index], Scene)
        if choices.random() < 0.5:
            return (scene_template if scene else template)(choices, 0, 0)
        return SCENE_STILL if scene else STILL

    def choose(self, choices, count: int, drawing: Drawing) -> tuple[list[int], list[str], list[int]]:
        """Draw clips, templates of captions that begin at the first start, and whose noise each shares: its own."""
        chosen, called, _ = self._choose_starts(choices, count, drawing, starts=1)
        return chosen, called, list(range(count))

    def _choose_starts(self, choices, count, drawing, starts=STARTS) -> tuple[list[int], list[str], list[int]]:
        """Draw clips, templates of their captions, and at which start each begins."""
        if drawing.shape_groups:
            raise ValueError("scenes have no groups: leave the option out")
        chosen = [self._choose(choices) for _ in range(count)]
        begun = [choices.randrange(min(starts, len(along(self.combinations[index])))) for index in chosen]
        called = [
            self.template(index, choices, drawing.dropout, drawing.partial, start)
            for index, start in zip(chosen, begun, strict=True)
        ]
        return chosen, called, begun

    def at(self, clips: Clips, frames: Sequence[int]) -> Clips:
        """Other latent frames of the same clips."""
        latents, geometry = self.gather(clips.index, frames, clips.roll)
        return replace(clips, latents=latents, geometry=geometry)

    def gather(self, index: Tensor, frames: Sequence[int], roll: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, C, T, G, G] and geometry of clips [B] that are `roll` [B, 1] latent frames ahead.

        Where the first frames of a video begin at none of the STARTS, they are the cycle's.
        """
        latents, geometry = [], []
        for clip, ahead in zip(index.tolist(), roll[:, 0].tolist(), strict=True):
            latents.append(self.latents[clip, [_held(frame, ahead) for frame in frames]])
            geometry.append(self.stored[clip, [(frame + ahead) % CYCLE for frame in frames]])
        found, shown = (
            torch.from_numpy(np.stack(x)).to(self.device).float().transpose(1, 2) for x in (latents, geometry)
        )
        return (found - self.mean) / self.std, shown / 255

    def catch_up(self, clips: Clips, frames: Sequence[int], shown: Tensor) -> Tensor:
        """By how much [B, 1] the clips are ahead that are nearest to a video of these frames, `shown` [B, C, T, g, g].

        It is what the whole picture fits best; a video that has lost its thing keeps the moment that it had.
        """
        size = shown.shape[-2:]
        moments = [
            resize(self.gather(clips.index, frames, torch.full_like(clips.roll, ahead))[0], size, RESIZE).flatten(1)
            for ahead in range(CYCLE)
        ]
        cycle = torch.stack(moments, dim=1)
        middle = cycle.mean(1, keepdim=True)
        true, video = cycle - middle, shown.flatten(1)[:, None] - middle
        best = (video - true).square().sum(2).argmin(1)
        nearest = true[torch.arange(len(best)), best]
        there = (video[:, 0] * nearest).sum(1) > LOST * nearest.square().sum(1)
        return torch.where(there[:, None], best[:, None], clips.roll)

    def captions(self, chosen: Sequence[int], called: Sequence[str]) -> Tensor:
        """Caption tokens [B, L] of clips, each by its template."""
        named = zip(chosen, called, strict=True)
        return token_table([self.combinations[i].caption(name) for i, name in named], VOCABULARY).to(self.device)

    def whole(self, index: int) -> str:
        """The first template of a clip, which leaves nothing out."""
        return self._tell(index, (scenes if isinstance(self.combinations[index], Scene) else painter).SENTENCES[0])

    def template(self, index: int, choices, dropout: float, partial: float, start: int = 0) -> str:
        """Draw a caption template for a clip that begins at that start."""
        draw = scene_template if isinstance(self.combinations[index], Scene) else template
        return self._tell(index, draw(choices, dropout, partial), start)

    def _tell(self, index: int, sentence: str, start: int = 0) -> str:
        place = along(self.combinations[index])[start]
        return tell(sentence, (*self.stagings[index], place) if place else self.stagings[index])

    def _choose(self, choices) -> int:
        some, others = self.kinds
        if not some or not others:
            return choices.choice(some or others)
        return choices.choice(some if choices.random() < SCENES_SHARE else others)


def _held(frame: int, ahead: int) -> int:
    """Where the latent frame of a clip lies in the bank."""
    start, between = divmod(ahead % CYCLE, CYCLE // STARTS)
    return CYCLE + HEAD * start + frame if frame < HEAD and not between else (frame + ahead) % CYCLE


def load_bank(path: Path, device: str = "cpu", *, largest: int = 0) -> Bank | SceneBank:
    """Load a bank: a file of flat shapes, or a folder of scenes."""
    return (SceneBank if path.is_dir() else Bank).load(path, device, largest=largest)


def read_statistics(path: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of a bank, per channel."""
    if not path.is_dir():
        found = read(path)
        return found["mean"], found["std"]
    bank = SceneBank.load(path)
    return bank.mean.flatten(), bank.std.flatten()


def rows(clips: Sequence[Combination | Scene]) -> list[list[str]]:
    """The words of clips, as files have them."""
    return [list(astuple(clip)) for clip in clips]


def empty(folder: Path, about: dict, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """The arrays of a bank of these clips, made or gone on with. Raises ValueError for a bank of others."""
    shapes = {
        LATENTS: ((CYCLE + STARTS * HEAD, CHANNELS, grid, grid), np.float16),
        GEOMETRY: ((CYCLE, 2, grid, grid), np.uint8),
    }
    count, path = len(about["combinations"]), folder / ABOUT
    if path.exists():
        before = json.loads(path.read_text("utf-8"))
        if {**before, "done": 0, "mean": None, "std": None} != {**about, "done": 0, "mean": None, "std": None}:
            raise ValueError(f"{folder} is a bank of other clips or another VAE: give another folder")
        about.update(before)
        return tuple(np.load(folder / name, mmap_mode="r+") for name in shapes)
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(
        np.lib.format.open_memmap(folder / name, "w+", dtype=dtype, shape=(count, *shape))
        for name, (shape, dtype) in shapes.items()
    )


def note(folder: Path, about: dict) -> None:
    """Write what a bank holds, atomically."""
    beside = folder / f"{ABOUT}.part"
    beside.write_text(json.dumps(about), "utf-8")
    beside.replace(folder / ABOUT)
