"""Measures what networks have learned: python -m training.measure --bank F [--chunks] RUN [RUN ...]

For each run, the share of the clips' variance that its clean estimates leave unexplained, in the cells of objects and
elsewhere, under whole captions. 1 is what the mean clip leaves; 0 is the clip itself. Of networks of single frames at
some noise levels; with `--chunks` of a student, for each step of a first and of a later chunk, where HIGH begins with
the student's own LOW estimate.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from histream_core.plan.schedule import Scale
from training import protocol
from training.data import COVER, Clips, Drawing
from training.dit_forward import CHUNK
from training.forcing import TeacherForcing
from training.forward import Bidirectional, Flow, spread
from training.network import Network, begin
from training.rng import Rng
from training.scene_bank import load_bank

SIGMAS = (1.0, 0.94, 0.8, 0.6)
LATER = 4 * CHUNK
"""First latent frame of the later chunk that is measured."""

Shares = tuple[float, float]
"""Of the variance over clips: what is left in the cells of objects, and in the others."""


def unexplained(estimate: Tensor, clips: Clips, frames: slice = slice(None)) -> Shares:
    """Shares that an estimate of some frames of the clips leaves, [B, C, T, H, W]."""
    clean = clips.latents[:, :, frames]
    error, variance = (estimate - clean).square(), (clean - clean.mean(0)).square()
    objects = (clips.geometry[:, COVER, frames] > 0)[:, None].expand_as(clean)
    return tuple(float(error[where].sum() / variance[where].sum()) for where in (objects, ~objects))


@torch.no_grad()
def of_pictures(flow: Flow, clips: Clips, noise: Tensor, sigma: float) -> Shares:
    """Shares that a network of single frames leaves at a noise level."""
    level = noise.new_full(noise.shape[:1], sigma)
    noisy = torch.lerp(clips.latents, noise, sigma)
    return unexplained(noisy - spread(level, noisy) * flow(noisy, level, clips.tokens), clips)


@torch.no_grad()
def of_chunks(forcing: TeacherForcing, clips: Clips, start: int, rng: Rng) -> Iterator[tuple[str, Shares]]:
    """Yield the name of each step of the chunk at `start`, and the shares that it leaves of `frames(start)`."""
    low = forcing.own_low(clips, start, rng)
    for scale, begun in ((Scale.LOW, (None, None)), (Scale.HIGH, low)):
        *_, found = forcing.predict(clips, start, scale, rng, begun)
        for row, sigma in enumerate(found.sigma[0]):
            shares = unexplained(found.clean[:, row], clips.at(forcing.grids[scale]), found.frames)
            yield f"{scale.value} at {float(sigma):.3g}", shares


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    protocol.add_arguments(parser)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--chunks", action="store_true", help="the runs are students")
    parser.add_argument("--grid", type=int, default=16, help="cells a side of single frames")
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("runs", type=Path, nargs="+", help="checkpoints, or folders of exported files")
    args = parser.parse_args(argv)

    setting, measure = protocol.from_arguments(args), _chunks if args.chunks else _pictures
    largest = setting.grids()[Scale.HIGH][0] if args.chunks else args.grid
    bank = load_bank(args.bank, "cpu", largest=largest)
    for run in args.runs:
        found = measure(args, setting, bank, begin(run).requires_grad_(False))
        told = "".join(f"\n  {name}: objects {objects:.3f}, elsewhere {other:.3f}" for name, (objects, other) in found)
        sys.stdout.write(f"{run}{told}\n")


def _pictures(args, setting: protocol.Protocol, bank, network: Network) -> list[tuple[str, Shares]]:
    rng, low = Rng(args.seed), setting.grids()[Scale.LOW][0]
    clips = bank.draw(rng, args.clips, range(1), Drawing(1, dropout=0, partial=0), min(low, args.grid))
    clips = clips.at((args.grid, args.grid))
    noise = rng.normal(*clips.latents.shape)
    flow = Bidirectional(network, setting.ropes(network.config, "cpu", (args.grid,)))
    return [(f"at {sigma:g}", of_pictures(flow, clips, noise, sigma)) for sigma in SIGMAS]


def _chunks(args, setting: protocol.Protocol, bank, network: Network) -> list[tuple[str, Shares]]:
    rng, low, found = Rng(args.seed), setting.grids()[Scale.LOW][0], []
    forcing = TeacherForcing(network, setting, protocol.MODES, "cpu", context_noise=0)
    for name, start in (("first chunk", 0), ("later chunk", LATER)):
        clips = bank.draw(rng, args.clips, forcing.frames(start), Drawing(1, dropout=0, partial=0), low)
        found += [(f"{name}, {step}", shares) for step, shares in of_chunks(forcing, clips, start, rng)]
    return found


if __name__ == "__main__":
    main()
