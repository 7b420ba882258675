"""The time left that a run tells, against the time that it took, on the bundled demo model.

    python benchmarks/time_left.py --frames 321 --out time-left

Renders one video on the CPU, decoded and written while it is made, and notes at every report the seconds since the
first one and the time left that the line shows. Writes `OUT.json` with all of them and `OUT.svg`, and prints the
largest share of the time left by which it was wrong from the beginning and from the end of the second chunk on, also
of an estimate by the number of network calls alone. All seconds are CPU seconds of the thread that samples and decodes
and of the one that writes: what other programs do on the computer meanwhile does not count.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from histream_core import Order, Prompt, SeededNoise, Target, Text, find_format, make_plan, render
from histream_core.cost.pace import Pace
from histream_core.demo import load_text_encoder
from histream_core.lab.charts.plots import line_plot
from histream_core.plan import Plan
from histream_core.plan.sizes import latent_frames
from histream_core.runs.progress import Progress
from histream_core.runs.weights import Weights, load_demo
from histream_core.video.writing import Times

SIZE, PROMPT = 256, "a red circle moves right on a blue background"
LAST = 0.01
"""Share of the run at its end that is left out: of the last second any error is large."""


class InCpuSeconds(Weights):
    """Weights whose progress is measured in CPU seconds."""

    def new_progress(self, plan: Plan) -> Progress:
        progress = super().new_progress(plan)
        return replace(progress, pace=Pace(self.cost(plan), times=progress.times, clock=time.thread_time))


def record(frames: int, mode: str) -> tuple[list[dict], float]:
    """Render a video; returns what it told at every report, and its seconds until the file was there."""
    weights = InCpuSeconds(**vars(load_demo()))
    text = Text(load_text_encoder().encode(PROMPT))
    plan = make_plan(weights.preset, mode, size=(SIZE, SIZE), num_latent_frames=latent_frames(frames))
    told: list[dict] = []
    time.perf_counter, Times.writing = time.thread_time, 0.0  # the clocks of two threads cannot be compared
    start = time.thread_time()

    def note(progress: Progress) -> None:
        done, at = sum(progress.calls.values()), time.thread_time() - start
        by_calls = at * (progress.num_calls - done) / done if done else None
        left = progress.pace.seconds_left
        told.append({"chunks": progress.chunks, "at": at, "left": left, "left_by_calls": by_calls})

    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder) / "video.mp4", find_format("h264-mp4"), size=plan.size)
        render(weights, Order(plan, (Prompt(text),), SeededNoise(7)), target, note)
    return told, time.thread_time() - start


def worst(told: list[dict], end: float, name: str, chunks: int) -> dict[str, float]:
    """The largest share of the time left by which it was wrong when `chunks` were finished or later, and when."""
    shares = [
        (abs(one[name] - (end - one["at"])) / (end - one["at"]), one["at"])
        for one in told
        if one["chunks"] >= chunks and one[name] is not None and one["at"] < (1 - LAST) * end
    ]
    share, at = max(shares)
    return {"share": share, "at": at}


def plot(told: list[dict], end: float, title: str) -> bytes:
    """The times left where each chunk is finished, in seconds."""
    ends = [one for before, one in pairwise(told) if one["chunks"] > before["chunks"]][:-1]
    arms = {
        "it took": [end - one["at"] for one in ends],
        "told": [one["left"] for one in ends],
        "by the number of calls": [one["left_by_calls"] for one in ends],
    }
    return line_plot(title, [one["chunks"] for one in ends], arms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=321)
    parser.add_argument("--mode", default="histream")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("time-left"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    told, end = record(args.frames, args.mode)
    found = {name: [worst(told, end, name, chunks) for chunks in (1, 2)] for name in ("left", "left_by_calls")}
    settings = {"frames": args.frames, "mode": args.mode, "size": SIZE, "threads": args.threads}
    args.out.with_suffix(".json").write_text(
        json.dumps({**settings, "seconds": end, "worst": found, "told": told}) + "\n"
    )
    title = f"CPU seconds left of {args.frames} frames, {args.mode}, when each chunk is finished"
    args.out.with_suffix(".svg").write_bytes(plot(told, end, title))
    sys.stdout.write(json.dumps({**settings, "seconds": end, "worst": found}) + "\n")


if __name__ == "__main__":
    main()
