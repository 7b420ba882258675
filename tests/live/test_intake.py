"""The intake of a live stream: bounded, in order, and what each policy keeps."""

import random
from itertools import pairwise

import pytest

from histream_core.live.intake import ALL, EVEN, NEWEST, POLICIES, Intake

ARRIVALS = 10_000


def through(intake, seed, count=4):
    """Put `ARRIVALS` frames, take chunks at random moments; yield each chunk with what waited before it."""
    chance = random.Random(seed)
    frame = 0
    while frame < ARRIVALS:
        if chance.random() < 0.8:
            frame += intake.put(frame, frame / 30)
        else:
            waited = len(intake)
            taken = intake.take(count)
            assert (taken is None) == (waited < count)
            if taken:
                yield [item.frame for item in taken], waited
        assert len(intake) <= intake.capacity
        assert intake.arrived == frame == intake.taken + intake.dropped + len(intake)


@pytest.mark.parametrize("policy", POLICIES)
def test_it_holds_no_more_than_its_capacity_and_keeps_the_order(policy):
    """Seen to fail with a ring that lets one frame more in, and with picks from the newest to the oldest."""
    for capacity in (4, 8, 11):
        frames = [frame for chunk, _ in through(Intake(capacity, policy), capacity) for frame in chunk]
        assert len(frames) > 1000
        assert all(one < two for one, two in pairwise(frames))


def test_all_loses_none():
    frames = [frame for chunk, _ in through(Intake(8, ALL), 1) for frame in chunk]
    assert frames == list(range(len(frames))) and len(frames) > ARRIVALS - 12


def test_a_full_intake_that_loses_none_refuses_the_next_frame():
    intake = Intake(2, ALL)
    assert intake.put("a", 0) and intake.put("b", 1) and not intake.put("c", 2)
    assert [item.frame for item in intake.take(2)] == ["a", "b"]
    assert intake.put("c", 2) and intake.dropped == 0


def test_even_picks_differ_by_one_at_most_in_spacing():
    """From the last frame of the chunk before, where no frame was pushed out. Seen to fail with rounded picks."""
    before, sizes = -1, set()
    for chunk, waited in through(Intake(ARRIVALS, EVEN), 2):
        gaps = [two - one for one, two in pairwise([before, *chunk])]
        assert max(gaps) - min(gaps) <= 1 and sum(gaps) == waited
        before = chunk[-1]
        sizes.add(waited)
    assert len(sizes) > 10


def test_even_ends_with_the_newest_frame_also_where_frames_were_pushed_out():
    intake = Intake(8, EVEN)
    for frame in range(20):
        intake.put(frame, frame)
    assert [item.frame for item in intake.take(4)] == [13, 15, 17, 19]
    assert intake.dropped == 16 and len(intake) == 0


def test_newest_takes_the_last_ones():
    intake = Intake(8, NEWEST)
    for frame in range(7):
        intake.put(frame, frame)
    assert [item.frame for item in intake.take(4)] == [3, 4, 5, 6] and intake.dropped == 3


def test_frames_keep_the_time_of_their_capture():
    assert [item.time for chunk in (filled().take(4),) for item in chunk] == [0, 0.5, 1.0, 1.5]


def filled():
    intake = Intake(4)
    for frame in range(4):
        intake.put(frame, frame / 2)
    return intake


def test_every_second_frame_stays():
    intake = Intake(8, NEWEST)
    intake.keep_every(2)
    for frame in range(8):
        assert intake.put(frame, frame)
    assert [item.frame for item in intake.take(4)] == [1, 3, 5, 7] and intake.dropped == 4


def test_frames_that_are_skipped_are_the_next_ones():
    intake = Intake(8)
    intake.skip(2)
    for frame in range(6):
        intake.put(frame, frame)
    assert [item.frame for item in intake.take(4)] == [2, 3, 4, 5] and intake.dropped == 2


@pytest.mark.parametrize(("wrong", "sentence"), [
    (lambda: Intake(8, ALL).skip(1), 'use "even"'),
    (lambda: Intake(0), "use two chunks, 8 frames or more"),
    (lambda: Intake(8, "oldest"), "use all, even, newest"),
    (lambda: Intake(8, ALL).keep_every(2), 'use 1, or "even"'),
    (lambda: Intake(8).keep_every(0), "use 1"),
    (lambda: Intake(8).take(9), "cannot give 9 at once: use 1 to that many"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        wrong()


@pytest.mark.parametrize("policy", POLICIES)
def test_frames_that_are_reserved_begin_the_next_chunk(policy):
    """However many come after them. Seen to fail with picks from all that wait."""
    intake = Intake(8, policy)
    for frame in range(12):
        assert intake.put(frame, frame) or policy == ALL
        if frame == 2:
            assert intake.reserve(4) is None
        if frame == 3:
            assert [item.frame for item in intake.reserve(2)] == [0, 1]
    assert [item.frame for item in intake.take(4)][:2] == [0, 1]
    assert intake.arrived == intake.taken + intake.dropped + len(intake)
    assert intake.reserved == 0
    intake.clear()
    assert intake.put("next", 12.0) and [item.frame for item in intake.take(1)] == ["next"]


def test_a_whole_intake_cannot_be_reserved():
    with pytest.raises(ValueError, match="an intake of 4 frames cannot reserve 4: use 1 or more, and fewer"):
        Intake(4, EVEN).reserve(4)
