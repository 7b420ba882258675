"""Ranks in processes, one of which becomes slow: its layers leave it, and the bits stay."""

import pytest
import torch
from soak.slowed_rank import NEAR, SLOWED_AT, WITHIN, alone, costs, least, watched_run

from histream_core.parallel.balance import slowest


@pytest.mark.slow
def test_eight_chunks_after_a_rank_became_slow_the_split_is_within_five_per_cent_of_the_best():
    """Sleeps are the costs, and ranks measure them alone. Seen to fail where what they measure is not looked at."""
    num_ranks, chunks = 3, SLOWED_AT + WITHIN + 6
    made, _, splits = watched_run(num_ranks, 0.002, chunks, counted=True)
    assert torch.equal(made, alone(chunks))
    slow = costs(num_ranks, True)
    assert slowest(splits[SLOWED_AT - 1], *slow) > 1.3 * least(num_ranks, True)
    assert slowest(splits[SLOWED_AT - 1 + WITHIN], *slow) <= NEAR * least(num_ranks, True)
    assert splits[-1] == splits[SLOWED_AT - 1 + WITHIN]
