"""Trains the demo VAE on painted clips: python -m training.train_vae --out DIR --minutes 20"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from histream_core.demo import painter
from histream_core.demo.painter import DIRECTIONS, SPEED
from histream_core.demo.scene_painter import Pictures, View, paint_scene
from histream_core.demo.scenes import LEAST_WIDTH, MOST_WIDTH, ROUND, Staging, all_scenes
from histream_core.files.tensors import read_safetensors
from histream_core.lab.judge.pictures import read_pictures
from histream_core.stream.resize import resize
from histream_core.vae.model import WanVAE
from training import processes
from training.checkpoint import read
from training.loop import Losses, Moment, add_arguments, autocast, train
from training.muon import Muon
from training.rng import Rng
from training.vae_forward import decode, encode, initialise

WORLD = 256
SCENES_SHARE = 0.75
"""Share of the batches that are of scenes, where there are pictures."""

NOISE = 0.1
"""Noise on the latents that the decoder is trained on, against small errors of the transformer."""


def clip(rng: random.Random, size: int, frames: int, *, world: int) -> Tensor:
    """Draw one training clip [3, F, size, size] in [-1, 1]: a window of the world that contains an edge."""
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
SCENES = [scene for scene in all_scenes() if not scene.held_out]


def scene_clip(rng: random.Random, pictures: Pictures, size: int, frames: int) -> Tensor:
    """Draw one clip [3, F, size, size] in [-1, 1] of a scene: a window of the world near its thing."""
    scene, first = rng.choice(SCENES), rng.randrange(ROUND)
    top, left = (rng.randrange(WORLD - size + 1) for _ in range(2))
    start = tuple((corner + rng.uniform(-0.5, 1.5) * size) / WORLD for corner in (left, top))
    staging = Staging(start, rng.uniform(LEAST_WIDTH, MOST_WIDTH))
    times = range(first, first + frames)
    dx, dy = DIRECTIONS.get(scene.motion, (0, 0))
    staging = replace(staging, start=(start[0] - dx * SPEED * first, start[1] - dy * SPEED * first))
    view = View(WORLD, (top, left, size, size))
    pixels = paint_scene(scene, times, pictures, staging=staging, view=view, training=True)
    return torch.from_numpy(pixels).permute(3, 0, 1, 2) * 2 - 1


def batch(rng: random.Random, progress: float, pictures: Pictures | None = None) -> tuple[Tensor, bool]:
    """Draw clips [B, 3, F, H, W]; also return whether their world wraps at the edges of the picture.

    With `pictures`, most are of scenes.
    """
    if pictures and rng.random() < SCENES_SHARE:
        return torch.stack([scene_clip(rng, pictures, 64, 9) for _ in range(4)]), False
    if progress < 0.12:
        return torch.stack([clip(rng, 32, 5, world=256) for _ in range(8)]), False
    if rng.random() < 0.3:
        return torch.stack([clip(rng, 64, 9, world=64) for _ in range(4)]), True
    return torch.stack([clip(rng, 64, 9, world=256) for _ in range(4)]), False


def psnr(vae: WanVAE, rng: random.Random, clips: int = 2, pictures: Pictures | None = None) -> float:
    """Mean PSNR in dB of encoded and decoded clips of 128x128 pixels; with `pictures`, of scenes."""
    total = 0.0
    with torch.no_grad():
        for _ in range(clips):
            one = scene_clip(rng, pictures, 128, 9) if pictures else clip(rng, 128, 9, world=WORLD)
            x = one[None].to(vae.conv1.weight.device)
            error = (decode(vae, encode(vae, x, wrap=False)).clamp(-1, 1) - x) / 2
            total += float(-10 * error.square().mean().log10())
    return total / clips


def load_vae(path: Path) -> WanVAE:
    """Load the VAE of a checkpoint, or of a .safetensors file such as the bundled one, in float32."""
    weights = read_safetensors(path)[0] if path.suffix == ".safetensors" else read(path)["vae"]
    return WanVAE.from_state_dict({key: w.float() for key, w in weights.items()})


def make_optimiser(vae: WanVAE, lr: float) -> Muon:
    trained = [p for p in vae.parameters() if p.requires_grad]
    kernels = {p for p in trained if p.ndim >= 4 and min(p.shape[:2]) > 3}
    return Muon([p for p in trained if p in kernels], [p for p in trained if p not in kernels], lr=lr, other_lr=lr)


def losses(
    vae: WanVAE, pixels: Tensor, z: Tensor, noise: Tensor, half_weight: float = 0, smooth_weight: float = 0
) -> Losses:
    """The loss of clips [B, 3, F, H, W] with latents `z` that are decoded with `noise`, and what it is made of.

    `smooth_weight` is of what latents lose when they are halved, after Skorokhodov et al. 2025 (diffusability), and
    `half_weight` of the error where the halved ones show the clip at half size, after EQ-VAE (Kouzelis et al. 2025).
    """
    error = decode(vae, z + noise).float() - pixels
    found = {"error": error.square().mean(), "latent std": z.float().std()}
    loss = distance(error) + 1e-3 * z.float().square().mean()
    if smooth_weight:
        found["lost"] = (z - resize(halved(z), z.shape[-2:])).float().square().mean()
        loss = loss + smooth_weight * found["lost"]
    if half_weight:
        at_half = decode(vae, halved(z)).float() - halved(pixels)
        found["half"] = at_half.square().mean()
        loss = loss + half_weight * distance(at_half)
    return {"loss": loss} | found


def distance(error: Tensor) -> Tensor:
    return error.abs().mean() + 2 * error.square().mean()


def halved(frames: Tensor) -> Tensor:
    """Frames or latents [B, C, T, H, W] at half size."""
    return resize(frames, (frames.shape[-2] // 2, frames.shape[-1] // 2), "area")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, lr=8e-4)
    parser.add_argument("--dim", type=int, default=16, help="width")
    parser.add_argument("--noise", type=float, default=NOISE, help="on the latents that the decoder is trained on")
    parser.add_argument(
        "--half-weight", type=float, default=0.0, help="of the error where halved latents show the clip at half size"
    )
    parser.add_argument("--smooth-weight", type=float, default=0.0, help="of what latents lose when they are halved")
    parser.add_argument("--begin", type=Path, metavar="FILE", help="a VAE to go on from, which has its own width")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="also scenes, with the pictures in this folder")
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    pictures = read_pictures(args.pictures) if args.pictures else None
    vae, rng = load_vae(args.begin) if args.begin else WanVAE(dim=args.dim), Rng(args.seed, args.device)
    vae.requires_grad_(True)
    if not args.begin:
        initialise(vae)
    vae.to(args.device)
    optimiser = make_optimiser(vae, args.lr)

    def step(moment: Moment) -> Losses:
        pixels, wrap = batch(rng.choices, moment.share, pictures)
        pixels = pixels.to(args.device)
        with autocast(args):
            z = encode(vae, pixels, wrap=wrap)
            found = losses(vae, pixels, z, args.noise * rng.normal(*z.shape), args.half_weight, args.smooth_weight)
        optimiser.zero_grad()
        found["loss"].backward()
        processes.average_gradients(vae.parameters())
        optimiser.scale_lr(moment.rate)
        optimiser.step()
        return found

    train(args, {"vae": vae, "optimiser": optimiser, "rng": rng}, step)
    print(f"PSNR at 128 px, places not seen: {psnr(vae, random.Random(0)):.2f} dB")
    if pictures:
        print(f"the same of scenes: {psnr(vae, random.Random(0), 12, pictures):.2f} dB")


if __name__ == "__main__":
    main()
