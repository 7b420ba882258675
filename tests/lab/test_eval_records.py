"""The folder of an evaluation: read with care, recognised, and never taken from somebody else."""

import json
import os

import numpy as np
import pytest

from histream_core.lab.judge import records
from histream_core.lab.judge.long import Reading
from histream_core.lab.judge.records import Record, Records
from histream_core.plan.presets import find_preset

SETTINGS = {"prompts": 2, "seed": 0, "size": [256, 256], "preset": {"name": "demo"}, "vae": "abc"}
RECORD = Record("full", 0, {"shape": "circle", "colour": None}, 1.0, 0.5, {"shape": 1.0}, {}, 0.1, 0.2)
STRIP = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)


@pytest.fixture
def folder(tmp_path):
    made = Records(tmp_path / "t", SETTINGS)
    made.add(RECORD, STRIP)
    return made.folder


def test_what_was_kept_is_there_when_it_is_opened_again(folder):
    again = Records(folder, SETTINGS | {"teacher": "def"})
    assert again.read() == {"full": {0: RECORD}}
    assert np.array_equal(again.frames("full", 0), STRIP)
    assert np.array_equal(np.load(folder / "strips" / "full-00000-00000.npy"), STRIP)
    assert again.frames("full", 1) is None


def test_lines_of_a_long_video_are_read_too(tmp_path):
    made = Records(tmp_path / "t", SETTINGS)
    reading = Reading("histream", 0, 1, 0.75, None, [0.1, 0.2, 0.3], 1.0, 0.0, True, False)
    made.append(
        reading.__dict__ if hasattr(reading, "__dict__") else {f: getattr(reading, f) for f in reading.__slots__}
    )
    assert made.lines(Reading) == [reading]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("settings.json", b"{}"),
        ("settings.json", b'{"theme": "dark"}'),
        ("settings.json", b"[" * 100_000),
        ("settings.json", b"\xff"),
        ("settings.json", b" " * (2**20 + 1)),
        ("clips.jsonl", b"my clips\n"),
        ("drift.png", b"dear"),
        ("clips.csv", b"dear"),
    ],
)
def test_a_folder_of_something_else_is_refused_and_stays_as_it_is(tmp_path, name, content):
    """Seen to fail where any folder is taken."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises((OSError, ValueError), match=name) as refusal:
        Records(tmp_path, SETTINGS)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 300
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: content}


LINE = json.loads(json.dumps(RECORD.__dict__))


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        "[1]",
        "[" * 100_000,
        "{}",
        json.dumps(LINE | {"number": "0"}),
        json.dumps(LINE | {"number": True}),
        json.dumps(LINE | {"area": None}),
        json.dumps(LINE | {"area": float("nan")}),
        json.dumps(LINE | {"scores": [1]}),
        json.dumps(LINE | {"scores": {"shape": "one"}}),
        json.dumps(LINE | {"more": 1}),
        "9" * 400,
    ],
)
def test_a_damaged_line_is_one_sentence_with_the_file_and_the_line(folder, line):
    with (folder / "clips.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ValueError, match=r"line 2 of .*clips\.jsonl is damaged") as refusal:
        Records(folder, SETTINGS).read()
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "huge", "kind", "pickle", "pipe", "large"])
def test_a_damaged_strip_is_one_sentence_with_its_name(folder, damage, monkeypatch):
    path = folder / "strips" / "full-00000-00000.npy"
    data = path.read_bytes()
    if damage == "pickle":
        np.save(path, np.array([{}], object), allow_pickle=True)
    elif damage == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif damage == "large":
        monkeypatch.setattr(records, "MAX_STRIP", 100)
    else:
        huge = data.replace(b"(2, 4, 4, 3), }      ", b"(2000000, 4, 400, 3),")
        kinds = {"cut": data[:-1], "empty": b"", "text": b"dear", "huge": huge, "kind": data.replace(b"|u1", b"|O8")}
        assert kinds[damage] != data
        path.write_bytes(kinds[damage])
    with pytest.raises((ValueError, OSError), match=r"full-00000-00000\.npy"):
        Records(folder, SETTINGS).frames("full", 0)


def test_nothing_is_written_through_a_link(folder, tmp_path):
    dear = tmp_path / "dear"
    dear.mkdir()
    (dear / "lines").write_text("dear\n")
    (folder / "strips" / "full-00000-00000.npy").unlink()
    (folder / "strips").rmdir()
    (folder / "strips").symlink_to(dear)
    made = Records(folder, SETTINGS)
    with pytest.raises(OSError, match="is a link"):
        made.keep_frames("full", 1, STRIP)
    (folder / "clips.jsonl").unlink()
    (folder / "clips.jsonl").symlink_to(dear / "lines")
    with pytest.raises(OSError, match="is a link"):
        made.append({})
    assert (dear / "lines").read_text() == "dear\n"
    assert os.listdir(dear) == ["lines"]


def test_a_preset_without_its_added_fields_has_the_settings_of_before():
    """A folder from before they were there goes on. Seen to fail with all fields."""
    plain, other = (records.preset_settings(find_preset(name)) for name in ("demo", "streamdiffusionv2"))
    assert list(plain) == [
        "name", "label", "timesteps", "later_timesteps", "fast_timesteps", "shift_low", "shift_high", "chunk_frames",
        "anchor_frames", "local_frames", "trained_tokens", "ntk_low", "ntk_high", "resize", "scale_first_chunk",
        "normalised", "span", "note",
    ]  # fmt: skip
    assert records.ADDED.keys() & other.keys() == {"one_grid", "restyle", "listed_timesteps", "resize"}


def test_a_folder_of_an_earlier_judge_is_refused(folder, tmp_path):
    """Its scores lack names and mean something else. Seen to fail when settings may join whatever they are."""
    with pytest.raises(ValueError, match="scored by an earlier judge, by other rules: give another --out"):
        Records(folder, SETTINGS | {"judge": 2})
    with pytest.raises(ValueError, match="made with judge 2, asked for is 3"):
        Records(Records(tmp_path / "new", SETTINGS | {"judge": 2}).folder, SETTINGS | {"judge": 3})
