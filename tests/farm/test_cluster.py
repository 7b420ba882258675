"""Twelve shots on two simulated computers: workers are killed and stopped, a computer and the driver are killed.

Nothing is lost.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tiny_cli import files_in
from tiny_farm import chunks_made

from histream_core.farm.lease import lease_of
from histream_core.farm.store import read_farm

ROOT = Path(__file__).parents[2]
SHOTS, FRAMES, CHUNKS = 12, 81, 7
WORD = "HISTREAM_TEST_FARM"
"""An environment variable that all processes of one test have."""


def start(place, *words, **more):
    """A process of the test."""
    env = os.environ | {WORD: str(place), "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=place, env=env, text=True, **more)


def submit(place, out, *words):
    call = "import sys; from histream_core.cli import main; sys.exit(main())"
    said = (place / f"{out}.txt").open("a")
    return start(place, "-c", call, "farm", "submit", "shots.jsonl", "--out", out, *words, stdout=said, stderr=said)


def processes(place):
    """Numbers of the processes of a test that are alive."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{WORD}={place}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return found


def wait_for(what, seconds=600):
    """Wait until `what()` gives something, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, what.__name__
        time.sleep(0.02)
    return found


def is_alive(number):
    """Whether a process is there and not dead; the lease of a dead one counts for some seconds more."""
    with suppress(OSError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def write_list(place, shots):
    (place / "shots.jsonl").write_text("".join(f"{json.dumps(shot)}\n" for shot in shots))


def under_way(folder, most=CHUNKS - 3):
    """A function that finds the process of a shot or part in whose run there are some finished chunks, but not all."""

    def look():
        if not (folder / "farm.json").exists():
            return None
        farm = read_farm(folder)
        for task in (task for shot in farm.shots for task in (shot.name, *farm.parts_of(shot.name))):
            lease = lease_of(farm.leases, task, farm.lease_seconds)
            found = re.search(r"process (\d+)", lease.by)
            made = sum(event["event"] == "chunk" for event in farm.events(task))
            if lease.is_live and found and is_alive(found[1]) and 0 < made <= most:
                return int(found[1])
        return None

    return look


def two_at_work(folder):
    """A function that finds the processes of two shots, if there are two."""

    def look():
        farm = read_farm(folder)
        leases = [lease_of(farm.leases, shot.name, farm.lease_seconds) for shot in farm.shots]
        held = (re.search(r"process (\d+)", lease.by) for lease in leases if lease.is_live)
        found = {int(by[1]) for by in held if by and is_alive(by[1])}
        return found if len(found) == 2 else None

    return look


def end_one(folder, how, **chunks):
    """Send a signal to a process that is at a shot, and wait until it is dead: the driver kills one that is stopped."""
    number = wait_for(under_way(folder, **chunks))
    os.kill(number, how)
    wait_for(lambda: not is_alive(number))


def check_chunks(events, chunks=range(CHUNKS)):
    """Each attempt goes on at the first chunk that is not finished; a kill can come before the line of one that is."""
    attempts = {event["term"]: (event["kept"], []) for event in events if event["event"] == "begun"}
    for event in events:
        if event["event"] == "chunk":
            attempts[event["term"]][1].append(event["chunk"])
    finished = chunks.start
    for kept, made in attempts.values():
        assert kept - finished in (0, 1), events
        assert made == [*range(kept, kept + len(made))], events
        finished = kept + len(made)
    assert finished == chunks.stop, events


@pytest.mark.slow
def test_a_night_of_twelve_shots_survives_its_deaths(tmp_path, weights):
    pytest.importorskip("ray", reason="the extra scale is not installed")
    for name in ("wan", "vae", "embeds"):
        shutil.copy(weights / f"{name}.safetensors", tmp_path)
    files = {"model": "wan.safetensors", "vae": "vae.safetensors", "embeds": "embeds.safetensors"}
    shots = [{**files, "seed": n, "frames": FRAMES, "size": "32x32", "device": "cpu"} for n in range(SHOTS)]
    write_list(tmp_path, shots)
    nodes = start(tmp_path, Path(__file__).with_name("two_nodes.py"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    drivers = []
    try:
        address = nodes.stdout.readline().strip()
        words = ["--address", address, "--lease", "5"]
        drivers.append(driver := submit(tmp_path, "farm", *words))
        end_one(tmp_path / "farm", signal.SIGKILL)
        end_one(tmp_path / "farm", signal.SIGSTOP)
        both = wait_for(two_at_work(tmp_path / "farm"))
        nodes.stdin.write("kill\n")
        nodes.stdin.flush()
        assert nodes.stdout.readline() == "killed\n"
        wait_for(lambda: not all(map(is_alive, both)))
        end_one(tmp_path / "farm", signal.SIGSTOP)  # in the only place that is left
        wait_for(under_way(tmp_path / "farm"))
        drivers.append(second := submit(tmp_path, "farm", *words))
        assert second.wait() == 2
        assert "is in use by process" in (tmp_path / "farm.txt").read_text()
        driver.kill()
        driver.wait()
        drivers.append(last := submit(tmp_path, "farm", *words))
        assert last.wait() == 0, (tmp_path / "farm.txt").read_text()
    finally:
        nodes.stdin.close()
        nodes.wait()
        for process in drivers:
            process.kill()
    wait_for(lambda: not processes(tmp_path), seconds=120)

    farm = read_farm(tmp_path / "farm")
    attempts = {shot.name: chunks_made(farm, shot.name) for shot in farm.shots}
    for name in attempts:
        check_chunks(farm.events(name))
    again = {name: made for name, made in attempts.items() if len(made) > 1}
    assert again, attempts
    once = next(name for name in attempts if name not in again)
    compared = [{**shot, "name": name} for name, shot in zip(attempts, shots, strict=True) if name in (once, *again)]
    check_alone(tmp_path, farm, compared)
    deaths = [event["why"] for shot in farm.shots for event in farm.events(shot.name) if event["event"] == "died"]
    assert sum("gave no sign for 5 s, and was killed" in why for why in deaths) >= 2, deaths
    assert len(deaths) >= 3, deaths
    sys.stdout.write(f"begun again: {again}\n")


@pytest.mark.slow
def test_the_scenes_of_a_shot_are_made_by_two_workers_of_which_one_dies(tmp_path):
    """The first worker is killed in its part, which begins again at its chunk."""
    pytest.importorskip("ray", reason="the extra scale is not installed")
    timeline = "[0:00] a red circle moves right\n[0:00.6, cut] a blue square moves up\n[0:01.3, scene] a red square"
    shots = [{"name": "two", "timeline": timeline, "seconds": 2.5}]
    write_list(tmp_path, shots)
    driver = submit(tmp_path, "farm", "--workers", "2", "--lease", "5")
    try:
        end_one(tmp_path / "farm", signal.SIGKILL, most=1)
        assert driver.wait() == 0, (tmp_path / "farm.txt").read_text()
    finally:
        driver.kill()
    farm = read_farm(tmp_path / "farm")
    made = {task: chunks_made(farm, task) for task in ("two", "two/1", "two/2")}
    assert farm.parts["two"].chunks == (range(2), range(2, 4))
    assert made["two"] == [[]]
    assert sorted(len(made[task]) for task in ("two/1", "two/2")) == [1, 2], made
    for task in ("two/1", "two/2"):
        check_chunks(farm.events(task), farm.chunks_of(task))
    check_alone(tmp_path, farm, shots)


def check_alone(place, farm, shots):
    """The files of shots are those that one process makes."""
    write_list(place, shots)
    assert submit(place, "alone").wait() == 0, (place / "alone.txt").read_text()
    for shot in shots:
        assert files_in(farm.run_of(shot["name"])) == files_in(place / "alone" / "shots" / shot["name"])
