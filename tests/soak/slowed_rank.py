# ruff: noqa: T201
"""Slow one rank of a running pipeline by half, and see its layers leave it.

    python tests/soak/slowed_rank.py [--ranks 3] [--seconds 0.03] [--chunks 36]

Ranks are processes that sleep for each layer. Printed are the seconds of a chunk before, just after, and from eight
chunks after the change on: by the clock, and those that the split takes by the sleeps alone, beside the least that any
split takes. Exit status 1 where the last split takes more than 5% above that, or the bits are others than those of one
process. By the clock all of it takes longer by what the tiny layers compute and what else the computer does.
"""

import argparse
import json
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import tiny
import torch
from process_ranks import sleeping_gang

from histream_core.network.cache.window import CacheOptions
from histream_core.network.forward import PassOptions
from histream_core.network.model import WanConfig
from histream_core.parallel.balance import best_split, bounds_of, even_split, slowest
from histream_core.parallel.gang import PipelineDenoiser
from histream_core.plan.histories import EACH_STEP
from histream_core.plan.order import DIAGONAL
from histream_core.plan.speed import DEFAULTS
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.stream.stream import Stream

CONFIG = WanConfig(dim=48, ffn_dim=64, num_heads=2, num_layers=24, in_dim=4, out_dim=4, text_dim=16, freq_dim=16)
SLOWED_AT, WITHIN, NEAR = 12, 8, 1.05
"""The chunk after which a rank is slowed, the chunks after which its layers have left it, and how near that is."""


def plan_of(num_chunks):
    return tiny.plan("full", num_frames=3 * num_chunks, width=32, height=32, histories=EACH_STEP, order=DIAGONAL)


def watched_run(num_ranks, seconds, num_chunks, *, counted):
    """The latents of a video one of whose ranks is slowed, and after each chunk the clock and the split."""
    plan, model, times, splits, chunks = plan_of(num_chunks), tiny.wan(CONFIG), [], [], []
    with sleeping_gang(num_ranks, seconds, counted=counted) as (gang, factors):
        gang.give_weights(model, CONFIG, torch.float32)
        bounds = bounds_of(even_split(CONFIG.num_layers, num_ranks))
        caches = gang.prepare(plan, model, CacheOptions(), DEFAULTS, plan.levels, bounds)
        denoise = PipelineDenoiser(gang, PassOptions(), torch.float32)
        stream = Stream(plan, denoise, caches, SeededNoise(1), [Prompt(tiny.text(3))], channels=4, ring=len(bounds) - 1)
        for chunk in stream.chunks():
            chunks.append(chunk)
            times.append(time.monotonic())
            splits.append(tuple(gang._ring.split))
            if len(chunks) == SLOWED_AT:
                factors[1].value = 2.0
    return torch.cat(chunks, dim=2), times, splits


def alone(num_chunks):
    """The latents of one process."""
    return tiny.video(plan_of(num_chunks), model=tiny.wan(CONFIG), prompts=[Prompt(tiny.text(3))])


def costs(num_ranks, slowed):
    """Costs of layers, speeds of ranks and what they do besides."""
    speeds = [0.5 if slowed and rank == 1 else 1.0 for rank in range(num_ranks)]
    return [1.0] * CONFIG.num_layers, speeds, [0.0] * num_ranks


def least(num_ranks, slowed):
    """The layers' time of the slowest rank in the best split."""
    found = costs(num_ranks, slowed)
    return slowest(best_split(*found), *found)


def phases(num_ranks, times, splits):
    """The median seconds of a chunk by the clock, before and after the change, and the last split of each phase."""
    steps = len(plan_of(3).levels)
    taken = [after - before for before, after in pairwise(times)]
    places = {
        "before": range(WITHIN, SLOWED_AT - 1),
        "slowed": range(SLOWED_AT, SLOWED_AT + 2),
        "recovered": range(SLOWED_AT + WITHIN, len(taken) - steps),
    }
    return {
        name: {
            "chunk_s": round(statistics.median(taken[place] for place in chunks), 3),
            "split": [len(layers) for layers in splits[chunks[-1]]],
            "layers": slowest(splits[chunks[-1]], *costs(num_ranks, name != "before")),
            "least": least(num_ranks, name != "before"),
        }
        for name, chunks in places.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.03, help="seconds of a layer")
    parser.add_argument("--chunks", type=int, default=36)
    args = parser.parse_args()
    torch.set_num_threads(1)
    made, times, splits = watched_run(args.ranks, args.seconds, args.chunks, counted=False)
    found, steps = phases(args.ranks, times, splits), len(plan_of(3).levels)
    print(f"{args.ranks} ranks, {CONFIG.num_layers} layers of {args.seconds} s, {steps} steps, rank 1 slowed by half")
    for name, phase in found.items():
        by_sleeps, best = (phase[key] * args.seconds * steps for key in ("layers", "least"))
        print(
            f"{name:9}: layers {phase['split']}, a chunk {by_sleeps:.2f} s by the sleeps, least {best:.2f} s, "
            f"by the clock {phase['chunk_s']:.2f} s"
        )
    same = torch.equal(made, alone(args.chunks))
    print(json.dumps(found | {"same_bits": same}))
    return int(not same or found["recovered"]["layers"] > NEAR * found["recovered"]["least"])


if __name__ == "__main__":
    sys.exit(main())
