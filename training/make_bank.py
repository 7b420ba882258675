"""Encodes every training combination once: python -m training.make_bank --vae DIR/vae.pt --out DIR/bank.pt

The encoder wraps around the torus, and the speed is two cells of the 32x32 grid per latent frame; so a clip that
starts elsewhere, or a later latent frame, is a roll of the first four. The bank holds normalised latents
[combination, 4, 16, 32, 32] and the statistics that normalised them.
"""

import argparse
import os
import time
from dataclasses import astuple
from pathlib import Path

import torch

from histream_core.demo import painter
from histream_core.wan_vae import WanVAE
from training.checkpoint import load
from training.vae_forward import encode

LATENT_FRAMES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_flush_denormal(True)
    vae = WanVAE(dim=args.dim).requires_grad_(False)
    if not load(args.vae, {}, vae=vae):
        raise SystemExit(f"{args.vae} does not exist: run training.train_vae first")
    combinations, began, latents = painter.training_combinations(), time.time(), []
    with torch.inference_mode():
        for number, combination in enumerate(combinations):
            frames = painter.paint(combination, range(4 * LATENT_FRAMES - 3), training=True)
            pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] * 2 - 1
            latents.append(encode(vae, pixels, wrap=True)[0].transpose(0, 1).clone())
            if number % 20 == 0:
                print(f"{number}/{len(combinations)} {time.time() - began:.0f}s", flush=True)
    bank = torch.stack(latents)
    mean, std = bank.mean((0, 1, 3, 4)), bank.std((0, 1, 3, 4))
    std = std.clamp(min=0.3 * float(std.mean()))  # a channel that says little is not blown up
    torch.save(
        {
            "latents": ((bank - mean[:, None, None]) / std[:, None, None]).contiguous().clone(),
            "mean": mean.clone(),
            "std": std.clone(),
            "combinations": [astuple(c) for c in combinations],
        },
        args.out,
    )
    dx, dy = zip(*(painter.DIRECTIONS[c.direction] for c in combinations), strict=True)
    moved = torch.stack([torch.roll(z[2], (2 * y, 2 * x), (1, 2)) for z, x, y in zip(bank, dx, dy, strict=True)])
    print(f"roll error, latent 3 against latent 2: {(moved - bank[:, 3]).square().mean().sqrt() / bank.std():.3f} std")
    print(f"std per channel {std.tolist()}")


if __name__ == "__main__":
    main()
