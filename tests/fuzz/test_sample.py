"""A sample of the attack, drawn by HISTREAM_FUZZ_SEED; and each verdict of the attack, seen to fire.

All of it, by hand: `python tests/fuzz/attack.py`.
"""

import os
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("children are watched by what Linux tells of them", allow_module_level=True)

from fuzz import child
from fuzz.attack import Attack
from fuzz.case import calls
from fuzz.child import Place, faults, run
from fuzz.mutate import resign, spoil_json, spoil_safetensors
from fuzz.seeds import same_video

SAMPLE = {"checkpoints": 4, "runs": 4, "words": 4, "media": 6, "links": 4, "crashes": 1, "starts": 1}


@pytest.fixture(scope="module")
def attack(tmp_path_factory):
    found = Attack(tmp_path_factory.mktemp("attack"), os.environ.get("HISTREAM_FUZZ_SEED", "histream"))
    yield found
    found.seeds.close()


@pytest.mark.parametrize("campaign", SAMPLE)
def test_a_sample_of_the_attack_finds_nothing(attack, campaign):
    results = [attack.case(campaign, index) for index in range(SAMPLE[campaign])]
    failed = [f"{campaign}:{result.index} {result.faults} {result.what!a}" for result in results if result.faults]
    assert not failed, f"seed {attack.seed!r}\n" + "\n".join(failed)


def found_in(place, work, **settings):
    """The kinds of fault of a child."""
    before = place.guarded()
    outcome = run(work, place, **settings)
    return {fault.partition(":")[0] for fault in faults(outcome, before, place.guarded())}


def loop():
    while True:
        pass


LITTLE = 2**27
"""Bytes that a child may take here: a machine may need seconds of CPU to fill those that it may take elsewhere."""


def take_memory():
    block = bytearray(LITTLE + 2**29)
    return len(block) and 2


def refuse(text):
    def work():
        sys.stderr.write(text)
        return 2

    return work


FAULTS = {
    "nothing": (refuse("histream: no: give another\n"), set()),
    "a note first": (refuse("note\nhistream: no: give another\n"), set()),
    "an error": (lambda: 1 // 0, {"traceback"}),
    "a status": (lambda: 3, {"status"}),
    "a kill": (lambda: os.kill(os.getpid(), 9), {"status"}),
    "no word": (refuse(""), {"words"}),
    "a command for the terminal": (refuse("histream: \x1b[2J\n"), {"escape"}),
    "a direction": (refuse("histream: a\u202eb\n"), {"escape"}),
    "memory": (take_memory, {"memory", "words"}),
    "a file outside": (lambda: Path("../notes/x").write_text("x") and 0, {"outside"}),
    "a new dear file": (lambda: Path("../dear/x").write_text("x") and 0, {"outside"}),
    "a changed dear file": (lambda: os.truncate("../dear/letter.txt", 1) or 0, {"outside"}),
    "a removed dear file": (lambda: Path("../dear/letter.txt").unlink() or 0, {"outside"}),
    "a renamed one": (lambda: Path("../dear/photo.png").rename("photo.png") and 0, {"outside"}),
    "a read one": (lambda: Path("../dear/letter.txt").read_text() and 0, {"outside"}),
    "a folder": (lambda: Path("../new").mkdir() or 0, {"outside"}),
    "a program": (lambda: os.system("true"), {"outside"}),
    "a program of a checkpoint": (lambda: exec(compile("x = 1", f"{Path.cwd()}/x.py", "exec")) or 0, {"outside"}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_verdict_fires(tmp_path, monkeypatch, name):
    monkeypatch.setattr(child, "MEMORY", LITTLE)
    work, expected = FAULTS[name]
    assert found_in(Place(tmp_path / "place"), work) == expected


@pytest.mark.slow
def test_a_child_that_does_not_end_is_ended(tmp_path):
    assert found_in(Place(tmp_path / "one"), loop) == {"time"}


def test_a_child_that_waits_for_good_is_ended(tmp_path):
    place = Place(tmp_path / "place")
    os.mkfifo(place.scratch / "pipe")
    assert found_in(place, lambda: Path("pipe").read_text() and 0, blocked_seconds=1) == {"time"}


def test_a_write_through_a_link_is_seen(tmp_path):
    place = Place(tmp_path / "place")
    (place.scratch / "link").symlink_to(place.dear / "letter.txt")
    assert found_in(place, lambda: Path("link").write_text("x") and 0) == {"outside"}
    (place.scratch / "hard").hardlink_to(place.dear / "photo.png")
    assert found_in(place, lambda: Path("hard").write_text("x") and 0) == {"outside"}


def test_another_video_is_seen(attack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole, other = attack.seeds.runs / "whole", attack.seeds.runs / "other"
    expected = attack.seeds.expected("whole", ("resume", "run", "--json"))
    assert same_video(whole, expected) == ""
    assert same_video(other, expected) == "video.mp4 shows other frames"
    assert same_video(attack.seeds.runs / "cut", expected) == "['video.mp4'] are missing"


def test_what_is_spoilt_is_the_same_for_the_same_chance(attack):
    from random import Random

    manifest = (attack.seeds.runs / "heard" / "manifest.json").read_bytes()
    weights = attack.seeds.checkpoints["embeds.safetensors"]
    for spoil, data in ((spoil_json, manifest), (resign, manifest), (spoil_safetensors, weights)):
        found = [spoil(Random(f"same {index}"), data) for index in range(8)]
        assert found == [spoil(Random(f"same {index}"), data) for index in range(8)]
        assert len(set(found)) > 5 and data not in found[:1]


def test_errors_of_functions_are_a_line(tmp_path):
    def fail():
        raise OSError("a\nb\x1b")

    place = Place(tmp_path / "place")
    outcome = run(calls(fail), place)
    assert (outcome.end, outcome.said) == ("refused", "histream: a b\N{REPLACEMENT CHARACTER}\n")
