"""`histream live`: a file as a camera, its recording and its numbers. Tiny random weights are the bundled ones."""

import argparse
import json
import re
import socket
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from clips import clip, probe
from tiny_cli import RED, files_in

from histream_core.cli import main
from histream_core.cli.verbs.live import recordings
from histream_core.live.devices import PlayedFile
from histream_core.live.page import Newest
from histream_core.live.player import Player
from histream_core.video.formats import find_format
from histream_core.video.writers import VideoFile

DEMO = ["--model", "demo", "--prompt", RED]
PEM = Path(__file__).parents[1] / "live" / "loopback.pem"


def test_a_file_is_restyled_while_it_plays(here, say):
    status, result = say("live", "--source", clip(here, 24), *DEMO, "--out", "out.mp4", "--policy", "all")
    assert status == 0
    found = probe("out.mp4")
    assert result["frames"] == result["arrived"] == 24 and found.num_frames >= 24
    assert (found.width, found.height, found.fps) == (32, 32, 16)
    assert result["chunks"] == 3 and result["state"] == "ended" and result["prompt"] == RED


def test_a_stream_ends_after_its_seconds(here, say):
    _, result = say("live", "--source", clip(here, 5), *DEMO, "--seconds", "1", "--fps", "12", "--policy", "all")
    assert result["frames"] == 12 and result["ended"] == "1 s are over"


def test_another_size(here, say):
    say("live", "--source", clip(here, 9, size=(96, 64)), *DEMO, "--size", "48x32", "--out", "out.mp4")
    found = probe("out.mp4")
    assert (found.width, found.height) == (48, 32)


def test_a_stream_is_sent_to_an_address(here, say):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{there.getsockname()[1]}"
        _, result = say("live", "--source", clip(here, 9), *DEMO, "--no-page", "--send", address, "--policy", "all")
        there.settimeout(60)
        assert there.recv(2000)[0] == 0x47  # MPEG-TS
    [sent] = result["outputs"]
    assert sent["address"] == address and sent["sent"] + sent["dropped"] == 9 and sent["sent"] > 0


def test_what_goes_wrong_keeps_the_recording(here, say, monkeypatch):
    """It is playable up to there. Seen to fail where it is not finished."""
    ready = Player.chunk_ready

    def fail(self, chunk, *more):
        if chunk == 1:
            raise OSError("the screen is gone")
        ready(self, chunk, *more)

    monkeypatch.setattr(Player, "chunk_ready", fail)
    status, line = say("live", "--source", clip(here, 60), *DEMO, "--out", "out.mp4", "--policy", "all")
    assert status == 2 and "the screen is gone" in line
    assert probe("out.mp4").num_frames >= 9


def test_a_recording_that_cannot_be_written_is_the_last_sentence(here, say, monkeypatch, capsys):
    """After the whole stream. Seen to fail where the command ends as if it were recorded."""
    write, calls = VideoFile.write, []

    def fill(self, frames):
        calls.append(1)
        if len(calls) == 12:
            raise OSError("no space left")
        write(self, frames)

    monkeypatch.setattr(VideoFile, "write", fill)
    assert main(["live", "--source", str(clip(here, 60)), *DEMO, "--out", "out.mp4", "--policy", "all"]) == 2
    said = capsys.readouterr().err
    assert "60 frames in" in said and "no space left" in said.splitlines()[-1] and len(calls) == 12
    assert probe("out.partial.mp4").num_frames > 0


