"""Scenes of one shot, handed out to several workers: the same files as one process makes, and no chunk made twice."""

import itertools
import json
import shutil
from collections import deque
from dataclasses import replace

import pytest
from tiny_farm import PARTS, chunks_made, farm, farm_of_scenes, make_tiny
from tiny_runs import files_in

from histream_core.farm import store
from histream_core.farm.collect import collect
from histream_core.farm.drive import Drive, InProcess
from histream_core.farm.lease import Lease, lease_of
from histream_core.farm.status import look
from histream_core.farm.store import read_farm, write_farm
from histream_core.farm.work import GONE, Outcome, work

ALL = ("one", "one/1", "one/2", "one/3")


class Death(BaseException):
    """The end of a process, as far as a test can have one."""


class Places(InProcess):
    """Several workers that this process stands in for, one after the other; `deaths` are calls at which one dies."""

    def __init__(self, a_farm, size, deaths=(), on_call=lambda: None):
        self.size, self.started, calls = size, [], itertools.count()

        def call():
            on_call()
            if next(calls) in deaths:
                raise Death

        super().__init__(a_farm.folder, make_tiny(call))

    def start(self, name):
        self.started.append(name)
        try:
            super().start(name)
        except Death:
            self._ended.append((name, Outcome(GONE, "killed")))


