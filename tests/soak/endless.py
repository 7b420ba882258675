# ruff: noqa: T201
"""Run a plan without an end with a tiny model, and watch what it holds and what its chunks cost.

    python tests/soak/endless.py [--chunks 10000]

Compared are the first and the last hundredth of the chunks: bytes of the caches, and CPU time of a chunk (its median,
10% more at most); resident memory may grow by 8 MB after the first tenth. Exit status 1 where it is otherwise. Linux
only: it reads /proc.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import tiny
import torch

from histream_core.plan.chunks import ENDLESS


def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=10_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    stream = tiny.stream(tiny.plan("histream-plus", num_frames=ENDLESS, width=32, height=32))
    part, seconds, memory, held = max(1, args.chunks // 100), [], [], []
    before = time.process_time()
    for index, _ in enumerate(stream.chunks()):
        now = time.process_time()
        seconds.append(now - before)
        before = now
        if index % part == 0:
            memory.append(resident_mb())
            held.append(sum(cache.nbytes for cache in stream.caches.values()))
        if index + 1 == args.chunks:
            break
    warm = seconds[part:]
    first, last = (statistics.median(times) for times in (warm[:part], warm[-part:]))
    grown, slower = memory[-1] - memory[len(memory) // 10], last / first
    print(f"{args.chunks} chunks, {3 * args.chunks} latent frames without an end")
    print(f"caches: {held[0]} bytes first, {held[-1]} last")
    print(f"resident memory: {memory[len(memory) // 10]:.1f} MB after a tenth, {memory[-1]:.1f} MB at the end")
    print(f"CPU time of a chunk: {1e3 * first:.2f} ms first, {1e3 * last:.2f} ms last, ratio {slower:.3f}")
    return int(held[0] != held[-1] or grown > 8 or slower > 1.1)


if __name__ == "__main__":
    sys.exit(main())
