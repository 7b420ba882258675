"""Eight shots on two simulated computers: workers are killed and stopped, a computer and the driver are killed.

Nothing is lost.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import held_farm
import pytest
from tiny_cli import files_in
from tiny_farm import chunks_made

from histream_core.farm.store import read_farm

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent
SHOTS, FRAMES, CHUNKS = 8, 81, 7
SECONDS = 1800
"""Seconds after which a test gives up; nothing that it waits for passes."""
PATH = os.pathsep.join(map(str, (ROOT, HERE.parent)))


def start(place, *words, **more):
    """A process of the test."""
    env = os.environ | {held_farm.PLACE: str(place), "PYTHONPATH": PATH, "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=place, env=env, text=True, **more)


def submit(place, out, *words):
    call = "import sys; from held_farm import main; sys.exit(main())"
    said = (place / f"{out}.txt").open("a")
    return start(place, "-c", call, "farm", "submit", "shots.jsonl", "--out", out, *words, stdout=said, stderr=said)


def processes(place):
    """Numbers of the processes of a test that are alive."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{held_farm.PLACE}={place}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return found


def wait_for(what, driver=None):
    """Wait until `what()` gives something, and return it; a test that a fault stops fails where its driver ends."""
    deadline = time.monotonic() + SECONDS
    while not (found := what()):
        assert driver is None or driver.poll() is None, what.__name__
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


def at_work(place, number=1):
    """A function that finds so many processes in the middle of their shots, where they wait."""

    def look():
        found = [process for process in held_farm.waiting(place) if is_alive(process)]
        return found if len(found) >= number else None

    return look


def end_one(place, how, driver):
    """Send a signal to a process that is at a shot, and wait until it is dead: the driver kills one that is stopped."""
    number = wait_for(at_work(place), driver)[0]
    os.kill(number, how)
    wait_for(lambda: not is_alive(number), driver)


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
def test_a_night_of_shots_survives_its_deaths(tmp_path, weights):
    pytest.importorskip("ray", reason="the extra scale is not installed")
    for name in ("wan", "vae", "embeds"):
        shutil.copy(weights / f"{name}.safetensors", tmp_path)
    files = {"model": "wan.safetensors", "vae": "vae.safetensors", "embeds": "embeds.safetensors"}
    shots = [{**files, "seed": n, "frames": FRAMES, "size": "32x32", "device": "cpu"} for n in range(SHOTS)]
    write_list(tmp_path, shots)
    held_farm.hold(tmp_path)
    nodes = start(tmp_path, HERE / "two_nodes.py", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    drivers = []
    try:
        address = nodes.stdout.readline().strip()
        words = ["--address", address, "--lease", "5"]
        drivers.append(driver := submit(tmp_path, "farm", *words))
        end_one(tmp_path, signal.SIGKILL, driver)
        end_one(tmp_path, signal.SIGSTOP, driver)
        both = wait_for(at_work(tmp_path, 2), driver)
        nodes.stdin.write("kill\n")
        nodes.stdin.flush()
        assert nodes.stdout.readline() == "killed\n"
        wait_for(lambda: not all(map(is_alive, both)), driver)
        end_one(tmp_path, signal.SIGSTOP, driver)  # in the only place that is left
        wait_for(at_work(tmp_path), driver)
        drivers.append(second := submit(tmp_path, "farm", *words))
        assert second.wait() == 2
        assert "is in use by process" in (tmp_path / "farm.txt").read_text()
        driver.kill()
        driver.wait()
        held_farm.let_go(tmp_path)
        drivers.append(last := submit(tmp_path, "farm", *words))
        assert last.wait() == 0, (tmp_path / "farm.txt").read_text()
    finally:
        nodes.stdin.close()
        nodes.wait()
        for process in drivers:
            process.kill()
    wait_for(lambda: not processes(tmp_path))

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
    held_farm.hold(tmp_path)
    driver = submit(tmp_path, "farm", "--workers", "2", "--lease", "5")
    try:
        end_one(tmp_path, signal.SIGKILL, driver)
        held_farm.let_go(tmp_path)
        assert driver.wait() == 0, (tmp_path / "farm.txt").read_text()
    finally:
        driver.kill()
    farm = read_farm(tmp_path / "farm")
    made = {task: chunks_made(farm, task) for task in ("two", "two/1", "two/2")}
    assert farm.parts["two"].chunks == (range(2), range(2, 4))
    assert made["two"] == [[]]
    assert max(len(made[task]) for task in ("two/1", "two/2")) > 1, made
    for task in ("two/1", "two/2"):
        check_chunks(farm.events(task), farm.chunks_of(task))
    check_alone(tmp_path, farm, shots)


def check_alone(place, farm, shots):
    """The files of shots are those that one process makes."""
    write_list(place, shots)
    assert submit(place, "alone").wait() == 0, (place / "alone.txt").read_text()
    for shot in shots:
        assert files_in(farm.run_of(shot["name"])) == files_in(place / "alone" / "shots" / shot["name"])
