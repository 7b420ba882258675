"""Trains the demo transformer and its text encoder on the latent bank: python -m training.train_dit --bank F --out DIR

Few-step flow matching, made for the noise levels that the demo is sampled at. LOW rows learn what and where: pure
noise and the step after it. HIGH rows learn to finish an upsampled LOW estimate. Restartable: DIR/dit.pt.
"""

import argparse
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from histream_core.demo import painter
from histream_core.demo.text import TEXT_DIM, DemoTextEncoder, token_table
from histream_core.wan_model import WanConfig, WanModel
from training.captions import caption
from training.checkpoint import load, save
from training.dit_forward import CHUNK, Rotations, flow
from training.muon import Muon

CONFIG = WanConfig(dim=256, ffn_dim=512, num_heads=2, num_layers=4, text_dim=TEXT_DIM)
LOW, HIGH = 16, 32
STARTS = (3, 3, 6, 9, 12, 15, 18, 21, 24)
FOREGROUND = 4.0  # weight of a cell that shows the object, beside 1 for the background


@dataclass
class Bank:
    """Normalised latents [N, 4, 16, 32, 32] of one start position, and what each shows."""

    latents: Tensor
    combinations: list[painter.Combination]

    @classmethod
    def load(cls, path: Path) -> "Bank":
        found = torch.load(path, weights_only=True)
        return cls(found["latents"], [painter.Combination(*c) for c in found["combinations"]])

    def __post_init__(self) -> None:
        ground = self.latents.flatten(3).median(3).values[..., None, None]
        differs = (self.latents - ground).abs().mean(2, keepdim=True)
        self.shown = (differs > 0.25).float()
        self.steps = torch.tensor([painter.DIRECTIONS[c.direction] for c in self.combinations])

    def clip(self, index: int, frames: range, roll: tuple[int, int]) -> Tensor:
        """Latents with the foreground mask as a 17th channel, [17, T, 32, 32]; `roll` in cells, down and right."""
        dx, dy = self.steps[index].tolist()
        both = torch.cat([self.latents[index], self.shown[index]], dim=1)
        out = []
        for frame in frames:
            beyond = 2 * max(0, frame - 3)
            out.append(torch.roll(both[min(frame, 3)], (roll[0] + beyond * dy, roll[1] + beyond * dx), (1, 2)))
        return torch.stack(out, dim=1)


def resize(x: Tensor, size: int) -> Tensor:
    """The last two dims to `size` squared, as the engine does it."""
    flat = F.interpolate(x.flatten(0, -4), (size, size), mode="bilinear", antialias=True, align_corners=False)
    return flat.unflatten(0, x.shape[:-3])


