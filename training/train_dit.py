"""Trains the demo transformer and its text encoder on the latent bank: python -m training.train_dit --bank F --out DIR

Few-step flow matching, made for the noise levels that the demo is sampled at. LOW rows learn what and where: pure
noise and the step after it. HIGH rows learn to finish an upsampled LOW estimate. Restartable: DIR/dit.pt.
"""

import argparse
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from histream_core.demo.text import TEXT_DIM, DemoTextEncoder, token_table
from histream_core.wan_model import WanConfig, WanModel
from training import painter
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


def halve(x: Tensor) -> Tensor:
    """[..., 32, 32] to [..., 16, 16] as the engine does it."""
    flat = F.interpolate(x.flatten(0, -4), (LOW, LOW), mode="bilinear", antialias=True, align_corners=False)
    return flat.unflatten(0, x.shape[:-3])


def double(x: Tensor) -> Tensor:
    flat = F.interpolate(x.flatten(0, -4), (HIGH, HIGH), mode="bilinear", antialias=True, align_corners=False)
    return flat.unflatten(0, x.shape[:-3])


def match_noise(clip: Tensor, noise: Tensor) -> Tensor:
    """Roll a clip [17, T, H, W] to where it fits the noise [16, T, H, W] best: the noise then decides the position.

    On a torus every position is as likely as any other, so the noise stays Gaussian. The network learns one
    place for one noise instead of the average of all places. Rolls are even, as everywhere.
    """
    template = clip[:16] - clip[:16].mean((2, 3), keepdim=True)
    fit = torch.fft.ifft2((torch.fft.fft2(noise) * torch.fft.fft2(template).conj()).sum((0, 1))).real
    best = int(fit[::2, ::2].argmax())
    rows, columns = divmod(best, fit.shape[1] // 2)
    return torch.roll(clip, (2 * rows, 2 * columns), (2, 3))


def pick(rng: random.Random, menu: tuple[tuple[float, float, float], ...]) -> float:
    """A noise level from a menu of (weight, least, most)."""
    _, least, most = rng.choices(menu, weights=[row[0] for row in menu])[0]
    return rng.uniform(least, most)


LOW_FIRST = ((0.55, 1.0, 1.0), (0.35, 0.85, 0.97), (0.10, 0.5, 0.9))
LOW_LATER = ((0.55, 1.0, 1.0), (0.35, 0.85, 0.97), (0.10, 0.5, 0.9))
HIGH_FIRST = ((0.12, 1.0, 1.0), (0.13, 0.86, 0.96), (0.40, 0.7, 0.88), (0.35, 0.4, 0.7))
HIGH_LATER = ((0.08, 1.0, 1.0), (0.12, 0.86, 0.96), (0.45, 0.7, 0.88), (0.35, 0.4, 0.7))


@dataclass
class Batch:
    """Rows of one training step; targets hold the foreground mask as their 17th channel."""

    text: Tensor
    start: int
    clean: Tensor
    first: Tensor
    later: Tensor
    first_target: Tensor
    later_target: Tensor
    sigma_first: Tensor
    sigma_later: Tensor


def make_batch(bank: Bank, rng: random.Random, high: bool, size: int, num_first: int, num_later: int) -> Batch:
    start = rng.choice(STARTS)
    tokens, cleans, firsts, laters = [], [], [], []
    for _ in range(size):
        index = rng.randrange(len(bank.combinations))
        roll = (2 * rng.randrange(16), 2 * rng.randrange(16))
        tokens.append(caption(bank.combinations[index], rng))
        clip = bank.clip(index, [*range(3), *range(start - CHUNK, start + CHUNK)], roll)
        cleans.append(clip[:, :3][None] if start == CHUNK else torch.stack([clip[:, :3], clip[:, 3:6]]))
        laters.append(clip[:, 6:])
        others = [bank.clip(index, range(3), (2 * rng.randrange(16), 2 * rng.randrange(16))) for _ in range(num_first)]
        firsts.append(torch.stack(others))
    clean, first = torch.stack(cleans), torch.stack(firsts)
    later = torch.stack(laters)[:, None].expand(-1, num_later, -1, -1, -1, -1)
    clean, first, later = (x if high else halve(x) for x in (clean, first, later))
    sigma_first = torch.tensor([[pick(rng, HIGH_FIRST if high else LOW_FIRST) for _ in range(num_first)] for _ in range(size)])
    sigma_later = torch.tensor([[pick(rng, HIGH_LATER if high else LOW_LATER) for _ in range(num_later)] for _ in range(size)])
    first_noise = torch.randn_like(first[:, :, :16])
    for b, r in (sigma_first == 1).nonzero().tolist():
        first[b, r] = match_noise(first[b, r], first_noise[b, r])
    clean = clean[:, :, :16]
    return Batch(
        text=token_table(tokens),
        start=start,
        clean=clean + rng.uniform(0, 0.1) * torch.randn_like(clean),
        first=noised(first, sigma_first, first_noise, rng, high),
        later=noised(later, sigma_later, torch.randn_like(later[:, :, :16]), rng, high),
        first_target=first,
        later_target=later,
        sigma_first=sigma_first,
        sigma_later=sigma_later,
    )


def noised(target: Tensor, sigma: Tensor, noise: Tensor, rng: random.Random, high: bool) -> Tensor:
    """What the network is shown: at HIGH mostly the upsampled half-size picture, not the true one, lies under the noise."""
    x, s = target[:, :, :16], sigma[:, :, None, None, None, None]
    if high:
        blur = torch.tensor([[rng.choice((1.0, 1.0, 0.5, 0.0)) for _ in row] for row in sigma])
        blur = blur[:, :, None, None, None, None] * ((s - 0.3) / 0.5).clamp(0, 1)
        x = torch.lerp(x, double(halve(x)), blur)
    return (1 - s) * x + s * noise


def loss_of(shown: Tensor, sigma: Tensor, target: Tensor, predicted: Tensor) -> Tensor:
    """Per row: the error of the flow that leads from what was shown to the target, the object weighing more."""
    flow_target = (shown - target[:, :, :16]) / sigma[:, :, None, None, None, None]
    weight = 1 + (FOREGROUND - 1) * target[:, :, 16:]
    weight = weight / weight.mean((2, 3, 4, 5), keepdim=True)
    return ((predicted - flow_target).square() * weight).mean((2, 3, 4, 5))


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
    parser.add_argument("--minutes", type=float, default=70)
    parser.add_argument("--low-minutes", type=float, default=25, help="of them at half resolution alone")
    parser.add_argument("--high-share", type=float, default=0.4, help="of the steps after that")
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
    load(args.out / "dit.pt", state, trainee=trainee, optimiser=optimiser)
    rng = random.Random(args.seed + state["step"])
    began, saved, log = time.time() - state["seconds"], time.time(), {}
    while (minutes := (time.time() - began) / 60) < args.minutes:
        left = 1 - minutes / args.minutes
        optimiser.scale_lr(min(1, (state["step"] + 1) / 50) * min(1, 1.6 * left + 0.005))
        high = minutes > args.low_minutes and rng.random() < args.high_share
        batch = make_batch(bank, rng, high, *((3, 1, 2) if high else (8, 2, 2)))
        first, later = trainee.flows(batch)
        first = loss_of(batch.first, batch.sigma_first, batch.first_target, first)
        later = loss_of(batch.later, batch.sigma_later, batch.later_target, later)
        loss = first.mean() + later.mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        optimiser.step()
        state["step"] += 1
        trainee.update_average(min(0.997, state["step"] / (state["step"] + 20)))
        note(log, "high" if high else "low", batch, first.detach(), later.detach())
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


def note(log: dict, name: str, batch: Batch, first: Tensor, later: Tensor) -> None:
    """Keep the losses apart by resolution, first or later chunk, pure noise or not."""
    for kind, sigma, loss in (("first", batch.sigma_first, first), ("later", batch.sigma_later, later)):
        for pure in (True, False):
            values = loss[(sigma == 1) == pure]
            if len(values):
                log.setdefault(f"{name}-{kind}-{'pure' if pure else 'mid'}", []).append(float(values.mean()))


if __name__ == "__main__":
    main()
