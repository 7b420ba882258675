"""Changes of prompt in the middle of a 60 s clip of the demo model: a jump in time against the other ways.

    python benchmarks/prompt_change.py --pairs 12 --ways jump recache --out FILE.jsonl

For each pair of prompts that share neither background, colour nor shape: 30 s of the first, then 30 s of the second, by
each way. Noise and the first half are the same. Of every second behind the change: which of the second prompt's words
hold, and which of the first's. Written a line for each clip; those that are there are not made again. A table comes
last: means with 95% bootstrap intervals over pairs, and each way less the last one that is named.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from histream_core import demo
from histream_core.demo.text import DemoTextEncoder
from histream_core.lab.judge.bootstrap import difference, estimate
from histream_core.lab.judge.prompts import DemoPrompt, draw_prompts
from histream_core.lab.judge.throughout import Second, read_seconds
from histream_core.network.forward import Text
from histream_core.plan.chunks import replay
from histream_core.plan.make import make_plan
from histream_core.plan.presets import find_preset
from histream_core.runs.weights import Weights
from histream_core.stream.inputs import Inputs
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.stream.timeline import Change, Cue, place
from histream_core.vae.decode import begin_scene, to_frames

WAYS, WORDS, FRAMES, FPS = ("recache", "cut", "scene", "blend", "jump"), ("background", "colour", "shape"), 241, 16

Pair = tuple[DemoPrompt, DemoPrompt]


def draw_pairs(count: int, seed: int) -> list[Pair]:
    """Pairs of prompts that share none of WORDS."""
    asked = draw_prompts(80, seed)
    pairs = zip(asked, asked[1:] + asked[:1], strict=True)
    return [
        (a, b) for a, b in pairs if all(getattr(a.combination, w) != getattr(b.combination, w) for w in WORDS)
    ][:count]  # fmt: skip


class Maker:
    """Makes the clips of one pair, whose first halves are one."""

    def __init__(self, weights: Weights, encoder: DemoTextEncoder, pair: Pair) -> None:
        self.weights, self.pair = weights, pair
        self.texts = [encoder.encode([one.told]) for one in pair]
        self.half: torch.Tensor | None = None

    def plan(self, frames: int):
        return make_plan(self.weights.preset, "histream-plus", size=(256, 256), num_latent_frames=frames)

    def seconds(self, way: str) -> list[Second]:
        """The words that each second behind the change shows."""
        before, after = self.pair
        noise, weights = SeededNoise(before.seed), self.weights
        placed = place((Cue(0, before.prompt), Cue(30, after.prompt, Change(way))), self.plan(FRAMES), FPS)
        cut = placed.chunks[1]
        if self.half is None:
            short = self.plan(3 * cut)
            prompts, progress = [Prompt(Text(self.texts[0]))], weights.new_progress(short)
            self.half = torch.cat(list(weights.open_stream(short, noise, prompts, progress=progress).chunks()), dim=2)
        plan = replay(placed.plan, cut)
        stream = weights.open_stream(
            plan, noise, placed.prompts(self.texts), progress=weights.new_progress(plan), inputs=Inputs(self.half)
        )
        latents, first = torch.cat(list(stream.chunks()), dim=2), plan.chunks[cut].frames.start
        decoder = weights.open_decoder()
        behind = first - decoder.memory_frames
        decoder.warm_up(latents[:, :, behind:first], start=behind)
        if first in plan.scenes:
            begin_scene(decoder, latents[:, :, first:])
        return read_seconds(to_frames(decoder.decode(latents[:, :, first:]))[0].numpy())


def make(pairs: Sequence[Pair], ways: Sequence[str], path: Path) -> None:
    """Write a line for each clip that the file lacks."""
    weights = Weights(
        demo.load_transformer(), demo.load_vae(), find_preset(demo.PRESET), torch.device("cpu"), torch.float32
    )
    done, encoder = {(x["pair"], x["way"]) for x in read(path)}, demo.load_text_encoder()
    for number, pair in enumerate(pairs):
        maker, (before, after) = Maker(weights, encoder, pair), pair
        for way in (way for way in ways if (number, way) not in done):
            seconds = maker.seconds(way)
            old = [{w: getattr(one, w) == getattr(before.combination, w) for w in WORDS} for one in seconds]
            line = {"pair": number, "way": way, "new": [one.holds(after.combination) for one in seconds], "old": old}
            with path.open("a") as out:
                out.write(json.dumps(line) + "\n")
            sys.stderr.write(f"{number} {way}\n")


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def figures(clip: dict) -> dict[str, float]:
    """Shares of the seconds behind a change, of which the last ten count by themselves too."""
    held, old = [all(second.values()) for second in clip["new"]], [any(second.values()) for second in clip["old"]]
    return {
        "before all new words first hold": (held.index(True) if any(held) else len(held)) / len(held),
        "with a word of before": sum(old) / len(old),
        "all new words hold": sum(held) / len(held),
        "in the last ten": sum(held[-10:]) / 10,
    }


def table(clips: Sequence[dict], ways: Sequence[str]) -> Iterator[str]:
    """A row for each way, and each less the last one, over the pairs that have all."""
    found = {way: {clip["pair"]: figures(clip) for clip in clips if clip["way"] == way} for way in ways}
    pairs = sorted(set.intersection(*(set(rows) for rows in found.values())))
    names = list(figures(clips[0]))
    yield f"| {len(pairs)} pairs | {' | '.join(names)} |"
    yield f"| --- |{' --- |' * len(names)}"
    for way in ways:
        yield f"| {way} | {' | '.join(str(estimate([found[way][n][x] for n in pairs])) for x in names)} |"
    for way in ways[:-1]:
        mine, theirs = ([[rows[n][x] for n in pairs] for x in names] for rows in (found[way], found[ways[-1]]))
        yield f"| {way} less {ways[-1]} | {' | '.join(map(str, map(difference, mine, theirs)))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seed", type=int, default=2605)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    make(draw_pairs(args.pairs, args.seed), args.ways, args.out)
    sys.stdout.write("\n".join(table(read(args.out), args.ways)) + "\n")


if __name__ == "__main__":
    main()
