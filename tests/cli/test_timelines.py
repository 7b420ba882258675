"""Timelines and first frames by the command line, kept or not. Tiny random weights stand in for the bundled ones."""

import argparse
import json
import os

import av
import pytest
import torch
from clips import read_frames
from slow import few, slow
from tiny_cli import BLUE, RED, SIDE, files_in

from histream_core.cli.options.timelines import cues_of
from histream_core.demo import load_vae
from histream_core.stream.timeline import Cue
from histream_core.vae.decode import StreamingDecoder
from histream_core.vae.encode import encode_picture, to_pixels
from histream_core.video.pictures import fit_picture, read_picture

FIVE = ["--seconds", "3.3"]
"""Five chunks, from frames 0, 9, 21, 33 and 45 of 53."""

TIMELINE = f"[0:00-0:01.2] {RED}\n[0:01.2, blend 2] {BLUE}\n[0:02.8, cut, new anchor] {RED}"


@pytest.fixture
def picture(here):
    """A file of a picture of the demo's size, and its values."""
    colours = torch.rand(SIDE // 8, SIDE // 8, 3, generator=torch.Generator().manual_seed(3))
    values = (colours.repeat_interleave(8, 0).repeat_interleave(8, 1) * 255).to(torch.uint8)
    return write_png(here / "first.png", values)


def write_png(path, values):
    with av.open(path, "w", format="image2") as container:
        stream = container.add_stream("png")
        stream.height, stream.width, stream.pix_fmt = *values.shape[:2], "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(values.numpy(), format="rgb24")))
        container.mux(stream.encode())
    return path


def test_a_timeline_is_told_and_its_cuts_are_in_the_list_of_the_run(here, say):
    (here / "story.txt").write_text(TIMELINE)
    status, result = say("demo", "--timeline", "story.txt", *FIVE, "--run-dir", "kept")
    assert status == 0
    assert result["notes"][-3:] == [
        f'"{RED}" begins at frame 0 (0:00, chunk 0)',
        f'"{BLUE}" begins at frame 21 (0:01.312, chunk 2), the nearest to 0:01.2 (frame 19.2)',
        f'"{RED}" begins at frame 45 (0:02.812, chunk 4), the nearest to 0:02.8 (frame 44.8)',
    ]
    cuts = json.loads((here / "kept" / "cuts.json").read_text())["sections"]
    assert [(cut["prompt"], cut["start"]) for cut in cuts] == [(RED, 0), (BLUE, 21), (RED, 45)]


def test_a_timeline_is_read_from_a_file_of_an_editor_and_from_no_pipe(here):
    """Seen to fail with a mark at the beginning, and to wait for good with a pipe."""
    (here / "t.txt").write_bytes("\ufeff[0:00] a cat\r\n".encode())
    os.mkfifo(here / "pipe")
    for text in ("t.txt", "\ufeff[0:00] a cat"):
        assert cues_of(argparse.Namespace(timeline=text, prompt=None), None) == (Cue(0, "a cat"),)
    with pytest.raises(OSError, match="pipe is a pipe: give an ordinary file"):
        cues_of(argparse.Namespace(timeline="pipe", prompt=None), None)
    (here / "long.txt").write_bytes(b"[0:00] " + b"a" * 2**20)
    with pytest.raises(OSError, match="has 1048583 bytes, and at most 1048576 are read"):
        cues_of(argparse.Namespace(timeline="long.txt", prompt=None), None)


def test_a_timeline_gives_the_same_frames_with_and_without_a_folder_and_after_a_stop(here, say, stop_at):
    """Seen to fail with a blend of which a resumed run knows the first text alone."""
    say("demo", "--timeline", TIMELINE, *FIVE, "--run-dir", "whole")
    go_on = stop_at(20)
    assert say("demo", "--timeline", TIMELINE, *FIVE, "--run-dir", "cut")[0] == 130
    go_on()
    assert say("resume", "cut")[0] == 0
    assert files_in("cut") == files_in("whole")
    _, plain = say("demo", "--timeline", TIMELINE, *FIVE, "--format", "ffv1", "--out", "plain.mkv")
    _, kept = say("branch", "whole", "lossless", "--format", "ffv1")
    frames = [list(read_frames(result["file"])) for result in (plain, kept)]
    assert len(frames[0]) == 53
    assert all((one == other).all() for one, other in zip(*frames, strict=True))


@pytest.mark.parametrize("verb", ["extend", slow("branch")])
def test_a_run_goes_on_with_a_timeline_of_its_own(here, say, verb):
    """Its times count from the first new chunk, and its first prompt can be blended. Seen to fail without a blend."""
    say("demo", RED, "--seconds", "2", "--run-dir", "first")
    more = f"[0:00, blend 2] {BLUE}\n[0:01.5, scene] {RED}"
    words = ("extend", "first", "--seconds", "3") if verb == "extend" else ("branch", "first", "new", "--seconds", "3")
    status, result = say(*words, "--timeline", more)
    assert status == 0
    assert result["notes"] == [
        f'"{BLUE}" begins at frame 33 (0:02.062, chunk 3)',
        f'"{RED}" begins at frame 57 (0:03.562, chunk 5)',
    ]
    whole = f"[0:00] {RED}\n[0:02.0625, blend 2] {BLUE}\n[0:03.5625, scene] {RED}"
    say("demo", "--timeline", whole, "--seconds", "5.0625", "--run-dir", "whole")
    assert files_in(result["run"]).keys() >= files_in("whole").keys() - {"manifest.json"}
    assert {n: d for n, d in files_in("whole").items() if n != "manifest.json"} == {
        n: d for n, d in files_in(result["run"]).items() if n != "manifest.json"
    }


@pytest.mark.parametrize("hold", [[], slow(["--hold-first-frame"])], ids=["one frame", "held"])
def test_a_first_frame_goes_through_the_vae_into_the_video_and_its_run_needs_it_no_more(
    here,
    say,
    stop_at,
    picture,
    hold,
):
    """Seen to fail with a first chunk that is denoised; after a stop, with one that nobody gives."""
    words = ("demo", RED, "--seconds", "2", "--first-frame", picture, *hold)
    say(*words, "--run-dir", "whole", "--format", "ffv1")
    go_on = stop_at(1)
    assert say(*words, "--run-dir", "cut", "--format", "ffv1")[0] == 130
    go_on()
    picture.unlink()
    assert say("resume", "cut")[0] == 0
    assert files_in("cut") == files_in("whole")
    assert len(list((here / "cut" / "chunks").iterdir())) == (3 if hold else 4)


def test_a_first_frame_is_the_first_frame(here, say, picture):
    _, result = say("demo", RED, "--seconds", "1", "--first-frame", picture, "--format", "ffv1", "--out", "a.mkv")
    shown = torch.from_numpy(next(iter(read_frames(result["file"])))).float() / 255
    vae = load_vae()
    latent = encode_picture(vae, read_picture(picture))
    pixels = StreamingDecoder(vae).decode(latent)
    torch.testing.assert_close(to_pixels(shown[None]), pixels.clamp(-1, 1), atol=0.02, rtol=0)


@pytest.mark.parametrize("words", few([[], ["--fit", "crop"], ["--fit", "stretch"]], 1), ids=str)
def test_a_first_frame_of_another_shape_is_fitted_as_it_was_asked_for(here, say, words):
    """Green in the middle, red at both ends, which a crop leaves out."""
    wide = torch.zeros(SIDE, 2 * SIDE, 3, dtype=torch.uint8)
    wide[..., 0] = 255
    wide[:, SIDE // 2 : -SIDE // 2] = torch.tensor([0, 255, 0], dtype=torch.uint8)
    fitted = fit_picture(wide.float() / 255, (SIDE, SIDE), words[-1] if words else "crop")
    assert (fitted[:, 0, 0].max() > 0.9) == (words[-1:] == ["stretch"])
    values = (fitted * 255).round().to(torch.uint8)
    write_png(here / "wide.png", wide)
    write_png(here / "fitted.png", values)
    shown = []
    for name in ("wide.png", "fitted.png"):
        more = words if name == "wide.png" else []
        _, result = say("demo", RED, "--seconds", "1", "--first-frame", name, *more, "--out", f"{name}.mp4")
        shown.append(list(read_frames(result["file"])))
        fits = [note for note in result["notes"] if "is fitted to" in note]
        assert len(fits) == (name == "wide.png")
    assert abs(shown[0][0].astype(int) - shown[1][0]).max() <= 2


REFUSED = {
    "two kinds of prompt": ([RED, "--timeline", TIMELINE], "put the prompt into the timeline, or leave one out"),
    "no such file": (["--timeline", "nothing.txt"], "nothing.txt"),
    "behind the end": (["--timeline", f"[0:00] {RED}\n[0:30] {BLUE}"], "ask for 481 frames or more"),
    "a way to fit": (["--first-frame", "wide.png", "--fit", "zoom"], "choose from"),
    "fitted, but what": (["--fit", "pad"], "there is no first frame to fit: give --first-frame too"),
    "no picture": (["--first-frame", "story.txt"], "story.txt is no picture: give a PNG or JPEG file"),
    "no such picture": (["--first-frame", "nothing.png"], "nothing.png"),
    "held, but what": (["--hold-first-frame"], "there is no first frame to hold: give --first-frame too"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("place", [["--run-dir", "run"], ["--out", "clip.mp4"]], ids=["kept", "plain"])
def test_what_cannot_be_shown_is_refused_before_anything_is_loaded(here, say, monkeypatch, case, place):
    (here / "story.txt").write_text("[0:00] a cat")
    write_png(here / "wide.png", torch.zeros(32, 64, 3, dtype=torch.uint8))
    monkeypatch.setattr("histream_core.demo.load_transformer", None)
    words, said = REFUSED[case]
    status, line = say("demo", *words, *place)
    assert (status, said in line) == (2, True), line
    assert sorted(path.name for path in here.iterdir() if path.suffix != ".safetensors") == ["story.txt", "wide.png"]