def run(a_farm, workers, *names):
    told = []
    tell = lambda *what: told.append(what)  # noqa: E731
    ends = Drive(a_farm, workers, tell, poll=0).run(names or [shot.name for shot in a_farm.shots])
    return {name: outcome.state for name, outcome in ends.items()}, told


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a shot of three scenes that one worker made."""
    a_farm = farm_of_scenes(tmp_path_factory.mktemp("whole"), "one")
    assert run(a_farm, Places(a_farm, 1))[0] == {"one": "finished"}
    assert [len(a_farm.events(task)) for task in ALL] == [9, 0, 0, 0]
    return files_in(a_farm.run_of("one"))


def check_made_once(a_farm, name="one"):
    """Each chunk was denoised once, by whichever worker."""
    tasks = (name, *a_farm.parts_of(name))
    made = [chunk for task in tasks for attempt in chunks_made(a_farm, task) for chunk in attempt]
    assert sorted(made) == [*range(PARTS.chunks[-1].stop)]


def test_scenes_are_made_apart_and_become_the_video_of_one_worker(tmp_path, whole):
    a_farm = farm_of_scenes(tmp_path, "one")
    workers = Places(a_farm, 2)
    ends, told = run(a_farm, workers)
    assert ends == {"one": "finished"}
    assert workers.started == ["one/1", "one/2", "one/3", "one"]
    assert [(name, outcome.state, outcome.made) for name, outcome in told] == [
        ("one/1", "made", 2),
        ("one/2", "made", 2),
        ("one/3", "made", 3),
        ("one", "finished", 0),
    ]
    assert files_in(a_farm.run_of("one")) == whole
    check_made_once(a_farm)
    assert a_farm.is_finished("one")
    assert [path.name for path in (tmp_path / "parts").iterdir()] == []
    (shot,) = look(a_farm).shots
    assert (shot.state, shot.chunks, shot.made, shot.attempts, shot.parts) == ("finished", 7, 7, 4, 1)


@pytest.mark.parametrize("deaths", [(3, 9, 30), (0, 12), (7, 22, 26)])
def test_workers_die_in_parts_and_no_chunk_is_made_twice(tmp_path, whole, deaths):
    """Seen to fail where a part begins anew."""
    a_farm = farm_of_scenes(tmp_path, "one")
    workers = Places(a_farm, 3, deaths)
    ends, told = run(a_farm, workers)
    assert ends == {"one": "finished"}
    assert sum(outcome.state == GONE for _, outcome in told) == len(deaths)
    assert files_in(a_farm.run_of("one")) == whole
    check_made_once(a_farm)


def test_shots_are_split_where_there_are_more_workers_than_shots_left(tmp_path):
    a_farm = farm_of_scenes(tmp_path, *"abc")
    workers = Places(a_farm, 2)
    assert set(run(a_farm, workers)[0].values()) == {"finished"}
    assert workers.started == ["a", "b", "c/1", "c/2", "c/3", "c"]
    ones = farm(tmp_path / "ones", "one")
    workers = Places(ones, 2)
    assert run(ones, workers)[0] == {"one": "finished"}
    assert workers.started == ["one"]


def test_a_driver_that_comes_after_goes_on_with_the_parts_that_are_left(tmp_path, whole):
    """Also with one worker, which would have begun the shot whole; and one that has begun so stays whole."""
    a_farm = farm_of_scenes(tmp_path / "parts", "one")
    calls = itertools.count()

    def stop():
        if next(calls) == 20:
            a_farm.cancel()

    assert run(a_farm, Places(a_farm, 2, on_call=stop))[0] == {"one": "stopped"}
    (shot,) = look(a_farm).shots
    assert (shot.state, shot.parts) == ("stopped", 3)
    assert 2 < shot.chunks < 7
    assert "in 3 parts" in look(a_farm).table()
    assert collect(a_farm, tmp_path / "videos").missing == {
        "one": "not finished, or its video was changed since: submit the list again"
    }
    (a_farm.folder / "cancel").unlink()
    workers = Places(a_farm, 1)
    assert run(a_farm, workers)[0] == {"one": "finished"}
    assert "one/1" not in workers.started
    assert files_in(a_farm.run_of("one")) == whole
    check_made_once(a_farm)

    other = farm_of_scenes(tmp_path / "other", "one")
    with pytest.raises(Death):
        work(other.folder, "one", make_tiny(dying(12)))
    workers = Places(other, 3)
    assert run(other, workers)[0] == {"one": "finished"}
    assert workers.started == ["one"]


def dying(after):
    """A function that dies at that call."""
    calls = itertools.count()

    def die():
        if next(calls) == after:
            raise Death

    return die


@pytest.mark.parametrize("moment", ["before the parts are removed", "while they are"])
def test_a_worker_dies_while_parts_are_put_together(tmp_path, whole, moment, monkeypatch):
    a_farm = farm_of_scenes(tmp_path, "one")
    removed = []

    def die(folder, **options):
        removed.append(folder)
        if len(removed) == (1 if moment.startswith("before") else 3):
            raise Death
        return clean(folder, **options)

    clean = store.clean
    monkeypatch.setattr(store, "clean", die)
    ends, told = run(a_farm, Places(a_farm, 2))
    assert ends == {"one": "finished"}
    assert ("one", Outcome(GONE, "killed")) in told
    assert files_in(a_farm.run_of("one")) == whole
    check_made_once(a_farm)
    assert not (tmp_path / "parts" / "one").exists()


def test_parts_outlive_a_worker_that_was_late_and_began_the_shot_whole(tmp_path, whole):
    """Seen to fail where parts are removed because the shot has some run."""
    a_farm = farm_of_scenes(tmp_path, "one")
    a_farm.split("one")
    for task in ALL[1:]:
        assert work(tmp_path, task, make_tiny()).state == "made"
    with pytest.raises(Death):
        make_tiny(dying(3))(a_farm.shot("one"), a_farm.run_of("one"))
    assert a_farm.has_run("one")
    assert a_farm.is_split("one")
    outcome = work(tmp_path, "one", make_tiny(dying(0)))
    assert (outcome.state, outcome.made) == ("finished", 0)
    assert files_in(a_farm.run_of("one")) == whole
    assert not (tmp_path / "parts" / "one").exists()


def test_a_shot_that_was_split_and_has_one_scene_now_is_made_whole(tmp_path):
    """Its list changed before a part had begun."""
    a_farm = farm_of_scenes(tmp_path, "one")
    a_farm.split("one")
    write_farm(replace(a_farm, parts={}))
    assert work(tmp_path, "one", make_tiny()).state == "finished"


def test_shots_that_wait_have_the_free_workers_before_parts(tmp_path):
    """A shot is split where workers are free that no shot waits for; busy ones do not count."""
    a_farm = farm_of_scenes(tmp_path, *"abcd")
    driver = Drive(a_farm, Places(a_farm, 4), lambda *_: None)
    driver._running = {"a": 0}
    for name, waiting, parts in ("b", "cd", 0), ("c", "d", 3), ("d", "", 3):
        driver._waiting = deque(waiting)
        assert len(driver._parts(name)) == parts


def test_a_part_that_goes_wrong_ends_the_shot_and_the_others_are_kept(tmp_path, whole):
    a_farm = farm_of_scenes(tmp_path, "one")
    calls = itertools.count()

    def fail():
        if next(calls) == 20:
            raise ValueError("too large")

    ends, told = run(a_farm, Places(a_farm, 2, on_call=fail))
    assert ends == {"one": "failed"}
    assert told[-1] == ("one", Outcome("failed", "too large", 1))
    (shot,) = look(a_farm).shots
    assert (shot.state, shot.why) == ("failed", "too large")
    workers = Places(a_farm, 2)
    assert run(a_farm, workers)[0] == {"one": "finished"}
    assert workers.started == ["one/2", "one/3", "one"]
    assert files_in(a_farm.run_of("one")) == whole
    check_made_once(a_farm)


def test_a_part_that_was_changed_is_refused_and_named(tmp_path):
    a_farm = farm_of_scenes(tmp_path, "one")
    a_farm.split("one")
    for task in ALL[1:]:
        assert work(tmp_path, task, make_tiny()).state == "made"
    chunks = a_farm.run_of("one/3") / "chunks"
    shutil.copy(chunks / "00005.safetensors", chunks / "00006.safetensors")
    outcome = work(tmp_path, "one", make_tiny())
    assert outcome.state == "failed"
    assert "parts/one/3/chunks/00006.safetensors was made by another run or is in the wrong place" in outcome.why
    assert not a_farm.has_run("one")


def test_status_counts_parts_and_says_why_there_are_none(tmp_path):
    """Two workers are at the parts of a shot, of which one has half a chunk for each second."""
    a_farm = farm_of_scenes(tmp_path, "one", lease=60)
    a_farm.split("one")
    assert work(tmp_path, "one/1", make_tiny()).state == "made"
    seen = []

    def look_now():
        seen.append(look(a_farm).shots[0])

    assert work(tmp_path, "one/2", make_tiny(look_now)).state == "made"
    assert {(shot.state, shot.parts, shot.workers, shot.num_chunks) for shot in seen} == {("running", 3, 1, 7)}
    assert {shot.chunks for shot in seen} == {2, 3}
    assert "in 3 parts, by " in seen[0].line(5)
    values = (tmp_path / "farm.json").read_text()
    (tmp_path / "farm.json").write_text(values.replace('"why_one": ""', '"why_one": "it restyles"'))
    assert ", by one worker, because it restyles" in look(read_farm(tmp_path)).table()
    (tmp_path / "farm.json").write_text(values.replace('"why_one": ""', '"why_one": "it has one scene"'))
    assert "by one worker" not in look(read_farm(tmp_path)).table()
    assert look(read_farm(tmp_path)).shots[0].why_one == "it has one scene"


def test_the_time_left_is_shared_by_the_workers_of_all_parts(tmp_path):
    """Two of seven chunks are there, which took two seconds each, and two workers are at the others."""
    a_farm = farm_of_scenes(tmp_path, "one", lease=60)
    a_farm.split("one")
    work(tmp_path, "one/1", make_tiny())
    events = [event | {"seconds": 2.0} for event in a_farm.events("one/1")]
    (tmp_path / "logs" / "one.1.part").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    both = [Lease(a_farm.leases, part, 60) for part in ("one/2", "one/3")]
    assert look(a_farm).left == pytest.approx(5 * 2 / len(both))


@pytest.mark.parametrize("chunks", [[[0, 2], [3, 7]], [[0, 2], [2, 8]], [[1, 7]], [], [[0, 7], [7, 3]]])
def test_parts_that_are_not_all_of_a_shot_are_refused(tmp_path, chunks):
    farm_of_scenes(tmp_path, "one")
    values = json.loads((tmp_path / "farm.json").read_text())
    values["shots"][0]["parts"]["chunks"] = chunks
    (tmp_path / "farm.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="is not as a farm writes it"):
        read_farm(tmp_path)


def test_a_part_holds_a_lease_of_its_own(tmp_path):
    a_farm = farm_of_scenes(tmp_path, "one", lease=60)
    a_farm.split("one")
    held = []

    def look_now():
        held.append([lease_of(a_farm.leases, task, 60).is_live for task in ALL])

    assert work(tmp_path, "one/2", make_tiny(look_now)).state == "made"
    assert held[0] == [False, False, True, False]
