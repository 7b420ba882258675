"""Scores the bundled demo model through the engine: python -m training.evaluate [--mode M] [--clips N] [--sheet PNG]

Seen and held-out prompts, judged from the decoded pixels; then the same with an empty prompt, or with random weights.
"""

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from histream_core import demo
from histream_core.decode import StreamingDecoder
from histream_core.demo import painter
from histream_core.evaluation.judge import Verdict, judge
from histream_core.media import write_png
from histream_core.noise import SeededNoise
from histream_core.plan import make_plan
from histream_core.presets import find_preset
from histream_core.stream import Prompt, Stream, make_caches
from histream_core.wan import Denoiser, Text


class Generator:
    """Prompt and seed in, pixel frames [F, H, W, 3] in [0, 1] out."""

    def __init__(
        self, mode: str, latent_frames: int, *, random_weights: bool = False, preset: str = demo.PRESET
    ) -> None:
        self.model, self.vae, self.encoder = demo.load_transformer(), demo.load_vae(), demo.load_text_encoder()
        if random_weights:
            for p in self.model.parameters():
                p.copy_(torch.randn_like(p) * 0.02)
        self.plan = make_plan(find_preset(preset), mode, width=demo.WIDTH, height=demo.HEIGHT, num_frames=latent_frames)

    def latents(self, prompt: str, seed: int) -> Iterator[torch.Tensor]:
        heads = {"num_heads": self.model.num_heads, "head_dim": self.model.dim // self.model.num_heads}
        caches = make_caches(self.plan, num_layers=self.model.num_layers, **heads)
        prompts = [Prompt(Text(self.encoder.encode(prompt)))]
        yield from Stream(self.plan, Denoiser(self.model), caches, SeededNoise(seed), prompts).chunks()

    def frames(self, prompt: str, seed: int) -> np.ndarray:
        decoder = StreamingDecoder(self.vae)
        with torch.inference_mode():
            pixels = torch.cat([decoder.decode(chunk) for chunk in self.latents(prompt, seed)], dim=2)
        return (pixels[0].permute(1, 2, 3, 0).clamp(-1, 1) / 2 + 0.5).numpy()


def rate(name: str, asked: list[painter.Combination], verdicts: list[Verdict]) -> None:
    agreed = [v.agrees(c) for v, c in zip(verdicts, asked, strict=True)]
    rates = "  ".join(f"{part} {np.mean([a[part] for a in agreed]):.2f}" for part in agreed[0])
    speed, area, presence = (np.mean([getattr(v, part) for v in verdicts]) for part in ("speed", "area", "presence"))
    print(
        f"{name:10s} n={len(asked)}  {rates}  speed {speed:.2f}  area {area:.3f}  presence {presence:.2f}", flush=True
    )


def strip(frames: np.ndarray, count: int = 6) -> np.ndarray:
    """A row of small pictures across the clip, [H, W, 3] uint8."""
    chosen = frames[np.linspace(0, len(frames) - 1, count).astype(int), ::2, ::2]
    return (np.concatenate(list(chosen), axis=1) * 255).round().astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", default="histream")
    parser.add_argument("--clips", type=int, default=16, help="of seen prompts")
    parser.add_argument("--held-out-clips", type=int, default=8)
    parser.add_argument("--latent-frames", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--empty", action="store_true", help="ask for nothing, and score against the prompts all the same"
    )
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of the clips")
    args = parser.parse_args()
    generator = Generator(args.mode, args.latent_frames, random_weights=args.random_weights)
    rows, rng = [], random.Random(args.seed)
    seen, held_out = painter.training_combinations(), sorted(painter.HELD_OUT)
    for name, pool, count in (("seen", seen, args.clips), ("held-out", held_out, args.held_out_clips)):
        asked, verdicts, began = rng.sample(pool, min(count, len(pool))), [], time.time()
        for number, combination in enumerate(asked):
            frames = generator.frames("" if args.empty else combination.caption(), args.seed + number)
            verdicts.append(judge(frames))
            rows.append(strip(frames))
        rate(name, asked, verdicts)
        print(f"{(time.time() - began) / len(asked):.1f} s per clip of {len(frames)} frames")
    if args.sheet:
        write_png(args.sheet, np.concatenate(rows))


if __name__ == "__main__":
    main()
