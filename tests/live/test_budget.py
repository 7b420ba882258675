"""The budget of a live stream: measured costs, the ladder of choices, and when it moves."""

from dataclasses import replace

import pytest

from histream_core.live import budget
from histream_core.live.budget import BATCHED, CHUNKS, Budget, Choice, Cost, Measured, Spent, Target

COST = Cost(encode=0.05, fixed=0.027, row=0.03, decode=0.09)
"""About a 1.3B model at 480p on one H100."""


def times(cost, factor):
    return Cost(cost.encode * factor, cost.fixed * factor, cost.row * factor, cost.decode * factor)


def spent(cost, *rows):
    return Spent(cost.encode, tuple((n, cost.fixed + n * cost.row) for n in rows), cost.decode)


def choices(budget, costs):
    return [budget.choose(cost) for cost in costs]


# Measured costs


def test_a_measurement_weighs_a_fifth():
    measured = Measured(COST)
    measured.add(spent(times(COST, 1.1), 1))
    assert measured.cost.encode == pytest.approx(COST.encode * 1.02)
    assert measured.cost.decode == pytest.approx(COST.decode * 1.02)
    assert measured.cost.fixed + measured.cost.row == pytest.approx((COST.fixed + COST.row) * 1.02)


def test_another_load_replaces_the_average():
    """Seen to fail with the average alone, which needs a dozen chunks."""
    measured = Measured(COST)
    measured.add(spent(times(COST, 1.6), 1, 1))
    assert measured.cost.chunk_seconds(Choice(CHUNKS, 2)) == pytest.approx(1.6 * COST.chunk_seconds(Choice(CHUNKS, 2)))


def test_calls_of_different_rows_tell_the_fixed_part_from_the_rows():
    measured = Measured(Cost(0.05, 0.001, 0.05, 0.09))
    for _ in range(40):
        measured.add(spent(COST, 1, 2, 4))
    assert measured.cost.fixed == pytest.approx(COST.fixed, rel=0.02)
    assert measured.cost.row == pytest.approx(COST.row, rel=0.02)


def test_calls_that_took_no_time_are_measured_too():
    measured = Measured(COST)
    for seconds in (0.0, 0.0, 0.057):
        measured.add(Spent(COST.encode, ((1, seconds),), COST.decode))
    assert measured.cost.fixed + measured.cost.row == pytest.approx(0.057)


def test_a_chunk_that_finishes_none_says_nothing_of_decoding():
    measured = Measured(COST)
    measured.add(Spent(COST.encode, ((1, 0.057),), None))
    assert measured.cost.decode == COST.decode


def test_seconds_of_a_chunk_in_each_order():
    assert COST.chunk_seconds(Choice(CHUNKS, 3)) == pytest.approx(0.05 + 3 * 0.057 + 0.09)
    assert COST.chunk_seconds(Choice(BATCHED, 3)) == pytest.approx(0.05 + 0.027 + 3 * 0.03 + 0.09)
    assert COST.chunk_seconds(Choice(CHUNKS, 2, chunk_frames=3)) == pytest.approx(2 * 0.027 + 3 * (0.14 + 0.06))


# The ladder


def test_frames_are_worth_more_than_steps_and_batches_come_after_single_chunks():
    found = Target(16, steps=2, most_every=2, most_chunk_frames=2).ladder()
    ways = [(CHUNKS, 2), (BATCHED, 2), (CHUNKS, 1)]
    assert found == tuple(Choice(order, n, every, m) for m in (1, 2) for every in (1, 2) for order, n in ways)


def test_the_best_choice_that_fits_comes_first():
    assert Budget(Target(10), COST).choice == Choice(CHUNKS, 2)
    assert Budget(Target(15.5), COST).choice == Choice(BATCHED, 2)
    assert Budget(Target(17), COST).choice == Choice(CHUNKS, 1)
    assert Budget(Target(30, steps=4), COST).choice == Choice(BATCHED, 2, every=2)


def test_rows_are_batched_only_where_that_saves_enough_and_comes_in_time():
    """Seen to fail without either."""
    heavy = Cost(0.05, 0.007, 0.05, 0.09)
    assert heavy.fixed_share < budget.WORTH_BATCHING < COST.fixed_share
    assert Budget(Target(14.4), heavy).choice == Choice(CHUNKS, 1)
    assert Budget(Target(15.5, latency=0.4), COST).choice == Choice(CHUNKS, 1)


def test_no_frame_is_dropped_where_none_may_be():
    assert Budget(Target(60, most_every=1), COST).choice == Choice(CHUNKS, 1)


def test_chunks_become_longer_last_of_all_and_only_where_weights_allow_it():
    slow = Cost(0.05, 0.5, 0.03, 0.09)
    assert Budget(Target(16, 3.0, steps=1, most_every=1), slow).choice.chunk_frames == 1
    assert Budget(Target(16, 3.0, steps=1, most_every=1, most_chunk_frames=9), slow).choice.chunk_frames == 9


# When it moves


def test_less_is_computed_after_two_chunks_over_and_at_once_what_fits():
    """Seen to fail with one chunk, and with one rung at a time."""
    stream = Budget(Target(10), COST)
    assert choices(stream, [times(COST, 2)]) == [Choice(CHUNKS, 2)]
    assert choices(stream, [times(COST, 2)]) == [Choice(CHUNKS, 2, every=2)]


