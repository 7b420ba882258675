"""`histream v2v` over the files that there are: codecs, depths, colours, rates, lengths, portrait, sound.

With a strength of 0 and a VAE without weights that keeps blocks of 8x8 pixels, what comes out shows what went in.
"""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import probe
from PIL import Image
from safetensors.torch import save_file
from slow import crossed
from sounds import sound_file, sound_packets
from source_clips import KINDS, check_fields, fields, keep_blocks, write_clip
from tiny_cli import RED, files_in
from tiny_vae import make_taehv

from histream_core.runs.restyle import SourceVideo
from histream_core.video.reading import index_video, open_video

DEMO = ["--model", "demo", "--prompt", RED]
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
def test_those_that_are_killed_at_half_end_with_the_same_bytes(tmp_path, say, weights):
    """SIGKILL at the middle network call, with motion, sound and a turn, for kinds and lengths that the seed draws."""
    files = [("--model", "wan"), ("--vae", "vae"), ("--embeds", "embeds")]
    options = [word for option, name in files for word in (option, str(weights / f"{name}.safetensors"))]
    cells = {}
    drawn = random.Random(os.environ.get("HISTREAM_FUZZ_SEED"))
    for name, count in zip(drawn.sample([*KINDS], 5), (5, *drawn.sample([1, 2, 5, 33, 60], 4)), strict=True):
        folder = tmp_path / f"{name}-{count}"
        folder.mkdir()
        words = ["v2v", str(cut_clip(folder, name, count)), *options, "--device", "cpu", "--motion", "0.1", "--run-dir"]
        half = half_of(say(*words, folder / "whole")[1])
        cells[folder] = half, [*words, str(folder / "cut")], count
    killed = json.dumps([cell[:2] for cell in cells.values()])
    places = map(str, (Path(__file__).parents[2], Path(__file__).parents[1]))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    subprocess.run([sys.executable, "-c", KILLER], input=killed, text=True, env=environment, check=True)
    for folder, (_, _, count) in cells.items():
        assert not (folder / "cut" / "video.mp4").exists()
        assert say("resume", folder / "cut")[1]["frames"] == count
        assert files_in(folder / "cut") == files_in(folder / "whole")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_picture_is_a_video_of_one_frame(here, say, blocks, suffix):
    picture = Image.fromarray((fields(0, 1, 32, 64) * 255).round().astype(np.uint8))
    picture.save(here / f"picture{suffix}", quality=100)
    say("v2v", f"picture{suffix}", "out.mp4", *DEMO, "--strength", "0")
    assert probe("out.mp4").num_frames == 1
    check_fields("out.mp4", 1, near=0.06)


def refused_for(say, source):
    """The sentence that refuses a source, of which no file is left, nor a run."""
    for where in (["out.mp4"], ["--run-dir", "run"]):
        status, said = say("v2v", source, *where, *DEMO)
        assert status == 2
    assert not Path("out.mp4").exists() and not Path("run").exists()
    return said


@pytest.mark.parametrize(("name", "codec"), [("tone.m4a", "aac"), ("tone.wav", "pcm_s16le")])
def test_a_sound_is_refused(here, say, name, codec):
    assert f"{name} has no picture in it" in refused_for(say, sound_file(here / name, 0.5, codec))


def test_a_file_without_a_frame_is_refused(here, say):
    import av

    with av.open("none.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    assert "has no picture in it" in refused_for(say, "none.mp4")


@pytest.mark.parametrize("part", [0, 0.1, 0.9])
def test_a_file_that_ends_early_is_refused(here, say, part):
    """An MP4 has its table at the end."""
    source = write_clip(here, KINDS["h264"], 9)
    source.write_bytes(source.read_bytes()[: round(part * source.stat().st_size)])
    assert "is not a video that can be read" in refused_for(say, source)


def test_a_file_with_garbage_for_a_frame_is_refused_and_what_was_made_stays(here, say):
    """It is noticed when that frame is read: chunks before it stay in a run, a file that was begun does not."""
    source = write_clip(here, KINDS["prores"], 33)
    with open_video(source) as container:
        at = [packet.pos for packet in container.demux(video=0) if packet.size][25]
    data = bytearray(source.read_bytes())
    data[at : at + 200] = bytes(200)
    source.write_bytes(data)
    assert "is damaged or incomplete" in say("v2v", source, "out.mp4", *DEMO)[1]
    assert [path.name for path in here.iterdir() if "out" in path.name] == []
    assert "is damaged or incomplete" in say("v2v", source, "--run-dir", "run", *DEMO)[1]
    assert len(list((here / "run" / "chunks").glob("*.safetensors"))) == 2


def test_frames_that_are_listed_and_missing_are_not_made_up(here, say):
    """Seen to fail where the last frame is repeated in the place of those that the decoder does not give."""
    import av

    with av.open(str(write_clip(here, KINDS["prores"], 9))) as source, av.open("short.mkv", "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    index = index_video("short.mkv")
    video = SourceVideo(Path("short.mkv"), replace(index, times=(*index.times, *range(200, 203))), (64, 32))
    with pytest.raises(ValueError, match="damaged or incomplete: it lists 12 frames, and 9 can be decoded"):
        list(video.frames())


def test_a_vae_that_cannot_encode_is_refused_before_weights_are_loaded(here, say, weights, monkeypatch):
    monkeypatch.setattr("histream_core.cli.options.weights.load_weights", lambda *_, **__: pytest.fail("loaded"))
    save_file(make_taehv().state_dict(), here / "small.safetensors")
    words = ["--model", weights / "wan.safetensors", "--embeds", weights / "embeds.safetensors"]
    words += ["--vae", here / "small.safetensors", "--device", "cpu"]
    status, said = say("v2v", write_clip(here, KINDS["h264"], 5), "out.mp4", *words)
    assert status == 2
    assert "TAEHV, which is here for decoding alone: a picture or a video is encoded by the Wan 2.1 VAE" in said


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920)])
def test_full_hd_goes_through_1088_and_back(here, say, blocks, size):
    """Its edges are drawn out and cropped again, at the centre: the fields stay where they were."""
    source = write_clip(here, KINDS["h264-bt601"], 5, size=size)
    result = say("v2v", source, "out.mp4", *DEMO, "--strength", "0")[1]
    found = probe("out.mp4")
    assert (result["frames"], found.num_frames, found.width, found.height) == (5, 5, *size)
    check_fields("out.mp4", 5)
