"""Arguments that nothing can be made of: one sentence, before anything is loaded; and nobody's codes on a terminal."""

import json

import pytest
from tiny_cli import refusal_of, result_of

from histream_core import demo
from histream_core.cli import main
from histream_core.cli.options import weights as weight_options
from histream_core.cli.progress import print_notes
from histream_core.video.formats import find_format
from histream_core.video.writers import frame_rate

RENDER = ["render", "--model", "demo"]
HUGE = "9" * 400


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*RENDER, "--fps", "0.001"], "0.001 frames per second: use 16, or 1 to 1000"),
        ([*RENDER, "--fps", "1e300"], "use 16, or 1 to 1000"),
        ([*RENDER, "--fps", "nan"], '"nan" is no number'),
        ([*RENDER, "--fps", "1000", "--format", "av1-mkv"], "1 to 240"),
        ([*RENDER, "--anchor-match", "inf"], '"inf" is no number'),
        ([*RENDER, "--frames", HUGE], "more than 20 digits"),
        ([*RENDER, "--frames", "ten"], '"ten" is no whole number: write it like 81'),
        ([*RENDER, "--size", "99999999x99999999"], "is not WIDTHxHEIGHT"),
        ([*RENDER, "--seed", HUGE], "more than 20 digits"),
        ([*RENDER, "--seed", str(2**64)], "use 0 to 18446744073709551615"),
        (["demo", "--seconds=-inf"], '"-inf" is no number'),
        (["demo", "--device", "meta"], 'device "meta" cannot be used here: use --device cpu or auto'),
        (["demo", "--device", "privateuseone"], "use --device cpu or auto"),
        (["demo", "--device", f"cuda:{HUGE}"], "use --device cpu or auto"),
        (["plan", "--vram", "inf"], '"inf" is no number'),
        (["sheet", "--model", "demo", "--moments", "1000000000"], "at most 100"),
        (["extend", "run", "--seconds", "nan"], '"nan" is no number'),
        (["eval", "--demo", "--prompts", "1000000000"], "use 2 to 100000"),
        (["eval", "--demo", "--minutes", "inf", "--out", "t"], '"inf" is no number'),
    ],
)
def test_what_cannot_be_is_one_sentence_before_anything_is_loaded(here, capsys, monkeypatch, words, said):
    monkeypatch.setattr(demo, "load_transformer", lambda *_: pytest.fail("the weights were loaded"))
    line = refusal_of(words, capsys)
    assert said in line
    assert len(line) < 300
    assert not list(here.iterdir())


def test_a_device_with_a_number_that_has_none_is_the_device():
    assert weight_options.pick_device("cpu:7").index is None


@pytest.mark.parametrize(("name", "fps"), [("av1-mkv", 240), ("h264-mp4", 1000), ("h264-mp4", 1)])
def test_the_bounds_of_a_rate_are_those_that_can_be_written(tmp_path, name, fps):
    """Seen to fail with 1000 for AV1."""
    import numpy as np

    from histream_core.video.writers import open_writer

    known = find_format(name)
    with open_writer(tmp_path / f"a{known.suffix}", known, size=(64, 64), fps=fps) as writer:
        writer.write(np.zeros((2, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="1 to"):
        frame_rate(fps / 2 if fps == 1 else fps + 1, known)


CODE = "\x1b]0;owned\x07\x1b[2J\u202e"


def test_no_code_of_a_stranger_reaches_the_terminal(here, capsys):
    """In an error, in a note, in a result; JSON escapes them. Seen to fail without `printable` at each place."""
    assert main(["demo", CODE, "--seconds", "0.1", "--out", f"{CODE}.mp4"]) == 0
    said = capsys.readouterr()
    assert main(["resume", CODE]) == 2
    failed = capsys.readouterr()
    print_notes([CODE, "one\nnote: forged"])
    noted = capsys.readouterr()
    assert noted.err.count("\n") == 2
    for text in (said.out, said.err, failed.err, noted.err):
        assert "owned" in text
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
    result = result_of(["demo", CODE, "--seconds", "0.1", "--out", "a.mp4"], capsys)
    assert result["prompt"] == CODE
    assert CODE not in json.dumps(result)