def halve(x: Tensor) -> Tensor:
    return resize(x, x.shape[-1] // 2)


def double(x: Tensor) -> Tensor:
    return resize(x, x.shape[-1] * 2)


def place(noise: Tensor, clip: Tensor) -> tuple[int, int]:
    """The roll of `clip` [17, 3, 32, 32] that puts it where it grows out of `noise` [16, 3, G, G].

    It is where the clip fits the noise best. On a torus every place is as likely as any other, so the noise stays
    Gaussian; and the network, which learns to find a faint picture in noise, learns one place for one noise instead
    of the average of all places.
    """
    grid = noise.shape[-1]
    template = clip[:16] if grid == HIGH else halve(clip[:16])
    template = template - template.mean((2, 3), keepdim=True)
    fit = torch.fft.ifft2((torch.fft.fft2(noise) * torch.fft.fft2(template).conj()).sum((0, 1))).real
    fit = fit[:: grid // LOW, :: grid // LOW]
    row, column = divmod(int(fit.argmax()), LOW)
    return 2 * row, 2 * column


Range = tuple[float, float]

# Around the sigmas of timesteps 1000, 750, 500 and 250: under a time shift of 2 at LOW, none at HIGH.
PURE, SECOND_LOW, SECOND, THIRD, LAST = (1.0, 1.0), (0.83, 0.88), (0.72, 0.78), (0.47, 0.53), (0.23, 0.27)


class Kind(NamedTuple):
    """What the rows of a step are: their grid, their noise levels, and how many there are."""

    name: str
    high: bool
    crop: int
    """Cells a side that are kept; what HIGH rows add is local, so most of them are a quarter of the picture."""
    first: tuple[tuple[float, Range, Range], ...]
    """Weight and two consecutive noise levels of first chunks: the second starts from the estimate at the first."""
    later: tuple[tuple[float, Range], ...]
    sizes: tuple[int, int, int]
    """Samples, noisy first chunks and noisy later chunks of each."""


KINDS = (
    Kind("start", False, LOW, ((1, PURE, SECOND_LOW),), (), (4, 3, 0)),
    Kind("low", False, LOW, ((1, PURE, SECOND_LOW),), ((0.6, PURE), (0.4, SECOND_LOW)), (2, 3, 2)),
    Kind("part", True, LOW, ((1, THIRD, LAST),), ((0.6, THIRD), (0.4, LAST)), (2, 3, 2)),
    Kind(
        "high",
        True,
        HIGH,
        ((0.12, PURE, SECOND), (0.88, THIRD, LAST)),
        ((0.6, THIRD), (0.4, LAST)),
        (1, 2, 2),
    ),
)


@dataclass(frozen=True)
class Stage:
    """A part of the training: what is drawn with which chances, and where first chunks show their object."""

    phases: tuple[tuple[float, tuple[float, ...]], ...]
    """Until which share of the time the kinds are drawn with which chances."""
    centre: bool
    """First chunks start in the middle; else where the noise says (`place`), which is harder to learn."""
    hints_until: float = 0.0
    """Share of the time until which a faint truth shows in pure noise (`hint`)."""


STAGES = {
    "words": Stage(((0.72, (0.6, 0.4, 0, 0)), (0.85, (0.25, 0.15, 0.6, 0)), (1.0, (0.15, 0.15, 0.2, 0.5))), False, 0.9),
    "centre": Stage(((0.35, (0.6, 0.4, 0, 0)), (0.5, (0.25, 0.15, 0.4, 0.2)), (1.0, (0.2, 0.15, 0.15, 0.5))), True),
    "finish": Stage(((1.0, (0.15, 0.15, 0.45, 0.25)),), True),
}


def pick(rng: random.Random, menu: tuple[tuple, ...]) -> tuple:
    """One entry of a menu, by its weight; what comes after the weight."""
    return rng.choices(menu, weights=[row[0] for row in menu])[0][1:]


def levels(ranges: Sequence[Range], rng: random.Random, shape: tuple[int, int]) -> Tensor:
    return torch.tensor([[rng.uniform(*rng.choice(ranges)) for _ in range(shape[1])] for _ in range(shape[0])])


def wide(sigma: Tensor) -> Tensor:
    return sigma[:, :, None, None, None, None]


@dataclass
class Batch:
    """Rows of one training step; targets hold the foreground mask as their 17th channel."""

    text: Tensor
    start: int
    clean: Tensor
    past: Tensor
    """The true chunk before the last clean one."""
    first: Tensor
    later: Tensor
    first_target: Tensor
    later_target: Tensor
    sigma_first: Tensor
    sigma_later: Tensor
    next_first: Range
    """The noise level that the first chunks go on to."""


def hint(progress: float, until: float) -> float:
    """How much of the truth still shows where in the end there is none: all of it at first, nothing from `until` on.

    Finding the place in pure noise is hard to learn from nothing, and easy once finding it in a faint picture is known.
    """
    return min(1.0, max(0.0, (until - progress) / 0.3)) if until else 0.0


def make_batch(
    bank: Bank, rng: random.Random, kind: Kind, trainee: "Trainee", stage: Stage, progress: float = 1.0
) -> Batch:
    size, num_first, num_later = kind.sizes
    start = rng.choice(STARTS)
    before = max(0, start - 2 * CHUNK)
    frames = [*range(CHUNK), *range(before, before + CHUNK), *range(start - CHUNK, start + CHUNK)]
    range_first, next_first = pick(rng, kind.first)
    grow = (
        range_first == PURE or rng.random() < 0.35
    )  # the first chunks grow out of this noise; else the truth is shown
    seed_grid = HIGH if kind.high and range_first == PURE else LOW
    seed_noise = torch.randn(size, num_first, 16, CHUNK, seed_grid, seed_grid)
    captions, clips, firsts = [], [], []
    for sample in range(size):
        index = rng.randrange(len(bank.combinations))
        captions.append(caption(bank.combinations[index], rng))
        clips.append(bank.clip(index, frames, random_roll(rng)))
        still = bank.clip(index, range(CHUNK), (0, 0))
        rolls = [first_roll(noise, still, stage, grow, rng) for noise in seed_noise[sample]]
        firsts.append(torch.stack([bank.clip(index, range(CHUNK), roll) for roll in rolls]))
    text, first = token_table(captions), torch.stack(firsts)
    zero, past, near, later = (torch.stack(clips) if kind.high else halve(torch.stack(clips)))[:, None].split(CHUNK, 3)
    first = first if kind.high else halve(first)
    sigma_first, sigma_later = levels([range_first], rng, (size, num_first)), torch.ones(size, num_later)
    for row in sigma_later.unbind(0):
        row.copy_(torch.tensor([rng.uniform(*pick(rng, kind.later)[0]) for _ in row]))
    if range_first == PURE:
        leak = (
            0.1 * hint(progress, stage.hints_until) * torch.rand(size, num_first) * (torch.rand(size, num_first) > 0.3)
        )
        shown_first = seed_noise + wide(leak) * first[:, :, :16]
    elif grow:
        signal = double(trainee.low_estimate(text, seed_noise, rng))
        shown_first = torch.lerp(signal, torch.randn_like(signal), wide(sigma_first))
    else:
        shown_first = noised(first, sigma_first, rng, kind.high)
    clean = (zero if start == CHUNK else torch.cat([zero, near], dim=1))[:, :, :16]
    clean = clean if num_later else clean[:, :0]
    later = later.expand(-1, num_later, -1, -1, -1, -1)
    kept = (..., slice(kind.crop), slice(kind.crop))
    return Batch(
        text=text,
        start=start,
        clean=(clean + rng.uniform(0, 0.1) * torch.randn_like(clean))[kept],
        past=past[:, :, :16][kept],
        first=shown_first[kept],
        later=noised(later, sigma_later, rng, kind.high)[kept],
        first_target=first[kept],
        later_target=later[kept],
        sigma_first=sigma_first,
        sigma_later=sigma_later,
        next_first=next_first,
    )


def first_roll(noise: Tensor, clip: Tensor, stage: Stage, grow: bool, rng: random.Random) -> tuple[int, int]:
    """Where a first chunk shows its object, as the roll of its clip, which starts in the middle."""
    if stage.centre:
        return 0, 0
    return place(noise, clip) if grow else random_roll(rng)


def random_roll(rng: random.Random) -> tuple[int, int]:
    return 2 * rng.randrange(HIGH // 2), 2 * rng.randrange(HIGH // 2)


def next_batch(batch: Batch, flows: Tensor, rng: random.Random, stage: Stage, progress: float = 1.0) -> Batch:
    """The same first chunks one noise level down, from what the network made of them; nothing else."""
    sigma = levels([batch.next_first], rng, batch.sigma_first.shape)
    clean = batch.first - wide(batch.sigma_first) * flows.detach()
    truth = hint(progress, stage.hints_until) * torch.rand(sigma.shape)
    clean = torch.lerp(clean, batch.first_target[:, :, :16], wide(truth))
    shown = torch.lerp(clean, torch.randn_like(clean), wide(sigma))
    nothing = {"clean": batch.clean[:, :0], "later": batch.later[:, :0], "sigma_later": batch.sigma_later[:, :0]}
    return replace(batch, first=shown, sigma_first=sigma, **nothing)


@torch.no_grad()
def use_own_context(trainee: "Trainee", batch: Batch, rng: random.Random, kind: Kind) -> None:
    """Put what the network itself makes of the chunk before `start` in place of the true one: it must live with it."""
    clean = batch.clean[:, :1] if batch.start == 2 * CHUNK else torch.cat([batch.clean[:, :1], batch.past], dim=1)
    near = batch.clean[:, 1:]
    sigma = torch.tensor([[rng.uniform(*pick(rng, kind.later)[0])] for _ in near])
    shown = noised(near, sigma, rng, kind.high)
    asked = replace(
        batch,
        start=batch.start - CHUNK,
        clean=clean,
        first=near[:, :0],
        later=shown,
        sigma_first=sigma[:, :0],
        sigma_later=sigma,
    )
    _, predicted = trainee.flows(asked)
    batch.clean = torch.cat([batch.clean[:, :1], shown - wide(sigma) * predicted], dim=1)


def noised(target: Tensor, sigma: Tensor, rng: random.Random, high: bool) -> Tensor:
    """What the network is shown: at HIGH it is mostly the upsampled half-size picture that lies under the noise."""
    x, s = target[:, :, :16], wide(sigma)
    if high:
        blur = torch.tensor([[rng.choice((1.0, 1.0, 0.5, 0.0)) for _ in row] for row in sigma])
        x = torch.lerp(x, double(halve(x)), wide(blur) * ((s - 0.15) / 0.3).clamp(0, 1))
    return torch.lerp(x, torch.randn_like(x), s)


def loss_of(shown: Tensor, sigma: Tensor, target: Tensor, predicted: Tensor) -> Tensor:
    """Per row: the error of the clean estimate, the object weighing more."""
    error = shown - wide(sigma) * predicted - target[:, :, :16]
    weight = 1 + (FOREGROUND - 1) * target[:, :, 16:]
    weight = weight / weight.mean((2, 3, 4, 5), keepdim=True)
    return (error.square() * weight).mean((2, 3, 4, 5))


class Trainee:
    """Transformer and text encoder as one thing with one average."""

    def __init__(self) -> None:
        self.model, self.encoder = WanModel(CONFIG), DemoTextEncoder()
        torch.nn.init.zeros_(self.model.head.head.weight)
        torch.nn.init.zeros_(self.model.head.head.bias)
        self.both = torch.nn.ModuleDict({"model": self.model, "encoder": self.encoder})
        self.average = {k: v.clone() for k, v in self.both.state_dict().items()}
        self.rotations = {grid: Rotations(CONFIG.head_dim, (grid // 2, grid // 2)) for grid in (LOW, HIGH)}

    def flows(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return flow(
            self.model,
            self.encoder(batch.text),
            batch.clean,
            batch.first,
            batch.later,
            batch.sigma_first,
            batch.sigma_later,
            start=batch.start,
            rotations=self.rotations[batch.first.shape[-1]],
        )

    @torch.no_grad()
    def low_estimate(self, text: Tensor, noise: Tensor, rng: random.Random) -> Tensor:
        """First chunks out of pure LOW noise [B, R, 16, 3, 16, 16] in two steps, as the sampler makes them."""
        nothing, none, clean, shown = noise[:, :0], torch.zeros(len(noise), 0), noise, noise
        for ranges in ((PURE,), (SECOND_LOW,)):
            sigma = levels(ranges, rng, noise.shape[:2])
            if ranges != (PURE,):
                shown = torch.lerp(clean, torch.randn_like(noise), wide(sigma))
            turns = self.rotations[LOW]
            flows, _ = flow(
                self.model, self.encoder(text), nothing, shown, nothing, sigma, none, start=CHUNK, rotations=turns
            )
            clean = shown - wide(sigma) * flows
        return clean

    def state_dict(self) -> dict:
        return {"now": self.both.state_dict(), "average": self.average}

    def load_state_dict(self, state: dict) -> None:
        self.both.load_state_dict(state["now"])
        self.average = {k: v.clone() for k, v in state["average"].items()}

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        now = self.both.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [now[k] for k in self.average], 1 - decay)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stage", choices=STAGES, default="words")
    parser.add_argument("--begin", type=Path, help="checkpoint of the stage before")
    parser.add_argument("--minutes", type=float, default=70)
    parser.add_argument(
        "--own-share", type=float, default=0.35, help="last part of the time, with the network's own context"
    )
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_flush_denormal(True)
    torch.manual_seed(args.seed)
    bank, trainee, state = Bank.load(args.bank), Trainee(), {"step": 0, "seconds": 0.0}
    params = dict(trainee.both.named_parameters())
    matrices = [p for k, p in params.items() if p.ndim == 2 and (".blocks." in k or "time_projection" in k)]
    chosen = {id(p) for p in matrices}
    others = [p for p in params.values() if id(p) not in chosen]
    optimiser = Muon(matrices, others, lr=args.lr, other_lr=1e-3)
    stage = STAGES[args.stage]
    if not load(args.out / "dit.pt", state, trainee=trainee, optimiser=optimiser) and args.begin:
        load(args.begin, state, trainee=trainee, optimiser=optimiser)
        state["seconds"] = 0.0
    rng = random.Random(args.seed + state["step"])
    began, saved, log = time.time() - state["seconds"], time.time(), {}
    while (minutes := (time.time() - began) / 60) < args.minutes:
        left = 1 - minutes / args.minutes
        optimiser.scale_lr(min(1, (state["step"] + 1) / 50) * min(1, 1.6 * left + 0.005))
        chances = next(chances for until, chances in stage.phases if 1 - left <= until)
        kind = rng.choices(KINDS, weights=chances)[0]
        batch = make_batch(bank, rng, kind, trainee, stage, 1 - left)
        if left < args.own_share and kind.later and batch.start > CHUNK and rng.random() < 0.4:
            use_own_context(trainee, batch, rng, kind)
        flows, later = trainee.flows(batch)
        first = loss_of(batch.first, batch.sigma_first, batch.first_target, flows)
        later = loss_of(batch.later, batch.sigma_later, batch.later_target, later)
        optimiser.zero_grad()
        (first.mean() + later.sum() / max(1, later.numel())).backward()
        following = next_batch(batch, flows, rng, stage, 1 - left)
        second = loss_of(following.first, following.sigma_first, following.first_target, trainee.flows(following)[0])
        second.mean().backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        optimiser.step()
        state["step"] += 1
        trainee.update_average(min(0.99, state["step"] / (state["step"] + 20)))
        for name, loss in (("first", first), ("second", second), *([("later", later)] if kind.later else [])):
            level = f"{float(batch.sigma_first.mean()):.1f}" if name != "later" else ""
            log.setdefault(f"{kind.name}-{name}{level}", []).append(float(loss.detach().mean()))
        if state["step"] % 25 == 0:
            means = "  ".join(f"{k} {sum(v) / len(v):.3f}" for k, v in sorted(log.items()))
            print(f"step {state['step']} {time.time() - began:.0f}s  {means}", flush=True)
            log.clear()
        if time.time() - saved > 120:
            saved = time.time()
            state["seconds"] = saved - began
            save(args.out / "dit.pt", state, trainee=trainee, optimiser=optimiser)
    state["seconds"] = time.time() - began
    save(args.out / "dit.pt", state, trainee=trainee, optimiser=optimiser)
    print(f"done after {state['step']} steps")


if __name__ == "__main__":
    main()
