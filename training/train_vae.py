"""Trains the demo VAE on painted clips: python -m training.train_vae --out DIR --minutes 20

Restartable: it checkpoints every two minutes into DIR/vae.pt and continues from there.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from torch import Tensor

from histream_core.demo import painter
from histream_core.wan_vae import WanVAE
from training.checkpoint import load, save
from training.muon import Muon
from training.vae_forward import decode, encode, initialise

NOISE = 0.1  # on the latents the decoder is trained on, so that it forgives the generator


def clip(rng: random.Random, size: int, frames: int, *, world: int) -> Tensor:
    """One training clip [3, F, size, size] in [-1, 1]: a window of the world that some edge passes through."""
    combination = rng.choice(TRAINING)
    colours = None
    if rng.random() < 0.15:
        colours = tuple([rng.random() for _ in range(3)] for _ in range(2))
    for _ in range(5):
        start = (rng.random(), rng.random())
        pixels = painter.paint(
            combination,
            range(frames),
            size=world,
            start=start,
            training=True,
            window=(0, 0, size, size),
            colours=colours,
        )
        if pixels.std(axis=(0, 1, 2)).max() > 0.03:
            break
    return torch.from_numpy(pixels).permute(3, 0, 1, 2) * 2 - 1


TRAINING = painter.training_combinations()


def batch(rng: random.Random, progress: float) -> tuple[Tensor, bool]:
    """Clips [B, 3, F, H, W] and whether their world wraps at the edges of the picture."""
    if progress < 0.12:
        return torch.stack([clip(rng, 32, 5, world=256) for _ in range(8)]), False
    if rng.random() < 0.3:
        return torch.stack([clip(rng, 64, 9, world=64) for _ in range(4)]), True
    return torch.stack([clip(rng, 64, 9, world=256) for _ in range(4)]), False


def psnr(vae: WanVAE, rng: random.Random, clips: int = 2) -> float:
    total = 0.0
    with torch.no_grad():
        for _ in range(clips):
            x = clip(rng, 256, 13, world=256)[None]
            error = (decode(vae, encode(vae, x, wrap=False)).clamp(-1, 1) - x) / 2
            total += float(-10 * error.square().mean().log10())
    return total / clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.set_flush_denormal(True)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    vae = WanVAE(dim=args.dim)
    initialise(vae)
    trained = [p for p in vae.parameters() if p.requires_grad]
    optimiser = Muon(
        [p for p in trained if p.ndim >= 4 and min(p.shape[:2]) > 3],
        [p for p in trained if p.ndim < 4 or min(p.shape[:2]) <= 3],
        lr=args.lr,
        other_lr=args.lr,
    )
    state = {"step": 0, "seconds": 0.0}
    load(args.out / "vae.pt", state, vae=vae, optimiser=optimiser)
    began, saved, log = time.time() - state["seconds"], time.time(), []
    while (progress := (time.time() - began) / (60 * args.minutes)) < 1:
        optimiser.scale_lr(min(1, (state["step"] + 1) / 30) * min(1, 2.2 * (1 - progress) + 0.01))
        x, wrap = batch(rng, progress)
        z = encode(vae, x, wrap=wrap)
        error = decode(vae, z + NOISE * torch.randn_like(z)) - x
        loss = error.abs().mean() + 2 * error.square().mean() + 1e-3 * z.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        state["step"] += 1
        log.append(float(error.detach().square().mean()))
        if state["step"] % 25 == 0:
            mean = torch.tensor(log[-25:]).mean()
            print(
                f"step {state['step']} {time.time() - began:.0f}s train {-10 * torch.log10(mean / 4):.2f} dB "
                f"loss {loss.item():.4f} latent std {z.detach().std():.2f}",
                flush=True,
            )
        if time.time() - saved > 120:
            saved = time.time()
            state["seconds"] = saved - began
            save(args.out / "vae.pt", state, vae=vae, optimiser=optimiser)
            print(f"held-out position PSNR at 256 px: {psnr(vae, random.Random(0), 1):.2f} dB", flush=True)
    state["seconds"] = time.time() - began
    save(args.out / "vae.pt", state, vae=vae, optimiser=optimiser)
    print(f"done: PSNR at 256 px {psnr(vae, random.Random(0), 4):.2f} dB after {state['step']} steps", flush=True)


if __name__ == "__main__":
    main()
