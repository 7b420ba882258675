"""Changes of prompt in the middle of a 60 s clip of the demo model: a jump in time against the other ways.

    python benchmarks/prompt_change.py --pairs 12 --out FILE.jsonl

For each pair of prompts that share neither background, colour nor shape: 30 s of the first, then 30 s of the second, by
each way. Noise and the first half are the same. Of every second behind the change: which of the second prompt's words
hold, and which of the first's. Written a line for each clip; those that are there are not made again.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from histream_core import demo
from histream_core.lab.judge.prompts import draw_prompts
from histream_core.lab.judge.throughout import read_seconds
from histream_core.network.forward import Text
from histream_core.plan.chunks import replay
from histream_core.plan.make import make_plan
from histream_core.plan.presets import find_preset
from histream_core.runs.render import decode_frames
from histream_core.runs.weights import Weights
from histream_core.stream.inputs import Inputs
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.stream.timeline import Change, Cue, place

WAYS, WORDS, FRAMES, FPS = ("recache", "cut", "scene", "blend", "jump"), ("background", "colour", "shape"), 241, 16


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=2605)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    preset, encoder = find_preset(demo.PRESET), demo.load_text_encoder()
    weights = Weights(demo.load_transformer(), demo.load_vae(), preset, torch.device("cpu"), torch.float32)
    plan = make_plan(preset, "histream-plus", size=(256, 256), num_latent_frames=FRAMES)
    asked = draw_prompts(80, args.seed)
    pairs = [(a, b) for a, b in zip(asked, asked[1:] + asked[:1], strict=True)
             if all(getattr(a.combination, w) != getattr(b.combination, w) for w in WORDS)][: args.pairs]  # fmt: skip
    done = (
        {(x["pair"], x["way"]) for x in map(json.loads, args.out.read_text().splitlines())} if args.out.exists() else ()
    )
    for number, (before, after) in enumerate(pairs):
        texts, head = [encoder.encode([one.told]) for one in (before, after)], None
        for way in WAYS:
            if (number, way) in done:
                continue
            placed = place((Cue(0, before.prompt), Cue(30, after.prompt, Change(way))), plan, FPS)
            prompts = placed.prompts(texts)
            cut = placed.chunks[1]
            if head is None:
                short = make_plan(preset, "histream-plus", size=(256, 256), num_latent_frames=3 * cut)
                stream = weights.open_stream(short, SeededNoise(before.seed), [Prompt(Text(texts[0]))],
                                             progress=weights.new_progress(short))  # fmt: skip
                head = torch.cat(list(stream.chunks()), dim=2)
            now = replay(placed.plan, cut)
            stream = weights.open_stream(
                now, SeededNoise(before.seed), prompts, progress=weights.new_progress(now), inputs=Inputs(head)
            )
            frames = [x.numpy() for x in decode_frames(weights, stream.chunks(), now.scenes)]
            clip = np.concatenate(frames)[now.chunks[cut].first_pixel_frame :]
            seconds = read_seconds(clip)
            old = [{w: getattr(one, w) == getattr(before.combination, w) for w in WORDS} for one in seconds]
            new = [one.holds(after.combination) for one in seconds]
            line = {"pair": number, "way": way, "new": new, "old": old}
            with args.out.open("a") as out:
                out.write(json.dumps(line) + "\n")
            sys.stderr.write(f"{number} {way}\n")


if __name__ == "__main__":
    main()
