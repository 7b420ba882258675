"""Arguments that nothing can be made of: one sentence, before anything is loaded; and nobody's codes on a terminal."""

import argparse
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from slow import few
from tiny_cli import refusal_of, result_of

from histream_core import demo
from histream_core.cli import VERBS, WAITING, _parser, let_idle_threads_sleep, main
from histream_core.cli.options import weights as weight_options
from histream_core.cli.parsers import Later, evaluate
from histream_core.cli.progress import print_notes
from histream_core.lab.judge.ablations import BASE
from histream_core.video.formats import find_format
from histream_core.video.writers import frame_rate

ROOT = Path(__file__).parents[2]
RENDER = ["render", "--model", "demo"]
HUGE = "9" * 400


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*RENDER, "--fps", "0.001"], "0.001 frames per second: use 16, or 1 to 1000"),
        ([*RENDER, "--fps", "1e300"], "use 16, or 1 to 1000"),
        *((([*RENDER, "--fps", fps], "frames per second: use 16, or 1 to 1000")) for fps in ("0", "-1", "0.4", "1001")),
        *(
            (([*RENDER, "--fps", fps, "--run-dir", "run"], "frames per second: use 16, or 1 to 1000"))
            for fps in ("0", "-1", "0.4", "0.999", "1001")
        ),
        ([*RENDER, "--fps", "nan"], '"nan" is no number'),
        (["demo", ""], "argument PROMPT: it is empty: write words"),
        (["demo", " \t\n"], "argument PROMPT: it is empty"),
        (["demo", "--timeline", ""], "argument --timeline: it is empty"),
        ([*RENDER, "--prompt", ""], "argument --prompt: it is empty"),
        (["v2v", "a.mp4", "--model", "demo", "--prompt", " "], "argument --prompt: it is empty"),
        (["extend", "run", "--seconds", "1", "--prompt", ""], "argument --prompt: it is empty"),
        (["branch", "run", "new", "--prompt", ""], "argument --prompt: it is empty"),
        (["live", "--model", "demo", "--source", "a.mp4", "--prompt", ""], "argument --prompt: it is empty"),
        (["demo", "--out", "a" * 252 + ".mp4"], "is too long for the name of a file: use 247 bytes or fewer"),
        (["demo", "--out", "a" * 300 + ".mp4"], "is too long for the name of a file: use 247 bytes or fewer"),
        (["demo", "--run-dir", "a" * 256], "is too long for the name of a file: use 255 bytes or fewer"),
        (["demo", "--format", "png8", "--out", "a" * 250], "is too long for the name of a file"),
        (["demo", "--sound", "a" * 300], "cannot be read: File name too long"),
        (["demo", "--timeline", "a" * 300], "cannot be read: File name too long"),
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


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437", "cp932"])
def test_a_console_without_the_letters_of_a_name_shows_the_success(here, monkeypatch, encoding):
    """Seen to fail with the console's own errors, after the video was made."""
    shown = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", shown[0])
    monkeypatch.setattr(sys, "stderr", shown[1])
    assert main(["demo", "a \N{FOX FACE} moves", "--seconds", "0.1", "--out", "\N{FOX FACE}é猫.mp4"]) == 0
    assert (here / "\N{FOX FACE}é猫.mp4").is_file()
    shown[0].flush()
    assert rb"\U0001f98a" in shown[0].buffer.getvalue()


COLONS = ["run:1", "file:a.mp4", "concat:a|b.mp4", "a%03d.mp4", "S01:E02.mp4", "http:b.mp4", "pipe:1.mp4", "c:.mp4"]


@pytest.mark.parametrize("name", few(COLONS, 4))
def test_a_name_is_a_name_and_no_address(here, capsys, name):
    """The file is written, kept, and read again. Seen to fail where a library is given the name itself."""
    keep = ["--run-dir"] if name == "run:1" else ["--out"]
    file = Path(result_of(["demo", "--seconds", "0.1", *keep, name], capsys)["file"])
    assert file.relative_to(here.resolve()).parts[0] == name
    made = result_of(["v2v", file.relative_to(here.resolve()), f"new {name}.mp4", "--model", "demo"], capsys)
    assert (Path(made["file"]).name, made["frames"]) == (f"new {name}.mp4", 5)


def parsers_in(parser):
    """A parser, and those of its verbs and forms."""
    yield parser
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for one in [*(one for action in inner for one in action.choices.values()), *parser.forms.values()]:
        yield from parsers_in(one)


def test_what_runs_a_verb_is_there():
    """Verbs name it by words, which nothing else checks. Seen to fail with run_demos."""
    parsers = [one for verb in VERBS for one in parsers_in(_parser(verb))]
    later = {value for parser in parsers for value in parser._defaults.values() if isinstance(value, Later)}
    assert len(later) > len(VERBS) and all(callable(value.find()) for value in later)
    assert evaluate.BASE == BASE == evaluate.ARMS[0]


@pytest.mark.parametrize(
    ("before", "loaded", "after"),
    [
        ({}, False, {"OMP_WAIT_POLICY": "PASSIVE"}),
        ({"OMP_NUM_THREADS": "3"}, False, {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "PASSIVE"}),
        *(({name: "1"}, False, {name: "1"}) for name in WAITING),
        ({}, True, {}),
    ],
    ids=str,
)
def test_idle_threads_sleep_where_the_user_says_nothing(before, loaded, after, monkeypatch):
    """A process with torch, such as ComfyUI's, is left as it is. Seen to fail without each of the two conditions."""
    monkeypatch.setattr(os, "environ", dict(before))
    monkeypatch.setattr(sys, "modules", {"torch": torch} if loaded else {})
    let_idle_threads_sleep()
    assert os.environ == after


def test_the_command_has_said_how_threads_wait_before_torch_is_loaded():
    """Seen to fail with the call behind the parsing of the words, and with `import torch` at the top."""
    code = (
        "import os, sys; sys.path.append(sys.argv[1]); [os.environ.pop(name, None) for name in sys.argv[2:]]\n"
        "from histream_core import cli\n"
        "cli._run = lambda argv: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules) or 0\n"
        "cli.main([])"
    )
    words = [sys.executable, "-c", code, str(ROOT), *WAITING]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.split() == ["PASSIVE", "False"]
