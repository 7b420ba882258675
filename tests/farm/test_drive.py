"""The driver: the order in which shots are handed out, and which of them again."""

import time

import pytest
from tiny_farm import farm

from histream_core.farm import drive
from histream_core.farm.drive import MOST_DEATHS, Drive
from histream_core.farm.lease import Lease
from histream_core.farm.work import Outcome

FINISHED, DIED = Outcome("finished"), Outcome("died", "killed")


class Script:
    """Workers that end as they are told to, the one that began first first."""

    def __init__(self, size, ends):
        self.size, self.started, self.most = size, [], 0
        self._ends, self._running = ends, []

    def start(self, name):
        self.started.append(name)
        self._running.append(name)
        self.most = max(self.most, len(self._running))

    def ended(self, seconds):
        if not self._running:
            return []
        name = self._running.pop(0)
        end = self._ends.get(name, [FINISHED])
        outcome = end.pop(0) if len(end) > 1 else end[0]
        return [(name, outcome() if callable(outcome) else outcome)]


def run(a_farm, workers):
    told = []
    ends = Drive(a_farm, workers, lambda *what: told.append(what), poll=0).run([shot.name for shot in a_farm.shots])
    return ends, told


def test_shots_begin_in_their_order_as_many_at_a_time_as_there_are_workers(tmp_path):
    workers = Script(2, {})
    ends, told = run(farm(tmp_path, *"abcde"), workers)
    assert workers.started == [*"abcde"]
    assert workers.most == 2
    assert told == [(name, FINISHED) for name in "abcde"] == [*ends.items()]


def test_a_shot_whose_worker_died_goes_before_those_that_have_not_begun(tmp_path):
    """Seen to fail where it goes to the end, as with retries of Ray."""
    workers = Script(2, {"a": [DIED, FINISHED]})
    a_farm = farm(tmp_path, *"abcd")
    ends, told = run(a_farm, workers)
    assert workers.started == [*"abacd"]
    assert {outcome.state for outcome in ends.values()} == {"finished"}
    assert told[0] == ("a", DIED)
    assert [event["event"] for event in a_farm.events("a")] == ["died"]


def test_a_shot_in_which_workers_die_without_a_new_chunk_is_given_up(tmp_path):
    workers = Script(1, {"a": [DIED]})
    ends, _ = run(farm(tmp_path, *"ab"), workers)
    assert workers.started == ["a"] * MOST_DEATHS + ["b"]
    assert ends["a"].state == "failed"
    assert f"{MOST_DEATHS} workers died in it" in ends["a"].why
    assert ends["b"] == FINISHED


def test_a_shot_that_gets_on_may_lose_any_number_of_workers(tmp_path):
    a_farm = farm(tmp_path, "a")

    def die_after_a_chunk():
        a_farm.note("a", "chunk", term=1, chunk=0)
        return DIED

    workers = Script(1, {"a": [*[die_after_a_chunk] * (2 * MOST_DEATHS), FINISHED]})
    assert run(a_farm, workers)[0] == {"a": FINISHED}


def test_a_shot_that_a_worker_still_holds_is_left_for_later(tmp_path, monkeypatch):
    a_farm = farm(tmp_path, *"abc", lease=10)
    held = Lease(a_farm.leases, "a", 10)
    now = time.time()
    workers = Script(1, {"c": [lambda: monkeypatch.setattr(time, "time", lambda: now + 11) or FINISHED]})
    ends, _ = run(a_farm, workers)
    assert workers.started == [*"bca"]
    assert held.is_lost
    assert ends["a"] == FINISHED


def test_nothing_begins_after_a_cancel(tmp_path):
    a_farm = farm(tmp_path, *"abcd")
    workers = Script(2, {"a": [lambda: a_farm.cancel() or Outcome("stopped")]})
    ends, _ = run(a_farm, workers)
    assert workers.started == [*"ab"]
    assert [ends[name].state for name in "abcd"] == ["stopped", "finished", "stopped", "stopped"]


def test_ctrl_c_lets_the_running_shots_stop(tmp_path, monkeypatch):
    a_farm = farm(tmp_path, *"ab")

    def interrupt():
        raise KeyboardInterrupt

    workers = Script(2, {"a": [interrupt]})
    monkeypatch.setattr(drive, "LAST_WAIT", 1.0)
    with pytest.raises(KeyboardInterrupt):
        run(a_farm, workers)
    assert a_farm.is_cancelled()
    assert workers.ended(0) == []
