"""Drift of long videos: known changes of painted ones, and the verb on tiny random weights."""

import json

import numpy as np
import pytest

from histream_core import demo
from histream_core.cli import main
from histream_core.demo import painter
from histream_core.lab.judge import long, records
from histream_core.lab.judge.prompts import draw_prompts

SIDE = 64
ASKED = draw_prompts(2, 0)[0]


@pytest.fixture
def here(here, monkeypatch):
    monkeypatch.setattr(demo, "WIDTH", SIDE)
    monkeypatch.setattr(demo, "HEIGHT", SIDE)
    return here


def painted(chunk, shift=0.0, combination=ASKED.combination):
    """The frames of a chunk, the object's colour moved by `shift`."""
    named = painter.COLOURS[combination.colour], painter.COLOURS[combination.background]
    colours = np.abs(np.array(named[0]) - shift), named[1]
    clip = painter.paint(combination, range(12 * chunk, 12 * chunk + 12), size=SIDE, training=False, colours=colours)
    return (clip * 255 + 0.5).astype(np.uint8)


def video(chunks):
    return [
        long.read_chunk("a", 0, number, number * 0.75, frames, chunks[0], ASKED) for number, frames in enumerate(chunks)
    ]


def test_a_video_that_stays_as_it_is_does_not_drift():
    found = long.drifts(video([painted(chunk) for chunk in range(20)]))
    assert found["colour"] < 0.005 and found["sharpness"] < 0.05
    assert found["outline_last"] < 0.03
    assert found["identity_first"] == found["identity_last"] == 1
    assert found["words_first"] == found["words_last"] == 1


def test_a_known_drift_is_read_from_the_first_tenth_to_the_last():
    """Seen to fail when the first and the last chunk alone are compared, or neighbouring parts are."""
    readings = video([painted(chunk, shift=0.2 * chunk / 19) for chunk in range(20)])
    assert long.drifts(readings)["colour"] == pytest.approx(0.2 * 18 / 19, abs=0.01)
    times = [stretch["colour"] for stretch in long.course(readings, 5)]
    assert times == sorted(times)


def test_another_object_in_the_end_is_seen():
    """Seen to fail when the outline is compared with that of the chunk before."""
    other = next(c for c in painter.all_combinations() if c.shape != ASKED.combination.shape
                 and c.background == ASKED.combination.background)  # fmt: skip
    found = long.drifts(video([painted(n, combination=other if n > 9 else ASKED.combination) for n in range(20)]))
    assert found["identity_first"] == 1 and found["identity_last"] == 0
    assert found["outline_last"] > found["outline_first"] + 0.1


def test_an_object_that_is_gone_at_the_end_of_its_chunks_is_seen():
    """Seen to fail when words are read from the first frames of a chunk alone."""
    chunks = [painted(chunk) for chunk in range(20)]
    for chunk in chunks[10:]:
        chunk[10:] = chunk[0, 0, 0]
    found = long.drifts(video(chunks))
    assert found["identity_first"] == found["words_first"] == 1 and found["identity_last"] == found["words_last"] == 0


def test_a_video_without_an_object_is_another():
    blank = np.full((12, SIDE, SIDE, 3), 128, np.uint8)
    found = long.drifts(video([painted(0), *[blank] * 9]))
    assert found["colour"] == 1 and found["identity_last"] == 0 and found["outline_last"] == 1
    with pytest.raises(ValueError, match="two or more"):
        long.drifts(video([painted(0)]))


def evaluate(capsys, *words):
    assert main(["eval", "--demo", "--minutes", "0.05", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_anchor_on_and_off_are_compared_and_a_killed_run_goes_on(here, capsys, monkeypatch):
    """Seen to fail when a run that goes on makes other frames, or reads a chunk twice."""
    whole = evaluate(capsys, "--out", "one")
    assert list(whole["arms"]) == ["histream", "anchor-off"]
    assert whole["arms"]["histream"]["videos"] != whole["arms"]["anchor-off"]["videos"]
    append, kept = records.Records.append, []

    def killed(self, values):
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append(values)
        append(self, values)

    monkeypatch.setattr(records.Records, "append", killed)
    assert main(["eval", "--demo", "--minutes", "0.05", "--out", "two"]) == 130
    monkeypatch.setattr(records.Records, "append", append)
    again = evaluate(capsys, "--out", "two")
    one, two = ((here / name / "clips.jsonl").read_text() for name in ("one", "two"))
    assert one == two and len(one.splitlines()) == 2 * 2 * 4
    assert again == whole
    names = sorted(path.name for path in (here / "two").iterdir())
    assert names == ["clips.jsonl", "drift.json", "drift.md", "drift.png", "drift.svg", "settings.json", "strips"]
    assert "anchor-off" in (here / "two" / "drift.md").read_text()
    assert (here / "two" / "drift.svg").read_text().count('<g id="anchor-off-') == 3 * 2


def test_lengths_that_cannot_drift_are_refused(here, capsys):
    for words, said in (
        (["--minutes", "0"], "use 10"),
        (["--minutes", "1"], "give one with --out"),
        (["--minutes", "0.001", "--out", "t"], "are one chunk"),
        (["--minutes", "1", "--out", "t", "--arms", "slow"], "there is no arm slow"),
        (
            ["--minutes", "1", "--out", "t", "--mode", "full"],
            "unrecognized arguments: --mode full",
        ),
    ):
        assert main(["eval", "--demo", *words]) == 2
        assert said in capsys.readouterr().err
    assert main(["eval", "--minutes", "1", "clip.mp4"]) == 2
    assert "required: --demo" in capsys.readouterr().err
    assert list(here.iterdir()) == []
