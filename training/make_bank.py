"""Encodes every training combination once: python -m training.make_bank --vae DIR/checkpoint.pt --out DIR/bank.pt

The encoder wraps around the torus, and the speed is two cells of the 32x32 grid per latent frame; so a clip that
starts elsewhere, or a later latent frame, is a roll of the first four. The bank holds normalised latents
[combination, 4, 16, 32, 32] and the statistics that normalised them.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import torch
from torch import Tensor

from histream_core.demo import painter
from histream_core.demo.painter import Combination
from histream_core.demo.scenes import PAINTED, PLACES, THINGS, TRAINED_THINGS
from histream_core.plan.sizes import PIXELS_PER_CELL, pixel_frames
from histream_core.vae.model import WanVAE
from training import make_scene_bank
from training.data import BANK_FRAMES
from training.train_vae import load_vae
from training.vae_forward import encode


def encode_all(vae: WanVAE, combinations: Sequence[Combination], size: int, scale: float, device: str) -> Tensor:
    """Unnormalised latents [N, BANK_FRAMES, C, G, G] of objects that start in the middle."""
    began, latents = time.monotonic(), []
    for number, combination in enumerate(combinations):
        frames = painter.paint(combination, range(pixel_frames(BANK_FRAMES)), size=size, training=True, scale=scale)
        pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].to(device) * 2 - 1
        latents.append(encode(vae, pixels, wrap=True)[0].transpose(0, 1).cpu())
        if number % 20 == 19:
            print(f"{number + 1}/{len(combinations)} {time.monotonic() - began:.0f}s", flush=True)
    return torch.stack(latents)


def roll_error(bank: Tensor, combinations: Sequence[Combination]) -> float:
    """Error of the last latent frame against a roll of the one before, in standard deviations."""
    cells = bank.shape[-1] // 16
    moved = []
    for latents, combination in zip(bank, combinations, strict=True):
        dx, dy = painter.DIRECTIONS[combination.direction]
        moved.append(torch.roll(latents[-2], (cells * dy, cells * dx), (1, 2)))
    return float((torch.stack(moved) - bank[:, -1]).square().mean().sqrt() / bank.std())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vae", type=Path, required=True, help="checkpoint of training.train_vae, or .safetensors")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=256, help="pixels a side, a multiple of 128")
    parser.add_argument("--object-scale", type=float, default=1.0, help="paints the objects larger: more tokens each")
    parser.add_argument("--every", type=int, default=1, help="take every nth combination alone, for a smoke run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="scenes too; --out is a folder then")
    group = parser.add_argument_group("with --pictures")
    group.add_argument("--stagings", type=int, default=2, help="places and sizes of each clip")
    group.add_argument("--things", nargs="+", choices=THINGS, default=list(TRAINED_THINGS), help="these alone")
    group.add_argument("--places", nargs="+", choices=PLACES, default=list(PAINTED), help="these alone")
    group.add_argument("--flat-every", type=int, default=1, help="take every nth flat clip alone")
    args = parser.parse_args(argv)
    torch.set_flush_denormal(True)
    if args.pictures:
        return make_scene_bank.fill(args)
    if args.size % (16 * PIXELS_PER_CELL) or args.size < 1:
        raise SystemExit(f"--size {args.size}: motion is whole cells at multiples of 128 alone, such as 128 or 256")
    vae = load_vae(args.vae).requires_grad_(False).to(args.device)
    combinations = painter.training_combinations()[:: args.every]
    with torch.inference_mode():
        bank = encode_all(vae, combinations, args.size, args.object_scale, args.device)
        mean, std = bank.mean((0, 1, 3, 4)), bank.std((0, 1, 3, 4))
        std = std.clamp(min=0.3 * float(std.mean()))  # a channel of small variance is not amplified
        normalised = (bank - mean[:, None, None]) / std[:, None, None]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    beside = args.out.with_suffix(".part")
    torch.save(
        {
            "latents": normalised.clone(),
            "mean": mean.clone(),
            "std": std.clone(),
            "combinations": [astuple(c) for c in combinations],
            "scale": args.object_scale,
        },
        beside,
    )
    beside.replace(args.out)
    print(f"roll error, latent {BANK_FRAMES - 1} against the one before: {roll_error(bank, combinations):.3f} std")
    print(f"std per channel {[round(float(s), 3) for s in std]}")


if __name__ == "__main__":
    main()
