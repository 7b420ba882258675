"""Controls of a performer while a live stream runs: cues, strength, steps, recordings; and the report on them."""

import itertools

import pytest
import tiny
import torch
from tiny_live import FPS, After, Living, recorders

from histream_core.live.session import Cue
from histream_core.stream.timeline import Change
from histream_core.video.reading import frames_of


def steps_of(living):
    """The number of steps of each chunk."""
    return [len(sigmas) for sigmas in living.sigmas.values()]


def test_a_cue_is_a_prompt_that_is_ready():
    cues = (Cue("a cat", tiny.text(3).context), Cue("a dog", tiny.text(5).context, Change("cut")))
    living = Living(9 + 12 * 3, cues=cues)
    report = living.run(After(living, 1, lambda: living.session.cue(1)))
    assert report["prompt"] == "a dog" and report["cues"] == ["a cat", "a dog"]
    assert torch.equal(living.calls[-1].context, cues[1].text)


def test_a_cue_that_there_is_not_is_refused():
    for living, what in (
        (Living(1), "this stream has none"),
        (Living(1, cues=(Cue("", tiny.text(3).context),)), "are 1"),
    ):
        for index in (-1, 1):
            with pytest.raises(ValueError, match=what):
                living.session.cue(index)


def test_fewer_steps_are_taken_from_the_next_chunk_on():
    living = Living(9 + 12 * 4)
    adjust = living.session.adjust
    report = living.run(After(living, 1, lambda: adjust(steps=2)), After(living, 3, lambda: adjust(steps=3)))
    assert steps_of(living) == [3, 2, 2, 3, 3]
    assert (report["steps"], report["most_steps"], report["strength"]) == (3, 3, 0.8)
    assert any("2 steps from chunk 1 on" in line for line in report["log"])


def test_a_strength_is_that_of_the_next_chunk():
    living = Living(9 + 12 * 3)
    report = living.run(After(living, 1, lambda: living.session.adjust(strength=0.4)))
    assert [sigmas[0] for sigmas in living.sigmas.values()] == [0.8, 0.4, 0.4, 0.4]
    assert (report["strength"], report["steps"], report["most_steps"]) == (0.4, 2, 2)


def test_a_strength_that_needs_more_steps_takes_them_and_gives_them_back():
    """At 0.9 the demo's chunks begin one step earlier; most steps that were asked for hold for both."""
    living = Living(1)
    session = living.session
    session.adjust(strength=0.9, steps=4)
    session.adjust(strength=0.4)
    assert session.report()["most_steps"] == 2
    session.adjust(strength=0.9)
    assert session.report()["most_steps"] == 4 and session.report()["fewest_steps"] == 2
    assert session.wanted.ladder(session._asked)[0].steps == 4


@pytest.mark.parametrize(
    ("asked", "what"),
    [({"steps": 9}, "use 2 to 3"), ({"strength": 2.0}, "up to 1"), ({"strength": 0.0}, "more than 0")],
)
def test_what_cannot_be_is_refused_at_once_and_changes_nothing(asked, what):
    living = Living(9)
    with pytest.raises(ValueError, match=what):
        living.session.adjust(**asked)
    assert living.run()["strength"] == 0.8 and steps_of(living) == [3]


def test_recordings_begin_and_end_while_the_stream_runs(tmp_path):
    """Each in a file of its own, from the frame that is made next; the last one ends with the stream."""
    living, seen, lengths = Living(9 + 12 * 5), [], []
    recorders(living, tmp_path)
    session = living.session

    def on(value):
        session.record(value)
        session.record(value)
        now = session.report()
        seen.append(now["recording"])
        assert (now["recorded_seconds"] is None) == (now["recording"] is None)
        lengths.append(session.recorder)

    report = living.run(*(After(living, n, lambda n=n: on(n % 2 == 1)) for n in (1, 2, 3)))
    assert seen == ["one.mkv", None, "two.mkv"]
    assert report["recording"] is None and report["recordings"] == ["one.mkv", "two.mkv"]
    counts = [len([*frames_of(tmp_path / name)]) for name in report["recordings"]]
    assert sum(counts) < report["frames"] and min(counts) >= 12
    assert [recorder.seconds * FPS for recorder in lengths if recorder] == counts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.mkv", "two.mkv"]


def test_nothing_is_left_of_a_recording_without_a_frame(tmp_path):
    living = Living(9)
    recorders(living, tmp_path)
    living.session.record(True)
    living.session.record(False)
    assert not [*tmp_path.iterdir()] and living.session.report()["recordings"] == []


def test_a_stream_without_a_place_for_recordings_or_that_is_over_refuses_one(tmp_path):
    living = Living(9)
    with pytest.raises(ValueError, match="no place for recordings"):
        living.session.record(True)
    recorders(living, tmp_path)
    living.run()
    with pytest.raises(ValueError, match="the stream is over"):
        living.session.record(True)
    assert not [*tmp_path.iterdir()]


def test_viewers_of_the_feed_see_what_the_source_gives():
    living, seen = Living(9 + 5), []
    living.feed.viewers.append(lambda frame, time: seen.append((frame.shape, frame.dtype.name, time)))
    living.run()
    assert [time for *_, time in seen] == [index / FPS for index in range(14)]
    assert {(shape, name) for shape, name, _ in seen} == {((32, 32, 3), "uint8")}


# The budget


@pytest.mark.slow
def test_steps_are_given_up_before_frames_and_taken_back_when_there_is_time():
    """Three steps and the clean passes take as long as the source gives a chunk. Seen to fail with frames alone."""
    living = Living(16 * 20, costs=(0.14, 0.01))

    def relieve():
        if living.clock() > 7:
            living.costs = (0.03, 0.01)

    report = living.run(relieve)
    assert not any("one frame of" in line for line in report["log"])
    steps = steps_of(living)
    assert steps[:2] == [3, 3] and set(steps[3:9]) == {2} and steps[-2:] == [3, 3]
    assert sum(one != two for one, two in itertools.pairwise(steps)) == 2


def test_steps_that_were_asked_for_are_the_most():
    living = Living(9 + 12 * 14, costs=(0.01, 0.01))
    living.session.adjust(steps=2)
    living.run()
    assert set(steps_of(living)) == {2}


def test_one_slow_chunk_changes_nothing():
    """Nor one whose decoding takes so long that the next chunk is not decoded when it is made."""
    living, slow = Living(9 + 12 * 8), []

    def once():
        at = living.session.chunks
        living.costs = (0.01, 0.6) if at == 3 else (0.01, 0.01)
        slow.append(at == 3)

    report = living.run(once)
    assert any(slow) and report["every"] == 1 and set(steps_of(living)) == {3}


def test_a_decoding_that_is_not_measured_yet_is_not_counted_again():
    living = Living(9)
    session, chunk = living.session, living.session.wanted.plan.chunks[1]
    session._decoding = 1.0
    for _ in range(4):
        session._choose(chunk, 0.03, 0.02)
    assert session._budget.choice.every == 1
    session._decoding = 1.0
    session._choose(chunk, 0.03, 0.02)
    assert session._budget.choice.every == 4


def test_a_disk_that_is_slow_counts_as_work():
    """Work that the budget does not see makes the delay grow. Seen to fail with decoding alone."""
    living = Living(16 * 12)

    class Slow:
        name = "slow.mkv"

        def add(self, frames, captured):
            living.spend(0.35)

    living.session.recorder = Slow()
    assert living.run()["every"] == 2
