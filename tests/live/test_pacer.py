"""The pacer of a live stream, on a fake clock: even times, and a stall that costs one late frame."""

import random
from itertools import accumulate, pairwise

import pytest

from histream_core.live.pacer import Pacer, Percentiles, shown_rate

FPS = 16
FRAME = 1 / FPS
CHUNK = 4
DELAY = 0.5
"""Seconds from the capture of a chunk's last frame until the chunk is ready."""


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def play(late, latency=1.0, asked=None):
    """Show chunks that are ready `late` seconds after their time; return the report and the times of the frames.

    `asked` gets the surplus after each chunk, and so many frames of the source are left out.
    """
    clock, shown, skipped = Clock(), [], 0
    pacer = Pacer(FPS, latency, clock)
    for chunk, more in enumerate(late):
        captured = [(CHUNK * chunk + frame + skipped) * FRAME for frame in range(CHUNK)]
        ready = captured[-1] + DELAY + more
        free, clock.now = clock.now, ready
        pacer.chunk_ready(captured)
        clock.now = max(free, ready)
        for time in captured:
            clock.now = max(clock.now, pacer.due())
            pacer.shown(time)
            shown.append(clock.now)
        if asked is not None:
            asked.append(pacer.surplus())
            skipped += asked[-1]
    return pacer.report(), shown


def gaps(shown):
    return [two - one for one, two in pairwise(shown)]


def test_frames_are_shown_at_even_times():
    report, shown = play([0.0] * 100)
    first, *others = gaps(shown)
    assert first == pytest.approx(2 * FRAME)
    assert others == pytest.approx([FRAME] * len(others))
    assert (report.frames, report.misses, report.late) == (400, 0, 0)
    assert report.fps == pytest.approx(FPS, rel=0.01)
    assert report.ttff == pytest.approx(3 * FRAME + DELAY)
    assert report.delay == pytest.approx(report.p50, rel=0.02)


@pytest.mark.parametrize("after", [0.2, 0.0], ids=["all later", "one later"])
def test_a_stall_costs_one_late_frame_and_nothing_is_hurried(after):
    """Seen to fail with a clock that stays, which shows frames at once until it has caught up."""
    report, shown = play([0.0] * 40 + [0.2] + [after] * 40)
    assert report.late == 1 and report.misses == 0
    assert min(gaps(shown)) >= FRAME - 1e-9
    assert sum(gap > 1.5 * FRAME for gap in gaps(shown)[1:]) == 1
    assert max(gaps(shown)) == pytest.approx(0.2, abs=1e-9)
    assert report.jitter <= FRAME


def test_a_chunk_that_is_late_by_less_than_the_buffer_is_not_seen():
    """Seen to fail with a buffer of no frame."""
    report, shown = play([0.0] * 10 + [0.9 * FRAME] + [0.0] * 10)
    assert report.late == 0 and gaps(shown)[1:] == pytest.approx([FRAME] * 82)


def test_jitter_of_the_chunks_stays_within_a_frame():
    chance = random.Random(5)
    report, _ = play([chance.uniform(0, FRAME) for _ in range(2000)])
    assert report.jitter <= FRAME and report.late == 0


def test_a_late_chunk_delays_the_stream_by_no_more_than_it_was_late():
    """Seen to fail where the jitter of the chunks is added to it."""
    usual = [0.0, 0.0, 0.0, 1.9 * FRAME] * 10
    report, shown = play([*usual, 5 * FRAME, *usual])
    late = CHUNK * len(usual)
    assert report.late == 1
    assert shown[late + 1] - shown[late] == pytest.approx(FRAME)
    assert shown[late] - late * FRAME == pytest.approx((CHUNK - 1) * FRAME + DELAY + 5 * FRAME)


def test_a_delay_that_is_not_needed_any_more_goes_a_frame_at_a_chunk():
    """A stall of 3.2 frames: once eight chunks have waited, two are skipped. Seen to fail with a first chunk."""
    asked = []
    report, shown = play([0.0] * 40 + [0.2] + [0.0] * 40, asked=asked)
    assert sum(asked[:48]) == 0 and asked[48:50] == [1, 1] and sum(asked) == 2
    assert report.late == 1 and min(gaps(shown)) >= FRAME - 1e-9


def test_the_delay_that_chunks_need_at_times_stays():
    """One chunk of twelve is late by three frames. Seen to fail with one frame's buffer."""
    asked = []
    report, _ = play([*[0.0] * 11, 3 * FRAME] * 20, asked=asked)
    assert sum(asked[24:]) == 0 and report.late <= 2


def test_a_chunk_after_the_promised_delay_is_a_miss():
    report, _ = play([0.0, 0.0, 0.7, 0.0], latency=1.0)
    assert report.misses == 1


def test_another_rate_holds_from_the_next_frame_on():
    clock = Clock()
    pacer = Pacer(10, 1.0, clock)
    times = []
    for frame in range(6):
        if frame == 3:
            pacer.set_rate(5)
        clock.now = max(clock.now, pacer.due())
        pacer.shown(0.0)
        times.append(clock.now)
    assert gaps(times) == pytest.approx([0.2, 0.1, 0.1, 0.2, 0.2])


def test_delays_are_those_of_the_frames():
    report, _ = play([0.0] * 100)
    assert report.p50 == pytest.approx(3 * FRAME + DELAY + FRAME, rel=0.01)
    assert report.p50 <= report.p95 <= report.p99


def test_a_stream_that_showed_nothing_has_a_report():
    assert Pacer(16, 1.0, Clock()).report().frames == 0


def test_nothing_can_be_shown_at_no_rate():
    with pytest.raises(ValueError, match="use 16, or more than 0"):
        Pacer(0, 1.0, Clock())


def test_percentiles_are_within_a_hundredth_in_bounded_memory():
    chance = random.Random(7)
    values = [chance.expovariate(1) for _ in range(20_000)]
    found = Percentiles()
    for value in values:
        found.add(value)
    for share in (0.5, 0.95, 0.99):
        assert found.at(share) == pytest.approx(sorted(values)[int(share * len(values)) - 1], rel=0.01)
    assert len(found._counts) < 1500


@pytest.mark.parametrize(
    ("gaps", "rate"),
    [
        ([], 16),
        ([1 / 16] * 12, 16),
        ([0.9 / 16, 1.1 / 16] * 6, 16),  # a trembling clock
        ([1 / 8] * 12, 8),
        ([1 / 8, 1 / 4] * 6, 12 / 2.25),
        ([1 / 16] * 11 + [20.0], 12 / (14 / 16)),  # an absence counts as three gaps
        ([1 / 64] * 12, 16),
        ([0.0] * 12, 16),
    ],
)
def test_frames_are_shown_at_the_rate_that_the_source_gives(gaps, rate):
    assert shown_rate(16, list(accumulate(gaps, initial=5.0))) == pytest.approx(rate)