def test_a_recording_without_a_picture_is_not_named(here, capsys, monkeypatch):
    """Its file is not there. Seen to fail where the name is said all the same."""
    monkeypatch.setattr(PlayedFile, "play", lambda self, feed, clock: feed.end("the camera is gone"))
    assert main(["live", "--source", str(clip(here, 9)), *DEMO, "--out", "out.mp4", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["ended"], result["file"], result["recordings"]) == ("the camera is gone", None, [])
    assert "out.mp4" not in files_in(".")


@pytest.mark.parametrize(("out", "names"), [("out.mp4", ["out.mp4", "out-2.mp4", "out-3.mp4"]), (None, [None, None])])
def test_each_recording_is_a_new_file(here, out, names):
    """Names follow --out, or date and time. Seen to fail where the second one takes the name of the first."""
    args = argparse.Namespace(out=out and Path(out), overwrite=False, prompt="a cat", seed=1)
    found = recordings(args, find_format("h264-mp4"), SimpleNamespace(size=(32, 32), fps=16))
    assert found.at_once is (out is not None)
    for _ in names:
        path, writer = found.open_next()
        with writer:
            writer.write(np.zeros((9, 32, 32, 3), np.uint8))
        assert probe(path).num_frames == 9
    made = sorted(files_in("."))
    assert len(made) == len(names)
    assert set(made) == set(names) if out else all(re.fullmatch(r"live-\d{8}-\d{6}(-2)?\.mp4", name) for name in made)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_came_while_weights_were_loaded_is_replaced_by_overwrite_alone(here, overwrite):
    args = argparse.Namespace(out=Path("out.mp4"), overwrite=overwrite, prompt="a cat", seed=1)
    found = recordings(args, find_format("h264-mp4"), SimpleNamespace(size=(32, 32), fps=16))
    args.out.write_bytes(b"a film")
    with nullcontext() if overwrite else pytest.raises(FileExistsError, match=r"out\.mp4"):
        _, writer = found.open_next()
        with writer:
            writer.write(np.zeros((1, 32, 32, 3), np.uint8))
    assert (args.out.read_bytes() == b"a film") is not overwrite


def test_the_page_says_where_it_is(here, capsys):
    assert main(["live", "--source", str(clip(here, 9)), *DEMO]) == 0
    said = capsys.readouterr()
    assert re.search(r"^note: open http://127\.0\.0\.1:\d+/#[\w-]{22}$", said.err, re.MULTILINE)
    assert said.out.startswith("9 frames in ") and "clip.mp4 has ended" in said.out


def test_other_computers_reach_the_page_by_tls_alone(here, say, capsys):
    begin = ["--source", clip(here, 9), *DEMO, "--listen", "127.0.0.1"]
    status, line = say("live", *begin)
    assert status == 2 and "openssl req" in line and "subjectAltName=IP:127.0.0.1" in line
    status, line = say("live", *begin, "--certificate", PEM, "--key", PEM, "--no-page")
    assert status == 2 and "leave one out" in line
    status, line = say("live", "--source", "page", *DEMO, "--certificate", PEM)
    assert status == 2 and "--listen" in line
    capsys.readouterr()
    assert main(["live", *map(str, begin), "--certificate", str(PEM), "--key", str(PEM)]) == 0
    assert re.search(r"^note: open https://127\.0\.0\.1:\d+/#[\w-]{22}$", capsys.readouterr().err, re.MULTILINE)


def test_the_page_is_given_the_source_and_the_restyled_frames(here, say, monkeypatch):
    """Seen to fail where the source is not shown."""
    given = {}
    monkeypatch.setattr(Newest, "__call__", lambda self, frame, _: given.setdefault(self, []).append(frame.shape))
    _, result = say("live", "--source", clip(here, 9), *DEMO, "--policy", "all")
    assert sorted(map(len, given.values())) == [9, result["frames"]]


def test_cues_are_prompts_for_later(here, say):
    _, result = say("live", "--source", clip(here, 9), *DEMO, "--cue", "a blue square", "--cue", RED)
    assert result["cues"] == ["a blue square", RED] and result["prompt"] == RED
    for wrong, why in ((["--cue", RED], "--prompt"), ([*DEMO[2:], "--cue", " "], "a cue is empty")):
        status, line = say("live", "--source", clip(here, 9), *DEMO[:2], *wrong)
        assert status == 2 and why in line


def test_a_page_that_is_the_source_is_not_left_out(here, say):
    status, line = say("live", "--source", "page", "--no-page", *DEMO)
    assert status == 2 and "leave one out" in line


def test_ctrl_c_keeps_the_recording(here, say, stop_at):
    go_on = stop_at(8)
    status, _ = say("live", "--source", clip(here, 60), *DEMO, "--out", "out.mp4", "--policy", "all")
    go_on()
    assert status == 0
    assert 0 < probe("out.mp4").num_frames < 60


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seconds", "0"], "are no stream"),
        (["--fps", "0"], "no video is played at 0"),
        (["--budget", "0"], "no target"),
        (["--out", "out.avi"], "not a name for"),
        (["--steps", "2"], "no list of steps"),
        (["--seed", "-1"], "out of range"),
        (["--send", "rtmp://host/x"], "nothing to send to"),
    ],
)
def test_refusals(here, say, words, said):
    source = clip(here, 5)
    before = files_in(".")
    status, line = say("live", "--source", source, *DEMO, *words)
    assert status == 2 and said in line
    assert files_in(".") == before


def test_a_source_that_is_not_there(here, say):
    status, line = say("live", "--source", "camera:97", *DEMO)
    assert status == 2 and "gives no picture" in line
