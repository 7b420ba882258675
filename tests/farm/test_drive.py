"""The driver: the order in which shots are handed out, and which of them again."""

import time

import pytest
from tiny_farm import farm, farm_of_scenes

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

    def kill(self, name):
        raise AssertionError(f"{name} is not hung")


class Hanging(Script):
    """Workers of which those that begin a shot in `hang` for the first time take its lease, and never end."""

    def __init__(self, a_farm, size, hang, ends=None):
        super().__init__(size, ends or {})
        self._farm, self._hang, self.hung, self.killed = a_farm, [*hang], {}, []

    def start(self, name):
        super().start(name)
        if name in self._hang:
            self._hang.remove(name)
            self._running.remove(name)
            self.hung[name] = Lease(self._farm.leases, name, self._farm.lease_seconds)

    def ended(self, seconds):
        if killed := [name for name in self.killed if name in self.hung]:
            del self.hung[killed[0]]
            return [(killed[0], Outcome("died", "a signal"))]
        return super().ended(seconds)

    def kill(self, name):
        self.killed.append(name)


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


@pytest.fixture
def clock(monkeypatch):
    """The clocks of this computer, which a second passes on between two looks at the workers."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def pass_on(workers, clock, monkeypatch):
    """Let a second pass at each look."""
    look = workers.ended

    def ended(seconds):
        clock[0] += 1
        return look(seconds)

    monkeypatch.setattr(workers, "ended", ended)
    return workers


def test_a_worker_that_gives_no_sign_is_killed_and_another_goes_on(tmp_path, clock, monkeypatch):
    a_farm = farm(tmp_path, *"abc", lease=10)
    workers = Hanging(a_farm, 2, "a")
    ends, told = run(a_farm, pass_on(workers, clock, monkeypatch))
    assert workers.started == [*"abca"]
    assert workers.killed == ["a"]
    assert {outcome.state for outcome in ends.values()} == {"finished"}
    assert ("a", Outcome("died", "its worker gave no sign for 10 s, and was killed")) in told
    assert [event["why"] for event in a_farm.events("a")] == ["its worker gave no sign for 10 s, and was killed"]


def test_hung_workers_in_all_places_keep_nobody_waiting(tmp_path, clock, monkeypatch):
    a_farm = farm(tmp_path, *"abc", lease=10)
    workers = Hanging(a_farm, 2, "ab")
    ends, _ = run(a_farm, pass_on(workers, clock, monkeypatch))
    assert sorted(workers.killed) == [*"ab"]
    assert sorted(workers.started) == [*"aabbc"]
    assert {outcome.state for outcome in ends.values()} == {"finished"}


def test_a_worker_that_wakes_up_before_it_is_killed_is_taken_at_its_word(tmp_path, clock, monkeypatch):
    a_farm = farm(tmp_path, "a", lease=10)
    workers = Hanging(a_farm, 1, "a")

    def wake(name):
        del workers.hung[name]
        workers._running.append(name)

    monkeypatch.setattr(workers, "kill", wake)
    workers._ends = {"a": [Outcome("lost"), FINISHED]}
    ends, told = run(a_farm, pass_on(workers, clock, monkeypatch))
    assert [outcome.state for _, outcome in told] == ["lost", "finished"]
    assert a_farm.events("a") == []
    assert ends["a"] == FINISHED


def test_a_worker_that_renews_its_lease_or_has_just_let_go_is_left_alone(tmp_path, clock, monkeypatch):
    """Seen to fail where a lease that was let go counts as one that is over."""
    a_farm = farm(tmp_path, "a", lease=10)
    workers = Hanging(a_farm, 1, "a")
    kill = []
    monkeypatch.setattr(workers, "kill", lambda name: kill.append((name, clock[0])) or workers.killed.append(name))
    look = pass_on(workers, clock, monkeypatch).ended

    def ended(seconds):
        lease = workers.hung.get("a")
        if lease and clock[0] < 1030:
            lease.renew()
        elif lease and clock[0] == 1030:
            with lease:
                pass
        return look(seconds)

    monkeypatch.setattr(workers, "ended", ended)
    ends, _ = run(a_farm, workers)
    assert kill == [("a", 1041)]
    assert ends["a"] == FINISHED


@pytest.mark.parametrize("end", [Outcome("lost"), DIED], ids=lambda end: end.state)
def test_a_part_of_a_shot_that_has_failed_is_not_made_again(tmp_path, end):
    """Seen to fail, where it was made to its end for nothing."""
    failed = Outcome("failed", "no")
    workers = Script(2, {"one/1": [failed], "one/2": [end, Outcome("made")]})
    ends, told = run(farm_of_scenes(tmp_path, "one"), workers)
    assert workers.started == ["one/1", "one/2"]
    assert ends == {"one": failed}
    assert told == [("one", failed)]


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
