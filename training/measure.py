"""Measures what networks of single frames have learned: python -m training.measure --bank F RUN [RUN ...]

For each run, the share of the clips' variance that its clean estimates leave unexplained, in the cells of objects and
elsewhere, at some noise levels under whole captions. 1 is what the mean clip leaves; 0 is the clip itself.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from histream_core.plan.schedule import Scale
from training import protocol
from training.data import COVER, Clips, Drawing
from training.forward import Bidirectional, Flow, spread
from training.network import begin
from training.rng import Rng
from training.scene_bank import load_bank

SIGMAS = (1.0, 0.94, 0.8, 0.6)


@torch.no_grad()
def unexplained(flow: Flow, clips: Clips, noise: Tensor, sigma: float) -> tuple[float, float]:
    """Shares of the variance over clips that the clean estimate leaves, in cells of objects and in the others."""
    clean, level = clips.latents, noise.new_full(noise.shape[:1], sigma)
    noisy = torch.lerp(clean, noise, sigma)
    error = (noisy - spread(level, noisy) * flow(noisy, level, clips.tokens) - clean).square()
    variance = (clean - clean.mean(0)).square()
    objects = (clips.geometry[:, COVER] > 0)[:, None].expand_as(clean)
    return tuple(float(error[where].sum() / variance[where].sum()) for where in (objects, ~objects))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    protocol.add_arguments(parser)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--grid", type=int, default=16, help="cells a side")
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("runs", type=Path, nargs="+", help="checkpoints, or folders of exported files")
    args = parser.parse_args(argv)

    setting, rng = protocol.from_arguments(args), Rng(args.seed, "cpu")
    bank = load_bank(args.bank, "cpu", largest=args.grid)
    low = setting.grids()[Scale.LOW][0]
    clips = bank.draw(rng, args.clips, range(1), Drawing(1, dropout=0, partial=0), min(low, args.grid))
    clips = clips.at((args.grid, args.grid))
    noise = rng.normal(*clips.latents.shape)
    for run in args.runs:
        network = begin(run).requires_grad_(False)
        flow = Bidirectional(network, setting.ropes(network.config, "cpu", (args.grid,)))
        found = [(sigma, *unexplained(flow, clips, noise, sigma)) for sigma in SIGMAS]
        told = "; ".join(f"at {sigma:g} {objects:.3f}, elsewhere {other:.3f}" for sigma, objects, other in found)
        sys.stdout.write(f"{run}: objects {told}\n")


if __name__ == "__main__":
    main()
