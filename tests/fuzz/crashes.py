"""Campaigns of the journal's promise: a run that is killed at any write, and four that are begun at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from unittest.mock import patch

from forks import Child
from tiny_cli import BLUE, RED

from histream_core.cli import main
from histream_core.files import disk

from .case import RESUME, Case, says
from .child import RAISED, Outcome, Place
from .seeds import TWO, Seeds, Words, same_video

KILLED = 9
"""The exit status of a run that was killed on purpose."""
CALLS = ("replace", "rename", "unlink", "mkdir", "rmdir", "link")

BEGUN: dict[str, Words] = {
    "sections": ("demo", "--timeline", TWO, "--seconds", "1", "--section-files", "--run-dir", "run", "--json"),
    "pictures": ("demo", RED, "--seconds", "0.5", "--format", "png8", "--run-dir", "run", "--json"),
    "snapshots": ("demo", RED, "--seconds", "1.5", "--snapshots", "1", "--run-dir", "run", "--json"),
}
CHANGED: dict[str, Words] = {
    "resume": RESUME,
    "extend": ("extend", "run", "--seconds", "0.5", "--json"),
    "branch": ("branch", "run", "new", "--from", "1", "--seed", "9", "--json"),
}
"""The victims: runs that are begun, and verbs over a run."""
OVER = {"resume": "cut", "extend": "whole", "branch": "cut"}


class Power:
    """Goes at a point: every write, synchronisation and change of a name is one. What was not synchronised is lost."""

    def __init__(self, last: int | None, chance: Random) -> None:
        self.points, self._last, self._chance = 0, last, chance
        self._unsynced: dict[Path, disk.File] = {}

    def point(self) -> None:
        if self.points == self._last:
            for path, file in self._unsynced.items():
                if path.exists():
                    os.truncate(path, self._chance.randint(0, file.tell()))
            os._exit(KILLED)
        self.points += 1

    def write(self, real: Callable, file: disk.File, data: bytes) -> int:
        self._unsynced[file.path] = file
        self.point()
        return real(file, data)

    def sync(self, real: Callable, file: disk.File) -> None:
        self.point()
        real(file)
        self._unsynced.pop(file.path, None)

    def name(self, real: Callable, *args: object, **settings: object) -> object:
        self.point()
        return real(*args, **settings)


def until(point: int | None, chance: Random, words: Words) -> int:
    """Run the command line in a child that is killed at a point; gives the number of points if none is named."""

    def work(say) -> int:
        power = Power(point, chance)
        for name in ("write", "sync"):
            real = getattr(disk.File, name)
            patch.object(disk.File, name, _method(partial(getattr(power, name), real))).start()
        for name in CALLS:
            patch.object(os, name, partial(power.name, getattr(os, name))).start()
        status = main([str(word) for word in words])
        say.write(f"{power.points}\n")
        return status

    child = Child(work)
    told, status = child.said.read(), child.wait()
    if status not in (0, KILLED):
        raise RuntimeError(f"{words} ended with {status}: {told}")
    return int(told) if status == 0 else -1


def _method(function: Callable) -> Callable:
    return lambda file, *args: function(file, *args)


def points_of(seeds: Seeds) -> list[tuple[str, int]]:
    """Every point of every script."""
    found = []
    for name, words in (BEGUN | CHANGED).items():
        place = seeds.root / "points"
        place.mkdir()
        here = Path.cwd()
        os.chdir(place)
        try:
            if name in CHANGED:
                shutil.copytree(seeds.runs / OVER[name], "run")
            found += [(name, point) for point in range(_quiet(partial(until, None, Random(0), words)))]
        finally:
            os.chdir(here)
            shutil.rmtree(place)
    return found


def _quiet(work: Callable[[], int]) -> int:
    with open(os.devnull, "w") as nothing, patch("sys.stderr", nothing), patch("sys.stdout", nothing):  # noqa: PTH123
        return work()


def crashes(chance: Random, seeds: Seeds, place: Place, point: tuple[str, int]) -> Case:
    """A verb that is killed at a point; afterwards resumed, or begun again where nothing was begun."""
    name, number = point
    words = (BEGUN | CHANGED)[name]
    if name in CHANGED:
        shutil.copytree(seeds.runs / OVER[name], place.scratch / "run")
    folder = "new" if name == "branch" else "run"

    def work() -> int:
        until(number, chance, words)
        begun = Path(folder, "manifest.json").exists()
        return main([str(word) for word in (("resume", folder, "--json") if begun else words)])

    def judge(outcome: Outcome, place: Place) -> Iterator[str]:
        if outcome.status:
            yield f"wrong: not resumed, {outcome.said.strip()[-200:]}"
            return
        start = OVER.get(name, "")
        found = [same_video(place.scratch / folder, seeds.expected(start, *one)) for one in _ways(name, words)]
        if all(found):
            yield f"wrong: {found[0]}"

    return Case(f"{name} killed at point {number}", work, judge)


def _ways(name: str, words: Words) -> list[tuple[Words, ...]]:
    """The states that a killed verb may leave: a killed `extend` has been done, or not yet."""
    return [(words,), (RESUME,)] if name == "extend" else [(words,)]


def starts(chance: Random, seeds: Seeds, place: Place) -> Case:
    """Four runs of other seeds that are begun in one folder at once; the one that survives is resumed."""
    delays = [chance.choice((0, 0, chance.uniform(0, 0.2))) for _ in range(4)]

    def work() -> int:
        read, write = os.pipe()
        children = []
        for number, delay in enumerate(delays):
            pid = os.fork()
            if not pid:
                os.close(write)
                os.read(read, 1)
                signal.setitimer(signal.ITIMER_REAL, 0)
                os._exit(_begin(number, delay))
            children.append(pid)
        os.close(read)
        os.close(write)
        ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        if 0 not in ends:
            return RAISED
        return says(RESUME)()

    def judge(outcome: Outcome, place: Place) -> Iterator[str]:
        if outcome.status:
            yield f"wrong: the survivor cannot be resumed: {outcome.said.strip()[-200:]}"
            return
        seed = json.loads((place.scratch / "run" / "manifest.json").read_text())["run"]["seeds"][0]["seed"]
        if wrong := same_video(place.scratch / "run", seeds.expected("", _start(seed))):
            yield f"wrong: {wrong}"

    return Case(f"four starts, after {', '.join(f'{delay:.2f}' for delay in delays)} s", work, judge)


def _start(seed: int) -> Words:
    return ("demo", BLUE, "--seconds", "0.5", "--seed", str(seed), "--run-dir", "run", "--json")


def _begin(seed: int, delay: float) -> int:
    import time

    time.sleep(delay)
    with open(os.devnull, "w") as nothing, patch("sys.stderr", nothing), patch("sys.stdout", nothing):  # noqa: PTH123
        return main(list(map(str, _start(seed))))
