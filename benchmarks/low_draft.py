"""How well half-resolution drafts predict the video, and what share of its operations they cost.

    python benchmarks/low_draft.py --prompts 12 --seconds 60 --out draft.jsonl

Writes a line to `draft.jsonl` for each prompt as it is made, goes on where it was stopped, and prints means with 95%
intervals over prompts. Three pictures are held against each finished chunk of the bundled demo model: the estimate of
that chunk after its steps at LOW, the chunk of a draft of the whole clip, and that of a draft with another seed.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from histream_core import demo
from histream_core.cli.options.weights import demo_source
from histream_core.cost.cost import VAE_WIDTH, Cost
from histream_core.lab.judge.bootstrap import estimate
from histream_core.lab.judge.judge import judge, segment
from histream_core.lab.judge.prompts import DemoPrompt, draw_prompts
from histream_core.network.forward import Text
from histream_core.network.model import WAN_1_3B
from histream_core.plan.chunks import Chunk, Plan
from histream_core.plan.draft import draft_of
from histream_core.plan.make import make_plan
from histream_core.plan.presets import find_preset
from histream_core.plan.schedule import Scale
from histream_core.plan.sizes import frames_in, latent_frames, whole_length
from histream_core.runs.weights import Weights
from histream_core.stream.inputs import Inputs
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.vae.decode import stream_frames, to_frames

ALONE = 9
"""Frames of a chunk that is decoded alone: the last ones of the chunk in its video."""

DRAFTS = ("estimate", "draft", "other seed")
FIGURES = {
    "apart": "mean difference of a pixel's channel at half size, of full scale",
    "outline": "part of the two objects that they share, where they lie",
    "words": "share of chunks that show the same background, colour, shape and direction",
}


def compare(shown: np.ndarray, final: np.ndarray) -> dict[str, float]:
    """The FIGURES of frames [F, H, W, 3] in [0, 1] against those of the finished chunk."""
    shown, final = shown.astype(np.float32), final.astype(np.float32)
    one, other = (segment(frames).masks for frames in (shown, final))
    read = [judge(frames) for frames in (shown, final)]
    words = [(verdict.background, verdict.colour, verdict.shape, verdict.direction) for verdict in read]
    return {
        "apart": float(np.abs(shown - final).mean()),
        "outline": float((one & other).sum() / max(1, (one | other).sum())),
        "words": float(words[0] == words[1]),
    }


def clip(weights: Weights, plan: Plan, text: Tensor, seed: int, estimates: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The last frames of each chunk at half the demo's size; `estimates` takes those after LOW, decoded alone."""
    side, decoder = demo.WIDTH // 2, weights.open_decoder()

    def look(chunk: Chunk, clean: Tensor) -> None:  # noqa: ARG001 - all chunks alike
        estimates.append(to_frames(decoder.decode(clean))[0].half().numpy())
        decoder.reset()

    inputs = Inputs(review=look if Scale.LOW in plan.grids else None)
    progress = weights.new_progress(plan)
    prompts = (Prompt(Text(text)),)
    run = weights.open_stream(plan, SeededNoise(seed), prompts, progress=progress, inputs=inputs)
    for frames in stream_frames(weights.open_decoder(), run.chunks()):
        yield (
            F.interpolate(frames[-ALONE:].permute(0, 3, 1, 2), (side, side), mode="area")
            .permute(0, 2, 3, 1)
            .half()
            .numpy()
        )


def measure(weights: Weights, text: Tensor, asked: DemoPrompt, num_latent_frames: int) -> dict:
    """The FIGURES of every chunk of a clip, for each of DRAFTS."""
    plan = make_plan(weights.preset, "histream", size=(demo.WIDTH, demo.HEIGHT), num_latent_frames=num_latent_frames)
    shown: dict[str, list[np.ndarray]] = {name: [] for name in DRAFTS}
    finals = list(clip(weights, plan, text, asked.seed, shown["estimate"]))
    for name, seed in (("draft", asked.seed), ("other seed", asked.seed + 1)):
        shown[name] = list(clip(weights, draft_of(plan), text, seed, []))
    pairs = {name: zip(found, finals, strict=True) for name, found in shown.items()}
    return {name: [compare(*pair) for pair in both] for name, both in pairs.items()}


def shares() -> Iterator[str]:
    """Yield the cost of drafts as shares of the operations of the network, and of network and decoder."""
    bundled = demo.load_transformer().config, demo.load_vae().dim
    sizes = {
        "demo": ("demo", (demo.WIDTH, demo.HEIGHT), *bundled),
        "1.3B": ("self-forcing", (1920, 1088), WAN_1_3B, VAE_WIDTH),
    }
    for name, (preset, size, config, width) in sizes.items():
        for mode in ("histream", "histream-plus"):
            plan = make_plan(find_preset(preset), mode, size=size, num_latent_frames=241)
            whole, draft = (Cost(config, one, vae_width=width) for one in (plan, draft_of(plan)))
            chunk = plan.chunks[9]
            low = sum(whole.call_flops(chunk, step) for step in chunk.steps if step.scale is Scale.LOW)
            every = sum(whole.call_flops(chunk, step) for step in (*chunk.steps, *chunk.cache_steps))
            frames = plan.num_pixel_frames
            both = (draft.flops + frames * draft.decode_flops) / (whole.flops + frames * whole.decode_flops)
            yield (f"{name}, {size[0]}x{size[1]}, {mode}: LOW of a later chunk {low / every:.3f} of its calls, a draft "
                   f"of the clip {draft.flops / whole.flops:.3f}, with decoding {both:.3f}")  # fmt: skip


def table(rows: list[dict]) -> Iterator[str]:
    """Means with intervals over prompts, of all chunks, the first one and the last quarter."""
    for part, of in (("all", slice(None)), ("first", slice(1)), ("last quarter", None)):
        for name in DRAFTS:
            means = []
            for figure in FIGURES:
                each = [
                    np.mean([chunk[figure] for chunk in row[name][of or slice(-(len(row[name]) // 4), None)]])
                    for row in rows
                ]
                means.append(f"{figure} {estimate(each)}")
            yield f"{part}, {name}: {', '.join(means)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    chosen = draw_prompts(args.prompts, 0)
    weights, texts = demo_source([asked.told for asked in chosen], torch.device("cpu")).load()
    frames = latent_frames(whole_length(frames_in(args.seconds, demo.FPS)))
    frames -= frames % weights.preset.chunk_frames  # a shorter chunk at the end would not show motion
    rows = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    with args.out.open("a") as out, torch.inference_mode():
        for asked, text in list(zip(chosen, texts, strict=True))[len(rows) :]:
            rows.append({"prompt": asked.prompt} | measure(weights, text, asked, frames))
            out.write(json.dumps(rows[-1]) + "\n")
            out.flush()
    for line in (*shares(), *table(rows)):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
