"""The split of layers over ranks: as good as trying all, steady under noise, and back at the optimum after a change."""

import random
from itertools import combinations, pairwise

import pytest

from histream_core.parallel.balance import (
    PAYS_WITHIN,
    Balancer,
    Move,
    best_split,
    even_split,
    moves,
    slowest,
    split_of,
)


def every_split(num_blocks, num_ranks):
    """All splits in which each rank has a layer."""
    for cuts in combinations(range(1, num_blocks), num_ranks - 1):
        yield split_of([stop - start for start, stop in pairwise((0, *cuts, num_blocks))])


def by_average(blocks, speeds, extra):
    """The published heuristic as a baseline: one mean time of a layer for all ranks, and the VAE counted in layers."""
    ranks, mean = len(speeds), sum(blocks) / len(blocks) / (sum(speeds) / len(speeds))
    target = (mean * len(blocks) + sum(extra)) / ranks
    counts = [max(1, round((target - besides) / mean)) for besides in extra]
    while sum(counts) != len(blocks):
        over = sum(counts) > len(blocks)
        loads = [besides + mean * count for besides, count in zip(extra, counts, strict=True)]
        order = sorted(range(ranks), key=lambda rank: loads[rank], reverse=over)
        counts[next(rank for rank in order if not over or counts[rank] > 1)] += -1 if over else 1
    return split_of(counts)


def cases(count):
    """Costs of few layers on few ranks: layers and speeds alike or not, a VAE on either end or none."""
    draw = random.Random(7)
    for _ in range(count):
        num_ranks = draw.randint(1, 4)
        num_blocks = draw.randint(num_ranks, 7)
        blocks = [draw.choice([1.0, draw.uniform(0.2, 3)]) for _ in range(num_blocks)]
        speeds = [draw.choice([1.0, draw.uniform(0.3, 2)]) for _ in range(num_ranks)]
        extra = [0.0] * num_ranks
        extra[0] += draw.choice([0.0, draw.uniform(0, 5)])
        extra[-1] += draw.choice([0.0, draw.uniform(0, 5)])
        yield blocks, speeds, extra


def test_the_best_split_is_the_best_of_all_and_no_worse_than_simpler_ones():
    """2,000 random cases."""
    for blocks, speeds, extra in cases(2_000):
        found = best_split(blocks, speeds, extra)
        assert [layer for layers in found for layer in layers] == list(range(len(blocks)))
        assert len(found) == len(speeds) and all(found)
        seconds = slowest(found, blocks, speeds, extra)
        least = min(slowest(split, blocks, speeds, extra) for split in every_split(len(blocks), len(speeds)))
        assert seconds == pytest.approx(least, rel=1e-12)
        for simple in (even_split(len(blocks), len(speeds)), by_average(blocks, speeds, extra)):
            assert seconds <= slowest(simple, blocks, speeds, extra) * (1 + 1e-12)


def test_more_ranks_than_layers_are_refused_with_the_number_that_works():
    with pytest.raises(ValueError, match="3 layers do not split over 4 ranks: use 1 to 3 ranks"):
        best_split([1.0] * 3, [1.0] * 4, [0.0] * 4)


def test_moves_are_the_layers_that_another_rank_has():
    assert list(moves(split_of([2, 2]), split_of([1, 3]))) == [Move(1, 0, 1)]
    assert not list(moves(split_of([2, 2]), split_of([2, 2])))


class Ranks:
    """Ranks that take virtual seconds for their layers, with some noise, and a VAE on the first and the last one."""

    def __init__(self, seconds, extra=(0.0, 0.0), noise=0.0):
        self.seconds, self.noise, self.draw = list(seconds), noise, random.Random(1)
        self.extra = [extra[0], *[0.0] * (len(seconds) - 2), extra[1]]

    def costs(self, num_blocks):
        return [1.0] * num_blocks, [1 / seconds for seconds in self.seconds], self.extra

    def chunk(self, balancer, split):
        """Measure a chunk; returns the seconds of the slowest rank, and the split from now on."""
        for rank, layers in enumerate(split):
            factor = 1 + self.draw.gauss(0, self.noise)
            balancer.measure(rank, self.seconds[rank] * len(layers) * factor, len(layers))
            balancer.measure_extra(rank, self.extra[rank] * factor)
        return balancer.split()


@pytest.mark.parametrize("num_ranks", [2, 4, 8])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_rank_slowed_by_half_in_mid_stream_costs_no_more_than_five_per_cent_after_eight_chunks(num_ranks, noise):
    ranks, balancer = Ranks([1.0] * num_ranks, (2.0, 4.0), noise), Balancer(30, num_ranks, move_seconds=0.2)
    split = balancer.split()
    for _ in range(10):
        split = ranks.chunk(balancer, split)
    ranks.seconds[1] *= 2
    slowed = slowest(split, *ranks.costs(30))
    for _ in range(PAYS_WITHIN):
        split = ranks.chunk(balancer, split)
    least = slowest(best_split(*ranks.costs(30)), *ranks.costs(30))
    assert slowest(split, *ranks.costs(30)) <= 1.05 * least < slowed


def test_noise_moves_no_layer():
    ranks, balancer = Ranks([1.0] * 4, (3.0, 3.0), noise=0.01), Balancer(40, 4)
    splits = [ranks.chunk(balancer, balancer.split()) for _ in range(60)]
    assert len(set(splits[5:])) == 1


def test_layers_stay_where_moving_them_takes_longer_than_it_saves():
    """A gain of 7 seconds a chunk: 7 layers that take less than 8 seconds each to move are moved, others are not."""
    for move_seconds, moved in ((7.9, True), (8.1, False)):
        balancer = Balancer(30, 2, move_seconds=move_seconds)
        balancer.measure(0, 15.0, 15), balancer.measure(1, 15.0, 15), balancer.measure_extra(1, 14.0)
        assert (balancer.split() == split_of([22, 8])) is moved


def test_a_small_gain_and_a_rank_that_has_not_measured_change_nothing():
    balancer = Balancer(30, 2)
    balancer.measure(0, 15.0, 15)
    assert balancer.split() == even_split(30, 2)
    balancer.measure(1, 16.2, 15)
    balancer.measure_extra(1, 0.0)
    assert balancer.split() == even_split(30, 2)
    balancer.measure(1, 45.0, 15)
    assert balancer.split() != even_split(30, 2)
