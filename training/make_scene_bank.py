"""Fills a bank of scenes: every motion is periodic, so a clip is painted and encoded for one round."""

import argparse
import hashlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from histream_core.demo import painter
from histream_core.demo.painter import Combination
from histream_core.demo.scene_painter import Pictures, View, cut_out, paint_scene
from histream_core.demo.scenes import PAINTED, ROUND, TRAINED_THINGS, Scene, all_scenes
from histream_core.demo.staging import Words, staging_of, stagings
from histream_core.lab.judge.pictures import read_pictures
from histream_core.plan.sizes import PIXEL_FRAMES_PER_LATENT, PIXELS_PER_CELL, pixel_frames
from histream_core.vae.model import WanVAE
from training import processes
from training.scene_bank import CYCLE, HEAD, STARTS, empty, note, rows
from training.train_vae import load_vae
from training.vae_forward import encode_features, frame_features

SAVE_EVERY = 20
"""Clips after which a bank is saved."""
LEAD = 5
"""Latent frames that are left out at the front: behind them the missing past changes nothing to speak of."""

Clip = Scene | Combination


@dataclass(frozen=True, slots=True)
class Painting:
    """A round of a clip: pixels [ROUND, H, W, 3], and opacity of what moves in it, [ROUND, 1, H, W]."""

    pixels: np.ndarray
    opacity: Tensor


def clips(
    every: int = 1,
    things: Sequence[str] = TRAINED_THINGS,
    places: Sequence[str] = PAINTED,
    flat_every: int = 1,
) -> list[Clip]:
    """The clips of these things and places that may be trained on, in an order in which any part has all kinds."""
    scenes = [scene for scene in all_scenes(things, places) if not scene.held_out]
    flats = random.Random(1).sample(found := painter.training_combinations(), len(found))[::flat_every]
    both = [*scenes, *flats]
    return random.Random(0).sample(both, len(both))[::every]


def staged(clips: Sequence[Clip], count: int) -> list[tuple[Clip, Words]]:
    """Every clip in so many of its stagings, told in words, or in all that it has."""
    told = {clip: stagings(clip) for clip in clips}
    drawn = {clip: random.Random(str(clip)).sample(words, min(count, len(words))) for clip, words in told.items()}
    return [(clip, words[turn]) for turn in range(count) for clip, words in drawn.items() if turn < len(words)]


def paint_round(clip: Clip, words: Words, pictures: Pictures, size: int) -> Painting:
    """Paint a clip in the staging of these words."""
    times, where, view = range(ROUND), staging_of(clip, words), View(size)
    if isinstance(clip, Combination):
        pixels, cover = (
            painter.paint(clip, times, size=size, start=where.start, training=True, colours=colours)
            for colours in (None, ((1, 1, 1), (0, 0, 0)))
        )
        return Painting(pixels, torch.from_numpy(cover[..., :1]).permute(0, 3, 1, 2))
    pixels = paint_scene(clip, times, pictures, staging=where, view=view, training=True)
    return Painting(pixels, cut_out(clip, times, pictures[clip.thing], where, view)[:, 3:])


def encode_round(vae: WanVAE, pixels: np.ndarray) -> Tensor:
    """Unnormalised latents [CYCLE + STARTS * HEAD, C, G, G] of a round: the cycle, then the beginnings of videos."""
    frames = torch.from_numpy(pixels).permute(3, 0, 1, 2)[None].to(vae.conv1.weight.device) * 2 - 1
    frames = frame_features(vae, frames, wrap=True)[0]
    long = frames[:, torch.arange(pixel_frames(CYCLE + LEAD)) % ROUND]
    cycle = encode_features(vae, long[None], wrap=True)[0, :, LEAD:]
    step = ROUND // STARTS
    moments = torch.arange(pixel_frames(HEAD)) + step * torch.arange(STARTS)[:, None]
    heads = encode_features(vae, frames[:, moments % ROUND].transpose(0, 1), wrap=True)
    both = cycle.roll(LEAD, dims=1).transpose(0, 1), heads.transpose(1, 2).flatten(0, 1)
    return torch.cat(both)


def describe_round(opacity: Tensor) -> Tensor:
    """Cover of cells and nearness of the outline [CYCLE, 2, G, G] in [0, 1], from opacity [ROUND, 1, H, W].

    Means over the frames of a latent frame; an outline is where opacity differs within a cell.
    """
    cover = F.avg_pool2d(opacity, PIXELS_PER_CELL)
    most, least = F.max_pool2d(opacity, PIXELS_PER_CELL), -F.max_pool2d(-opacity, PIXELS_PER_CELL)
    shown = torch.cat([cover, most - least], dim=1)
    return shown.roll(PIXEL_FRAMES_PER_LATENT - 1, dims=0).unflatten(0, (CYCLE, -1)).mean(1)


def fill(args: argparse.Namespace) -> None:
    """Paint and encode the clips that a bank lacks; a run that was killed goes on."""
    if args.size % PIXELS_PER_CELL or args.size < 1:
        raise SystemExit(f"--size {args.size}: use a multiple of {PIXELS_PER_CELL}")
    if args.stagings < 1:
        raise SystemExit(f"--stagings {args.stagings}: use 1 or more")
    pictures, vae = read_pictures(args.pictures), load_vae(args.vae).requires_grad_(False)
    kept = clips(args.every, args.things, args.places, args.flat_every)
    chosen = staged(kept, args.stagings)
    about = {
        "combinations": rows([clip for clip, _ in chosen]),
        "stagings": [list(words) for _, words in chosen],
        "size": args.size,
        "vae": fingerprint(vae),
        "done": 0,
        "mean": None,
        "std": None,
    }
    processes.join()
    if processes.rank() == 0:  # one makes the files, then all open them
        empty(args.out, about, args.size // PIXELS_PER_CELL)
        note(args.out, about)
    processes.wait()
    latents, geometry = empty(args.out, about, args.size // PIXELS_PER_CELL)
    vae, began = vae.to(args.device), time.monotonic()
    for first in range(about["done"], len(chosen), SAVE_EVERY):
        done = min(first + SAVE_EVERY, len(chosen))
        for number in range(first + processes.rank(), done, processes.count()):
            painting = paint_round(*chosen[number], pictures, args.size)
            with torch.inference_mode():
                latents[number] = encode_round(vae, painting.pixels).cpu().numpy()
            geometry[number] = (describe_round(painting.opacity) * 255).round().numpy()
        latents.flush()
        geometry.flush()
        processes.wait()
        if processes.rank() == 0:
            note(args.out, about := about | {"done": done})
            print(f"{done}/{len(chosen)} {time.monotonic() - began:.0f}s", flush=True)
    if processes.rank() == 0:
        note(args.out, about | statistics(latents))


def statistics(latents: np.ndarray) -> dict[str, list[float]]:
    """Mean and standard deviation of every channel, that of a nearly still one not below a share of the others'."""
    sums = np.zeros((2, latents.shape[2]))
    for clip in latents:
        exact = clip.astype(np.float64)
        sums += exact.sum((0, 2, 3)), (exact**2).sum((0, 2, 3))
    mean, square = sums / (latents.size / latents.shape[2])
    std = np.sqrt(square - mean**2)
    return {"mean": mean.tolist(), "std": std.clip(min=0.3 * std.mean()).tolist()}


def fingerprint(vae: WanVAE) -> str:
    """A short name of the weights of a VAE."""
    found = hashlib.sha256()
    for name, weight in sorted(vae.state_dict().items()):
        found.update(name.encode() + weight.detach().float().numpy().tobytes())
    return found.hexdigest()[:16]
