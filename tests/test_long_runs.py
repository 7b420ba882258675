"""A long run costs per chunk what a short one does: in bytes and in time, one thread, process time."""

import gc
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import tiny
import torch

from histream_core.wan_model import WanConfig

NUM_CHUNKS = 60
CONFIG = WanConfig(dim=96, ffn_dim=192, num_heads=4, num_layers=3, in_dim=4, out_dim=4, text_dim=16, freq_dim=16)
TRIES = 3
"""A shared machine disturbs a timing now and then; real growth shows in every try."""


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def resident_mb() -> float:
    """Resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def measure(mode: str) -> tuple[float, float]:
    """Median time of chunks 50-60 over chunks 3-13, and resident MB gained from chunk 3 to the end."""
    stream = tiny.stream(tiny.plan(mode, num_frames=3 * NUM_CHUNKS, width=128, height=128), model=tiny.wan(CONFIG))
    gc.collect()
    ticks, resident = [time.process_time()], []
    for _ in stream.chunks():
        ticks.append(time.process_time())
        resident.append(resident_mb())
    spent = [end - start for start, end in pairwise(ticks)]
    ratio = statistics.median(spent[50:60]) / statistics.median(spent[3:13])
    return ratio, resident[-1] - resident[3]


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_sixty_chunks_cost_as_much_at_the_end_as_at_the_start():
    """Seen to fail with the `history` mode, which the next test holds on to."""
    results = [measure("histream-plus")]
    while len(results) < TRIES and not (0.9 <= results[-1][0] <= 1.1 and results[-1][1] < 8):
        results.append(measure("histream-plus"))
    ratio, gained = results[-1]
    assert 0.9 <= ratio <= 1.1, results
    assert gained < 8, results


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_the_whole_history_fails_the_same_check():
    ratio, gained = measure("history")
    assert ratio > 1.5
    assert gained > 8
