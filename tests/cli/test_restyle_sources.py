"""`histream v2v` over the files that there are: codecs, depths, colours, rates, lengths, portrait, sound.

With a strength of 0 and a VAE without weights that keeps blocks of 8x8 pixels, what comes out shows what went in.
"""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from clips import probe
from slow import crossed
from sounds import sound_file, sound_packets
from source_clips import KINDS, check_fields, keep_blocks, write_clip
from tiny_cli import RED, files_in

from histream_core.video.reading import index_video, open_video

DEMO = ["--model", "demo", "--prompt", RED]
SOME = ("h264-bt601", "h265-10", "prores")
RATES = (Fraction(12), Fraction(24000, 1001), Fraction(30))


KILLER = """
import json, os, signal, sys
from forks import Child
from histream_core.cli import main
from histream_core.network.forward import Denoiser

def work(half, words):
    calls, denoise = iter(range(half)), Denoiser.__call__
    def killed(self, *inputs):
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return denoise(self, *inputs)
    Denoiser.__call__ = killed
    return main(words)

for half, words in json.load(sys.stdin):
    assert Child(lambda say: work(half, words)).wait() == -signal.SIGKILL, words
"""
"""A process that forks one for each run, and kills it at a network call; this one has threads and cannot fork runs."""


@pytest.fixture
def blocks(monkeypatch):
    keep_blocks(monkeypatch)


def colour_of(path):
    """Primaries, transfer characteristics, matrix and range, as tagged in a file."""
    with open_video(path) as container:
        context = container.streams.video[0].codec_context
        return context.color_primaries, context.color_trc, context.colorspace, context.color_range


@pytest.mark.parametrize(("name", "count", "fps"), crossed(KINDS, [1, 2, 5, 33, 100], RATES))
def test_what_comes_out_is_what_went_in(here, say, blocks, name, count, fps):
    """Frames, size, rate, sound, and colours: in BT.709 and limited range, whatever those of the source are.

    Half of the clips are portrait by a quarter turn.
    """
    turned = bool(count % 2) != (fps == 30)
    size, sound = (32, 64) if turned else (64, 32), sound_file(here / "tone.m4a", count / float(fps))
    source = write_clip(here, KINDS[name], count, size=size, fps=fps, turned=turned, sound=sound)
    result = say("v2v", source, "out.mp4", *DEMO, "--strength", "0")[1]
    found = probe("out.mp4")
    assert (result["frames"], found.num_frames, found.width, found.height) == (count, count, *size)
    assert index_video("out.mp4").rate == fps == index_video(source).rate
    assert sound_packets("out.mp4") == sound_packets(source)
    assert colour_of("out.mp4") == (1, 1, 1, 1)
    check_fields("out.mp4", count)


def cut_clip(folder, name, count):
    """A clip for a run that is cut: upright by a quarter turn, with sound."""
    sound = sound_file(folder / "tone.m4a", count / 24)
    return write_clip(folder, KINDS[name], count, size=(32, 64), fps=RATES[1], turned=True, sound=sound)


def half_of(result):
    """Half of a run's network calls."""
    return sum(result["passes"].values()) // 2


@pytest.mark.parametrize("name", ["h264-bt601", "prores"])
def test_one_that_is_stopped_at_half_ends_with_the_same_bytes(here, say, stop_at, name):
    words = ["v2v", cut_clip(here, name, 33), *DEMO, "--motion", "0.1", "--run-dir"]
    go_on = stop_at(half_of(say(*words, "whole")[1]))
    assert say(*words, "cut")[0] == 130
    go_on()
    assert say("resume", "cut")[1]["frames"] == 33
    assert files_in("cut") == files_in("whole")


@pytest.mark.slow
@pytest.mark.parametrize(("count", "names"), [(5, KINDS), *((count, SOME) for count in (1, 2, 33, 100))])
def test_those_that_are_killed_at_half_end_with_the_same_bytes(tmp_path, say, weights, count, names):
    """SIGKILL at the middle one of the network calls, with motion, sound and a turn."""
    files = [("--model", "wan"), ("--vae", "vae"), ("--embeds", "embeds")]
    options = [word for option, name in files for word in (option, str(weights / f"{name}.safetensors"))]
    cells = []
    for name in names:
        folder = tmp_path / name
        folder.mkdir()
        words = ["v2v", str(cut_clip(folder, name, count)), *options, "--device", "cpu", "--motion", "0.1", "--run-dir"]
        cells.append((half_of(say(*words, folder / "whole")[1]), [*words, str(folder / "cut")]))
    places = map(str, (Path(__file__).parents[2], Path(__file__).parents[1]))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    subprocess.run([sys.executable, "-c", KILLER], input=json.dumps(cells), text=True, env=environment, check=True)
    for name in names:
        cut, whole = tmp_path / name / "cut", tmp_path / name / "whole"
        assert not (cut / "video.mp4").exists()
        assert say("resume", cut)[1]["frames"] == count
        assert files_in(cut) == files_in(whole)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920)])
def test_full_hd_goes_through_1088_and_back(here, say, blocks, size):
    """Its edges are drawn out and cropped again, at the centre: the fields stay where they were."""
    source = write_clip(here, KINDS["h264-bt601"], 5, size=size)
    result = say("v2v", source, "out.mp4", *DEMO, "--strength", "0")[1]
    found = probe("out.mp4")
    assert (result["frames"], found.num_frames, found.width, found.height) == (5, 5, *size)
    check_fields("out.mp4", 5)
