"""Predictions for a farm: what can be told by hand, and what losses and slow workers cost."""

from dataclasses import replace

import pytest

from histream_core.parallel.farm_prediction import Farm, simulate_farm

STEADY = Farm(4, 8, video_seconds=100.0, chunks=10, start_seconds=0.0, spread=0.0, slow=0.0, lost_per_hour=0.0)


def test_equal_workers_without_losses_do_as_many_videos_each():
    found = simulate_farm(STEADY)
    assert (found.seconds, found.half, found.busy) == (200.0, 100.0, 1.0)
    assert simulate_farm(replace(STEADY, videos=9)).seconds == 300.0


def test_workers_start_first():
    assert 210 <= simulate_farm(replace(STEADY, start_seconds=10.0)).seconds <= 215


def test_slow_workers_hold_up_the_last_video():
    assert simulate_farm(replace(STEADY, slow=1.0)).seconds == 400.0
    many = replace(STEADY, workers=100, videos=100)
    assert simulate_farm(many).seconds == 100.0
    assert simulate_farm(replace(many, slow=0.02)).seconds == 200.0
    assert 110 < simulate_farm(replace(many, spread=0.1)).seconds < 150


@pytest.mark.parametrize("seed", range(5))
def test_lost_workers_cost_a_chunk_and_a_start_each_and_no_video(seed):
    """A worker is lost every 100 seconds on average, ten times as often as it ends a video of 1,000 seconds."""
    farm = replace(STEADY, video_seconds=1000.0, chunks=100, lost_per_hour=36.0)
    found = simulate_farm(farm, seed)
    assert 2000 < found.seconds < 4000 and found.busy < 1
    assert simulate_farm(farm, seed) == found
