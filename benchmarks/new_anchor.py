"""Scene after a cut with the old anchor, with a new one, and as a scene, on the bundled demo model.

    python benchmarks/new_anchor.py --pairs 6

For each pair of prompts that share neither background, colour nor shape: three chunks of the first, then five of the
second, by a cut and by a recache, each with the anchor of the video and with the first frame behind the cut in its
place, and as a scene, which sees nothing of the first. The last chunk is decoded and judged as `histream eval --demo`
judges: is it the second prompt's background, colour and shape, or still the first one's? Noise and the first three
chunks are the same in all.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from histream_core import demo
from histream_core.lab.judge.judge import judge
from histream_core.lab.judge.prompts import draw_prompts
from histream_core.network.forward import Text
from histream_core.plan.chunks import Plan, replay, with_anchors
from histream_core.plan.make import make_plan
from histream_core.plan.presets import find_preset
from histream_core.runs.weights import Weights
from histream_core.stream.inputs import Inputs
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.vae.decode import to_frames

CUT, CHUNKS, SIZE = 3, 8, 256
ARMS = {f"{change}, {anchor} anchor": (change == "recache", [3 * CUT] if anchor == "new" else [], [])
        for change in ("cut", "recache") for anchor in ("old", "new")} | {"scene": (False, [], [3 * CUT])}  # fmt: skip
"""By name: whether the window is recomputed, new anchors, new scenes."""
WORDS = ("background", "colour", "shape")


def make(weights: Weights, plan: Plan, seed: int, prompts: list[Prompt], given: torch.Tensor | None) -> torch.Tensor:
    """Make all latents [1, C, T, H, W]; `given` are those of the chunks before the cut."""
    plan = replay(plan, CUT) if given is not None else plan
    progress, inputs = weights.new_progress(plan), Inputs(given)
    stream = weights.open_stream(plan, SeededNoise(seed), prompts, progress=progress, inputs=inputs)
    return torch.cat(list(stream.chunks()), dim=2)


def last_frames(weights: Weights, latents: torch.Tensor):
    """Frames [F, H, W, 3] in [0, 1] of the last chunk, decoded from as far back as the VAE remembers."""
    decoder = weights.open_decoder()
    start = latents.shape[2] - 3
    first = max(0, start - decoder.memory_frames)
    decoder.warm_up(latents[:, :, first:start], start=first)
    return to_frames(decoder.decode(latents[:, :, start:]))[0].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    device, encoder = torch.device("cpu"), demo.load_text_encoder()
    preset = find_preset(demo.PRESET)
    weights = Weights(demo.load_transformer(), demo.load_vae(), preset, device, torch.float32)
    plan = make_plan(preset, "histream", size=(SIZE, SIZE), num_latent_frames=3 * CHUNKS)
    asked = draw_prompts(40, args.seed)
    pairs = [
        pair
        for pair in zip(asked, asked[1:] + asked[:1], strict=True)
        if all(getattr(pair[0].combination, word) != getattr(pair[1].combination, word) for word in WORDS)
    ][: args.pairs]
    right, left = Counter(), Counter()
    for before, after in pairs:
        texts = [encoder.encode(asked.prompt) for asked in (before, after)]
        head = make(weights, make_plan(preset, 'histream', size=(SIZE, SIZE), num_latent_frames=3 * CUT), before.seed,
                    [Prompt(Text(texts[0]))], None)  # fmt: skip
        for arm, (recache, anchors, scenes) in ARMS.items():
            prompts = [Prompt(Text(texts[0])), Prompt(Text(texts[1]), CUT, recache)]
            made = make(weights, with_anchors(plan, anchors, scenes), before.seed, prompts, head)
            verdict = judge(last_frames(weights, made))
            for word in WORDS:
                seen = getattr(verdict, word)
                right[arm, word] += seen == getattr(after.combination, word)
                left[arm, word] += seen == getattr(before.combination, word)
            shown = " ".join(str(getattr(verdict, word)) for word in WORDS)
            sys.stderr.write(f"{before.prompt} | {after.prompt} | {arm}: {shown}\n")
    found = {arm: {word: {"second": right[arm, word], "first": left[arm, word]} for word in WORDS} for arm in ARMS}
    sys.stdout.write(json.dumps({"pairs": len(pairs), "seed": args.seed, "arms": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
