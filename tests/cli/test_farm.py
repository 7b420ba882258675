"""`histream farm`: a list of shots from the first line to the last video. Tiny random weights stand in."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from tiny_cli import BLUE, RED, SIDE, files_in

from histream_core.cli.verbs.farm import make_shot
from histream_core.farm import submit
from histream_core.farm.lease import Lease
from histream_core.farm.store import lock_farm, open_place, read_farm, write_farm
from histream_core.farm.work import Outcome, work
from histream_core.runs.store.journal import read_manifest
from histream_core.video.pictures import write_png

SHORT = {"seconds": 0.5}
"""One chunk of nine frames."""


def listed(path, *shots):
    path.write_text("".join(f"{json.dumps(shot)}\n" for shot in shots))
    return path


@pytest.fixture
def shots(here):
    """Two shots of one chunk."""
    return listed(here / "shots.jsonl", {"name": "red", "prompt": RED, **SHORT}, {"prompt": BLUE, **SHORT})


def test_a_list_becomes_the_videos_that_the_command_makes(here, say, shots):
    status, result = say("farm", "submit", shots, "--out", "new/night")
    assert (status, result["counts"]) == (0, {"finished": 2})
    assert [(shot["name"], shot["chunks"], shot["made"]) for shot in result["shots"]] == [
        ("red", 1, 1),
        ("shot-0002", 1, 1),
    ]
    say("demo", BLUE, "--seconds", "0.5", "--run-dir", "alone")
    assert files_in("new/night/shots/shot-0002") == files_in("alone")
    assert say("farm", "submit", shots, "--out", "new/night")[0] == 0
    assert [len(read_farm(here / "new/night").events(name)) for name in ("red", "shot-0002")] == [3, 3]
    assert say("farm", "status", "new/night") == (0, result)
    status, found = say("farm", "collect", "new/night", "--to", "videos")
    assert (status, found["missing"]) == (0, {})
    assert (here / "videos" / "shot-0002.mp4").read_bytes() == (here / "alone" / "video.mp4").read_bytes()
    assert sorted(os.listdir("videos")) == ["red.mp4", "shot-0002.mp4"]
    assert say("farm", "collect", "new/night", "--to", "videos")[0] == 0
    (here / "videos" / "red.mp4").write_bytes(b"mine")
    status, said = say("farm", "collect", "new/night", "--to", "videos")
    assert status == 2
    assert "red.mp4 exists" in said
    assert say("farm", "collect", "new/night", "--to", "videos", "--overwrite")[0] == 0
    assert (here / "videos" / "red.mp4").read_bytes() != b"mine"


def test_a_list_that_was_stopped_goes_on_where_it_was(here, say, stop_at):
    """The first shot has three chunks; it is stopped in the third."""
    shots = listed(here / "shots.jsonl", {"prompt": RED, "seconds": 2}, {"prompt": BLUE, **SHORT})
    go_on = stop_at(13)
    status, said = say("farm", "submit", shots, "--out", "night")
    assert status == 130
    assert said.startswith(
        "histream: stopped: 2 shots: 1 stopped, 1 waiting; cancelled, submit the list again to go on"
    )
    go_on()
    status, result = say("farm", "status", "night")
    assert [shot["state"] for shot in result["shots"]] == ["stopped", "waiting"]
    status, result = say("farm", "collect", "night", "--to", "videos")
    assert (status, sorted(result["missing"])) == (1, ["shot-0001", "shot-0002"])
    status, result = say("farm", "submit", shots, "--out", "night")
    assert [(shot["made"], shot["attempts"]) for shot in result["shots"]] == [(3, 2), (1, 1)]
    assert status == 0


@pytest.mark.parametrize(
    ("shot", "said"),
    [
        ({"prompt": ""}, "line 2: argument PROMPT: it is empty"),
        ({"promt": RED}, 'line 2: "promt" is no option of histream demo: see histream demo --help'),
        ({"prompt": RED, "out": "a.mp4"}, 'line 2: "out" is not for a shot, the farm decides it'),
        ({"prompt": RED, "seed": -1}, "line 2: seed -1 is out of range"),
        ({"prompt": RED, "seconds": 0}, "line 2: 0 seconds is no length"),
        ({"prompt": RED, "seed": [1]}, 'line 2: "seed" is a list: write text, a number, true or false'),
        ({"prompt": RED, "format": "gif"}, "line 2: "),
        ({"prompt": RED, "first-frame": "no.png"}, "no.png does not exist"),
        ({"timeline": "[0:09] late"}, "line 2: "),
        ({"model": "wan.safetensors"}, "line 2: --vae is missing"),
        ({"video": "in.mp4"}, "line 2: the following arguments are required: --model"),
    ],
)
def test_every_line_is_checked_before_the_first_shot(here, say, shot, said):
    listed(here / "shots.jsonl", {"prompt": RED, **SHORT}, shot)
    status, told = say("farm", "submit", "shots.jsonl", "--out", "night")
    assert status == 2
    assert said in told
    assert os.listdir(here) == ["shots.jsonl"]


def test_files_are_relative_to_the_list_and_defaults_fill_what_a_shot_does_not_say(here, say, weights):
    folder = here / "lists"
    folder.mkdir()
    (folder / "b.txt").write_text(RED)
    (folder / "a.json").write_text(json.dumps({"seed": 4, "size": [32, 32], "embeds": "own.safetensors"}))
    for name in ("wan", "vae", "embeds"):
        (here / f"{name}.safetensors").write_bytes((weights / f"{name}.safetensors").read_bytes())
    (folder / "own.safetensors").write_bytes((weights / "embeds.safetensors").read_bytes())
    usual = {"model": "wan.safetensors", "vae": "vae.safetensors", "embeds": "embeds.safetensors", "frames": 9}
    listed(here / "usual.json", usual | {"size": "64x32", "no-section-files": False})
    status, result = say("farm", "submit", "lists", "--out", "night", "--defaults", "usual.json")
    assert status == 2
    (here / "usual.json").write_text(json.dumps(usual | {"size": "64x32"}))
    status, result = say("farm", "submit", "lists", "--out", "night", "--defaults", "usual.json")
    assert (status, [shot["name"] for shot in result["shots"]]) == (0, ["a", "b"])
    told = [read_manifest(here / "night" / "shots" / name) for name in "ab"]
    assert [run.settings.size for run in told] == [(32, 32), (64, 32)]
    assert [run.source["embeds"] for run in told] == [str(folder / "own.safetensors"), str(here / "embeds.safetensors")]


def test_a_shot_that_has_begun_keeps_its_options_and_new_ones_may_come(here, say, shots):
    assert say("farm", "submit", shots, "--out", "night")[0] == 0
    listed(shots, {"name": "red", "prompt": RED, "seed": 1, **SHORT})
    status, said = say("farm", "submit", shots, "--out", "night")
    assert status == 2
    assert 'line 1: the shot "red" was begun with another seed: give it another name, submit into' in said
    listed(shots, {"name": "red", "prompt": RED, **SHORT}, {"name": "new", "prompt": BLUE, **SHORT})
    status, result = say("farm", "submit", shots, "--out", "night")
    assert (status, [shot["name"] for shot in result["shots"]]) == (0, ["red", "new"])


def test_two_drivers_do_not_share_a_list(here, say, shots):
    """Seen to fail without the lock of the folder."""
    (here / "night").mkdir()
    held = lock_farm(here / "night")
    status, said = say("farm", "submit", shots, "--out", "night")
    held.release()
    assert status == 2
    held_by, folder = f"is in use by process {os.getpid()}", here / "night"
    assert said == f"histream: the farm in {folder} {held_by}: wait for it, or histream farm cancel {folder}"


def test_cancel_tells_what_it_stops(here, say, shots):
    say("farm", "submit", shots, "--out", "night")
    with Lease(here / "night" / "leases", "red", 60):
        status, result = say("farm", "cancel", "night")
    assert (status, result["running"]) == (0, ["red"])
    assert read_farm(here / "night").is_cancelled()
    assert say("farm", "submit", shots, "--out", "night")[0] == 0
    assert not read_farm(here / "night").is_cancelled()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers", "0"], "0 workers make nothing"),
        (["--workers", "2"], "Ray is not installed, and without it there is one worker: pip install"),
        (["--address", "auto"], "Ray is not installed"),
        (["--address", "somewhere"], "is no address of a Ray: write auto, local or HOST:PORT"),
        (["--lease", "0"], "a lease of 0 seconds is too short"),
        (["--out", "."], "is not empty and holds no farm"),
    ],
)
def test_workers_that_cannot_be_had_are_refused_first(here, say, shots, monkeypatch, words, said):
    monkeypatch.setattr(submit, "ray_is_there", lambda: False)
    status, told = say("farm", "submit", shots, "--out", "night", *words)
    assert status == 2
    assert said in told
    assert os.listdir(here) == ["shots.jsonl"]


@pytest.mark.parametrize("what", ["status", "cancel"])
def test_a_folder_that_holds_no_farm_is_refused(here, say, what):
    status, said = say("farm", what, ".")
    assert status == 2
    assert "holds no farm" in said


def test_the_scenes_of_a_shot_that_is_made_in_parts_are_those_of_one_run(here, say):
    """Behind a first frame, and with a prompt that changes within a scene: the files of a farm that made it whole."""
    write_png(here / "first.png", np.full((SIDE, SIDE, 3), 90, dtype=np.uint8))
    timeline = f"[0:00] {RED}\n[0:00.6, cut] {BLUE}\n[0:01.4, scene] {RED}\n[0:02.1, recache] {BLUE}"
    shots = listed(
        here / "shots.jsonl", {"name": "two", "timeline": timeline, "first-frame": "first.png", "seconds": 3}
    )
    status, result = say("farm", "submit", shots, "--out", "whole")
    assert (status, result["shots"][0]["made"]) == (0, 4)
    whole = read_farm(here / "whole")
    assert whole.parts["two"].chunks == (range(3), range(3, 5))
    open_place(here / "apart")
    apart = replace(whole, folder=here / "apart")
    write_farm(apart)
    apart.split("two")
    for part, made in (("two/2", 2), ("two/1", 2)):
        assert work(apart.folder, part, make_shot) == Outcome("made", made=made)
        assert not (apart.run_of(part) / "segments").exists()
    assert say("farm", "status", "apart")[1]["shots"][0]["chunks"] == 5
    for words in (["resume"], ["extend", "--seconds", "9"], ["branch", "--seed", "2"]):
        status, said = say(words[0], apart.run_of("two/2"), *["new"] * (words[0] == "branch"), *words[1:])
        assert (status, "holds a part of a run alone: submit the list of its farm again" in said) == (2, True)
    status, result = say("farm", "submit", shots, "--out", "apart")
    assert (status, result["shots"][0]["made"], result["shots"][0]["attempts"]) == (0, 4, 3)
    assert files_in("apart/shots/two") == files_in("whole/shots/two")
    assert os.listdir("apart/parts") == []


def test_status_says_why_scenes_are_made_by_one_worker(here, say):
    timeline = f"[0:00] {RED}\n[0:01.4, scene] {BLUE}"
    each = {"mode": "full", "histories": "each-step"}
    listed(
        here / "shots.jsonl",
        {"name": "apart", "timeline": timeline, "seconds": 2},
        {"name": "rows", "timeline": timeline, "seconds": 2, "order": "diagonal", **each},
        {"name": "one", "prompt": RED, **SHORT},
    )
    status, result = say("farm", "submit", "shots.jsonl", "--out", "night")
    assert status == 0, result
    assert [shot["why_one"] for shot in result["shots"]] == [
        "",
        "in the order diagonal a scene begins before the one before it is finished",
        "it has one scene",
    ]


def test_a_shot_that_was_killed_before_its_first_frame_was_stored_begins_anew(here, say):
    """`histream resume` refuses such a run, which needs the picture once more."""
    write_png(here / "first.png", np.full((SIDE, SIDE, 3), 90, dtype=np.uint8))
    listed(here / "shots.jsonl", {"name": "one", "prompt": RED, "first-frame": "first.png", **SHORT})
    assert say("farm", "submit", "shots.jsonl", "--out", "night")[0] == 0
    run = here / "night" / "shots" / "one"
    whole = files_in(run)
    made = [*(run / "chunks").iterdir(), *(run / "segments").iterdir(), *run.glob("cuts.*"), run / "video.mp4"]
    for path in made:
        path.unlink()
    assert say("resume", run)[0] == 2
    status, result = say("farm", "submit", "shots.jsonl", "--out", "night")
    assert (status, result["shots"][0]["why"]) == (0, "")
    assert files_in(run) == whole