def test_one_slow_chunk_changes_nothing():
    stream = Budget(Target(10), COST)
    assert set(choices(stream, [times(COST, 3), COST] * 10)) == {Choice(CHUNKS, 2)}


def test_more_is_computed_after_eight_chunks_with_room():
    stream = Budget(Target(10), times(COST, 2))
    assert stream.choice == Choice(CHUNKS, 2, every=2)
    found = choices(stream, [COST] * 8)
    assert found == [Choice(CHUNKS, 2, every=2)] * 7 + [Choice(CHUNKS, 2)]


def test_more_is_not_computed_where_it_would_not_fit():
    """Half of the frames take little, all of them too much. Seen to fail with one rung up whenever there is room."""
    stream = Budget(Target(24, steps=1), COST)
    assert stream.choice == Choice(CHUNKS, 1, every=2) and stream.utilisation(COST) < budget.UP
    assert set(choices(stream, [COST] * 100)) == {stream.choice}


def test_no_more_frames_are_shown_than_can_be_computed():
    held = Budget(Target(30), COST, [Choice(CHUNKS, 4)])
    assert held.frame_rate(COST) == pytest.approx(4 / COST.chunk_seconds(Choice(CHUNKS, 4)))
    assert Budget(Target(10), COST).frame_rate(COST) == 10
    assert Budget(Target(30), COST).frame_rate(COST) == 15


@pytest.mark.parametrize("wrong", [{"fps": 0}, {"fps": 16, "latency": 0}, {"fps": 16, "steps": 0}])
def test_what_is_no_target_is_refused_in_a_sentence(wrong):
    with pytest.raises(ValueError, match="are no target: use more than 0 of each"):
        Target(**wrong)


def test_a_delay_that_nothing_can_keep_costs_no_frames():
    """Fewer frames would come no earlier. Seen to fail where the cheapest choice is taken then."""
    target = Target(fps=16, latency=0.1, steps=1, chunk_frames=3)
    assert Budget(target, Cost(0.05, 0.0, 0.05, 0.1)).choice.every == 1


def test_decoding_apart_costs_the_longer_of_both():
    choice, cost = Choice(CHUNKS, 2, chunk_frames=3), Cost(0.01, 0.0, 0.02, 0.1, apart=True)
    assert cost.chunk_seconds(choice) == pytest.approx(0.3)
    assert replace(cost, apart=False).chunk_seconds(choice) == pytest.approx(0.45)


def test_short_chunks_wait_for_seconds_too():
    """A chunk of four frames at 30 a second lasts 0.13 s. Seen to fail where eight of them are enough."""
    stream = Budget(Target(30), times(COST, 2))
    assert stream.choice.every == 4
    light = times(COST, 0.1)
    changed = next(index for index in range(100) if stream.choose(light).every == 1)
    assert changed + 1 == 8 and budget.UP_SECONDS <= 8 * 16 / 30
    short = Budget(Target(30, most_every=1), times(COST, 2))
    assert short.choice.steps == 1
    changed = next(index for index in range(100) if short.choose(light).steps == 2)
    assert changed + 1 == 30  # 4 s


def test_a_choice_that_was_too_much_at_once_is_tried_ever_more_seldom():
    """Two steps fit by what one step costs, and do not. Seen to fail, every dozen chunks, without more patience."""
    stream = Budget(Target(8, most_every=1), times(COST, 2))
    assert stream.choice.steps == 1
    moves = []
    for index in range(400):
        before = stream.choice.steps
        stream.choose(times(COST, 0.9 if before == 1 else 2.5))
        if stream.choice.steps > before:
            moves.append(index)
    assert 3 <= len(moves) <= 10
    assert moves[-1] - moves[-2] >= budget.MOST_UP_CHUNKS


def test_other_choices_are_taken_at_once():
    stream = Budget(Target(10), COST)
    stream.offer([Choice(CHUNKS, 1), Choice(CHUNKS, 1, every=2)], COST)
    assert stream.choice == Choice(CHUNKS, 1)
    stream.offer([Choice(CHUNKS, 4), Choice(CHUNKS, 3), Choice(CHUNKS, 1)], COST)
    assert stream.choice == Choice(CHUNKS, 3)


def test_clean_passes_stay_where_steps_are_fewer():
    measured = Measured(Cost(0.05, 0.0, 0.03, 0.09))
    measured.add(Spent(0.05, ((3, 0.09), (3, 0.09)), 0.09, passes=0.06))
    two, one = (measured.cost.chunk_seconds(Choice(CHUNKS, steps, chunk_frames=3)) for steps in (2, 1))
    assert two == pytest.approx(3 * (0.05 + 0.06 + 0.06 + 0.09)) and two - one == pytest.approx(0.09)


def test_the_delay_counts_what_is_left_to_do_once_a_chunk_is_there():
    """Its last latent frame is encoded, its steps are made, its first one is decoded; clean passes come afterwards."""
    choice, cost = Choice(CHUNKS, 2, chunk_frames=3), Cost(0.01, 0.005, 0.02, 0.1, passes=0.5)
    assert cost.delay_seconds(choice) == pytest.approx(0.01 + 2 * (0.005 + 3 * 0.02) + 0.1)
