"""Effect of --anchor-match on colour drift, of the bundled demo model at half the size that it was trained at.

    python benchmarks/anchor_match.py --prompts 4 --frames 141

Prints a line for each prompt and strength: the largest change of mean red, green or blue from the first second to the
last, and `drift_colour` of `histream eval --demo`, that of the object.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from histream_core.cli.options.weights import demo_source
from histream_core.lab.judge.prompts import draw_prompts
from histream_core.lab.judge.scores import score
from histream_core.network.forward import Text
from histream_core.plan.make import PlanOptions, make_plan
from histream_core.plan.sizes import FPS, latent_frames
from histream_core.runs.render import Order, collect
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt

SIDE = 128
STRENGTHS = (0.0, 0.5, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--frames", type=int, default=141)
    args = parser.parse_args()
    torch.set_num_threads(1)
    chosen = draw_prompts(40, 0)[: args.prompts]
    weights, texts = demo_source([asked.prompt for asked in chosen], torch.device("cpu")).load()
    frames = latent_frames(args.frames)
    for asked, text in zip(chosen, texts, strict=True):
        for strength in STRENGTHS:
            options = PlanOptions(anchor_match=strength)
            plan = make_plan(weights.preset, "histream", size=(SIDE, SIDE), num_latent_frames=frames, options=options)
            order = Order(plan, (Prompt(Text(text)),), SeededNoise(0))
            pictures = np.stack(collect(weights, order)).astype(np.float32) / 255
            first, last = (part.mean((0, 1, 2)) for part in (pictures[:FPS], pictures[-FPS:]))
            _, scores = score(pictures, asked.combination)
            row = {"prompt": asked.prompt, "anchor_match": strength, "change": round(float(abs(last - first).max()), 3)}
            sys.stdout.write(json.dumps(row | {"drift_colour": round(scores["drift_colour"], 3)}) + "\n")


if __name__ == "__main__":
    main()
