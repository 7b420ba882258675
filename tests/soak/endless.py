# ruff: noqa: T201
"""Run a plan without an end with a tiny model, and watch what it holds and what its chunks cost.

    python tests/soak/endless.py [--chunks 10000]

The bytes of the caches must stay the same, and resident memory may grow by 8 MB after the first tenth. The CPU time of
the last chunks is compared with that of the first ones of a second stream, in turn, so that another program on the
machine slows both: its median may be 10% more. Exit status 1 where it is otherwise. Linux only: it reads /proc.
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


def held_bytes(stream):
    return sum(cache.nbytes for cache in stream.caches.values())


def endless_stream():
    return tiny.stream(tiny.plan("histream-plus", num_frames=ENDLESS, width=32, height=32))


def seconds_for(chunks):
    before = time.process_time()
    next(chunks)
    return time.process_time() - before


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=10_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    old, part, memory, held = endless_stream(), max(1, args.chunks // 100), [], []
    old_chunks = old.chunks()
    for index in range(args.chunks - 2 * part):
        next(old_chunks)
        if index % part == 0:
            memory.append(resident_mb())
            held.append(held_bytes(old))
    new_chunks, new_times, old_times = endless_stream().chunks(), [], []
    for _ in range(2 * part):
        old_times.append(seconds_for(old_chunks))
        new_times.append(seconds_for(new_chunks))
    held.append(held_bytes(old))
    first, last = (statistics.median(times[part:]) for times in (new_times, old_times))
    tenth = memory[len(memory) // 10]
    grown, slower = memory[-1] - tenth, last / first
    print(f"{args.chunks} chunks, {3 * args.chunks} latent frames without an end")
    print(f"caches: {held[0]} bytes first, {held[-1]} last")
    print(f"resident memory: {tenth:.1f} MB after a tenth, {memory[-1]:.1f} MB at the end")
    print(f"CPU time of a chunk: {1e3 * first:.2f} ms at first, {1e3 * last:.2f} ms at last, ratio {slower:.3f}")
    return int(held[0] != held[-1] or grown > 8 or slower > 1.1)


if __name__ == "__main__":
    sys.exit(main())
