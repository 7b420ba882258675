"""Work of one worker at one shot: what is finished is never made again, whatever ends it."""

import itertools
import json
import time

import pytest
from tiny_farm import CHUNKS, chunks_made, farm, make_tiny
from tiny_runs import files_in

from histream_core.farm.lease import Lease, lease_of
from histream_core.farm.status import look
from histream_core.farm.work import work


class Death(BaseException):
    """The end of a process, as far as a test can have one."""


def dying(after):
    """A function that makes a shot and dies at that network call, as long as there is one."""
    calls = itertools.count()

    def die():
        if next(calls) == after:
            raise Death

    return make_tiny(die)


@pytest.fixture
def whole(tmp_path):
    """The files of a shot that was made at once."""
    a_farm = farm(tmp_path / "whole", "one")
    outcome = work(a_farm.folder, "one", make_tiny())
    assert (outcome.state, outcome.made, outcome.why) == ("finished", CHUNKS, "")
    return files_in(a_farm.run_of("one"))


def test_a_shot_whose_workers_die_ends_as_if_they_had_not(tmp_path, whole):
    a_farm = farm(tmp_path / "farm", "one", lease=5)
    for call in (11, 14):
        with pytest.raises(Death):
            work(a_farm.folder, "one", dying(call))
    (shot,) = look(a_farm).shots
    assert (shot.state, shot.attempts) == ("stopped", 2)
    assert work(a_farm.folder, "one", make_tiny()).state == "finished"
    made = chunks_made(a_farm, "one")
    assert [chunk for attempt in made for chunk in attempt] == [*range(CHUNKS)]
    assert len(made) == 3
    assert all(made)
    assert files_in(a_farm.run_of("one")) == whole
    assert a_farm.is_finished("one")
    assert work(a_farm.folder, "one", make_tiny(lambda: 1 / 0)).made == 0


@pytest.mark.parametrize("how", ["cancelled", "lost", "late"])
def test_a_shot_stops_at_the_next_call_and_keeps_what_is_finished(tmp_path, whole, how, monkeypatch):
    """A worker that was stopped for longer than its lease is late."""
    a_farm = farm(tmp_path / "farm", "one", lease=60)
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 12 and how == "cancelled":
            a_farm.cancel()
        elif len(calls) == 12 and how == "late":
            now = time.time()
            monkeypatch.setattr(time, "time", lambda: now + 61)
        elif len(calls) == 12:
            (a_farm.leases / "one" / "000002.json").write_bytes(b"")

    outcome = work(a_farm.folder, "one", make_tiny(stop))
    assert (outcome.state, len(calls)) == ("stopped" if how == "cancelled" else "lost", 12)
    assert 0 < outcome.made < CHUNKS
    if how == "cancelled":
        assert not lease_of(a_farm.leases, "one", 60).is_live
        assert work(a_farm.folder, "one", make_tiny()).state == "stopped"
        (a_farm.folder / "cancel").unlink()
    if how != "lost":
        assert work(a_farm.folder, "one", make_tiny()).made == CHUNKS - outcome.made
        assert files_in(a_farm.run_of("one")) == whole


def test_a_shot_that_another_worker_holds_is_not_begun(tmp_path):
    a_farm = farm(tmp_path / "farm", "one")
    with Lease(a_farm.leases, "one", 60):
        outcome = work(a_farm.folder, "one", make_tiny(lambda: 1 / 0))
        assert look(a_farm).shots[0].state == "running"
    assert (outcome.state, a_farm.is_begun("one")) == ("held", False)


@pytest.mark.parametrize("error", [ValueError("too large"), OSError("no room"), RuntimeError("odd")])
def test_a_shot_that_goes_wrong_says_why_and_the_next_one_is_made(tmp_path, error):
    a_farm = farm(tmp_path / "farm", "one", "two")

    def fail():
        raise error

    outcome = work(a_farm.folder, "one", make_tiny(fail))
    assert outcome.state == "failed"
    assert str(error) in outcome.why
    work(a_farm.folder, "two", make_tiny())
    state = look(a_farm)
    assert [shot.state for shot in state.shots] == ["failed", "finished"]
    assert outcome.why in state.table()
    assert state.summary() == "2 shots: 1 finished, 1 failed"


def test_a_video_that_was_changed_is_not_finished(tmp_path):
    a_farm = farm(tmp_path / "farm", "one")
    work(a_farm.folder, "one", make_tiny())
    video = a_farm.run_of("one") / "video.mp4"
    before = video.read_bytes()
    video.write_bytes(before[:-1] + b"x")
    assert not a_farm.is_finished("one")
    assert work(a_farm.folder, "one", make_tiny()).state == "finished"
    assert video.read_bytes() == before


def test_the_time_left_follows_from_the_seconds_of_a_pixel(tmp_path):
    """There are three equal shots: one is finished and one has begun; a chunk took 2 seconds."""
    a_farm = farm(tmp_path / "farm", "one", "two", "three", lease=60)
    work(a_farm.folder, "one", make_tiny())
    log = tmp_path / "farm" / "logs" / "one.jsonl"
    log.write_text("".join(f"{json.dumps(event | {'seconds': 2.0})}\n" for event in a_farm.events("one")))
    lease = Lease(a_farm.leases, "two", 60)
    assert look(a_farm).left == pytest.approx(2 * 2 * CHUNKS)
    lease.about = {"chunk": 0, "chunks": CHUNKS, "left": 500}
    lease.renew()
    assert look(a_farm).left == 500
    assert "about 8 min 20 s left" in look(a_farm).summary()
