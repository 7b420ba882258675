"""Does a video keep the thing of its first picture, at its size and place? On the bundled demo model.

    python benchmarks/first_picture.py --pictures 50

A painted picture begins each video, with its shape anywhere in the frame, as `histream demo --first-frame` does; half
of the prompts are held out. Of the second second: what the shape shares with that of the painter's own clip from the
picture, where both lie (`overlap`, intersection over union) and laid upon each other (`outline`), and its area against
the painter's (`size`). The picture standing still is the control.
"""

import argparse
import json
import random
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from histream_core import demo
from histream_core.demo.painter import paint
from histream_core.lab.judge.bootstrap import estimate
from histream_core.lab.judge.judge import segment
from histream_core.lab.judge.prompts import DemoPrompt, draw_prompts
from histream_core.network.forward import Text
from histream_core.plan.make import PlanOptions, make_plan
from histream_core.plan.presets import find_preset
from histream_core.runs.render import Order, collect
from histream_core.runs.weights import Weights
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt

FRAMES, SECOND = 33, slice(16, 32)


def begun(weights: Weights, mode: str, picture: np.ndarray, text: torch.Tensor, seed: int) -> np.ndarray:
    """The frames [F, H, W, 3] in [0, 1] of a video that begins with a picture [H, W, 3]."""
    options = PlanOptions(given_frames=1, first_frame=True)
    size = picture.shape[:2]
    plan = make_plan(weights.preset, mode, size=size, num_latent_frames=1 + FRAMES // 4, options=options)
    given = weights.encode_first_frame(torch.from_numpy(picture), hold=plan.first_chunk_frames)
    order = Order(plan, (Prompt(Text(text)),), SeededNoise(seed), given)
    return np.stack(collect(weights, order)).astype(np.float32) / 255


def shared(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of masks [F, H, W], mean over frames."""
    both, either = (one & other).sum((1, 2)), (one | other).sum((1, 2))
    return float(np.mean(both / np.maximum(either, 1)))


def laid_upon(one: np.ndarray, other: np.ndarray) -> float:
    """The same where the second is moved, around the edges of the frame, to fit the first best."""
    found = []
    for a, b in zip(one.astype(np.float32), other.astype(np.float32), strict=True):
        fits = np.fft.irfft2(np.fft.rfft2(a) * np.fft.rfft2(b).conj(), s=a.shape)
        found.append(fits.max() / max(1.0, a.sum() + b.sum() - fits.max()))
    return float(np.mean(found))


def scores(frames: np.ndarray, true: np.ndarray) -> dict[str, float]:
    made, asked = segment(frames).masks, segment(true).masks
    areas = made.mean(), asked.mean()
    size = float(min(areas) / max(*areas, 1e-9))
    return {"overlap": shared(made, asked), "outline": laid_upon(made, asked), "size": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mode", default="histream-plus")
    args = parser.parse_args()
    encoder, preset = demo.load_text_encoder(), find_preset(demo.PRESET)
    weights = Weights(demo.load_transformer(), demo.load_vae(), preset, torch.device("cpu"), torch.float32)
    rows: dict[str, list[dict[str, float]]] = {"made": [], "standing still": []}

    def true_clip(asked: DemoPrompt) -> np.ndarray:
        rng = random.Random(asked.seed)
        start = rng.random(), rng.random()
        return paint(asked.combination, range(FRAMES), size=demo.WIDTH, start=start, training=False)

    for asked in draw_prompts(args.pictures, args.seed):
        true = true_clip(asked).astype(np.float32)
        frames = begun(weights, args.mode, true[0], encoder.encode(asked.prompt), asked.seed)
        rows["made"].append(scores(frames[SECOND], true[SECOND]))
        rows["standing still"].append(scores(np.repeat(true[:1], 16, axis=0), true[SECOND]))
        sys.stderr.write(f"{asked.prompt}: {rows['made'][-1]}\n")
    found = {
        name: {score: str(estimate([row[score] for row in measured])) for score in measured[0]}
        for name, measured in rows.items()
    }
    sys.stdout.write(
        json.dumps({"pictures": args.pictures, "seed": args.seed, "mode": args.mode, **found}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
