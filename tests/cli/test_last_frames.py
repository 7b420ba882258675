"""A video of any origin goes on: `--extend-video`. Tiny random weights stand in for the bundled ones."""

import pytest
import torch
from clips import clip, encoded, probe, shapes
from slow import few
from sounds import sound_file, sound_packets
from tiny_cli import BLUE, RED, SIDE, files_in, render_words

from histream_core.cli.options.weights import demo_source
from histream_core.runs.store.journal import Journal, read_manifest
from histream_core.video.pictures import extend_picture, write_png
from histream_core.video.pixels import to_uint8
from histream_core.video.reading import frames_of, index_video

DEMO = ["demo", RED, "--format", "ffv1", "--extend-video"]


def lossless(folder, count, **options):
    """A clip of moving shapes as large as the demo's video, bit for bit."""
    return clip(folder, count, **({"size": (SIDE, SIDE), "format": "ffv1", "depth": 8, "fps": 24.0} | options))


def latents_of(folder):
    with Journal(folder) as journal:
        return [journal.read(index) for index in range(journal.finished)]


def encode(frames):
    """Latents of frames [F, H, W, 3], by the bundled VAE."""
    weights, _ = demo_source([RED], torch.device("cpu")).load()
    return weights.encode_frames(frames)


def test_it_begins_with_the_last_frames_and_its_run_needs_them_no_more(here, say, stop_at):
    """Seen to fail with the first frames of the source, and with one chunk of two kept."""
    source = lossless(here, 40)
    words = [*DEMO, source, "--seconds", "2", "--run-dir"]
    code, result = say(*words, "whole")
    assert code == 0
    assert "the first 21 frames are the last 21 of" in result["notes"][-1]
    assert (result["frames"], index_video("whole/video.mkv").rate) == (49, 24)
    kept = latents_of("whole")
    assert torch.equal(torch.cat(kept[:2], dim=2), encode(list(frames_of(source))[-21:]))
    go_on = stop_at(5)
    assert say(*words, "cut")[0] == 130
    go_on()
    assert 2 <= len(list((here / "cut" / "chunks").iterdir())) < 5
    source.unlink()
    assert say("resume", "cut")[0] == 0
    assert files_in("cut") == files_in("whole")


def test_a_file_has_the_frames_of_the_run_and_a_run_goes_on_and_elsewhere(here, say):
    source = lossless(here, 30)
    words = [*DEMO, source, "--seconds", "2"]
    say(*words, "--run-dir", "kept")
    say(*words, "--out", "plain.mkv")
    assert all(map(torch.equal, frames_of("plain.mkv"), frames_of("kept/video.mkv")))
    say("branch", "kept", "other", "--from", "3", "--prompt", BLUE)
    say("extend", "kept", "--seconds", "1")
    say(*DEMO, source, "--seconds", "3", "--run-dir", "long")
    one, other, long = map(latents_of, ("kept", "other", "long"))
    assert all(map(torch.equal, one, long))
    assert all(map(torch.equal, one[:3], other[:3]))
    assert not torch.equal(one[3], other[3])


@pytest.mark.parametrize("chunk", [0, 1])
def test_a_branch_takes_what_was_given_wherever_it_begins(here, say, chunk):
    """A retry from the start has the same beginning; seen to fail with chunks that nobody gives."""
    source = lossless(here, 30)
    words = [*DEMO, source, "--seconds", "2"]
    say(*words, "--run-dir", "one")
    assert say("branch", "one", "five", "--from", chunk, "--seed", "5")[0] == 0
    say(*words, "--seed", "5", "--run-dir", "wanted")
    one, five, wanted = map(latents_of, ("one", "five", "wanted"))
    assert all(map(torch.equal, five, wanted))
    assert not torch.equal(one[2], five[2])


def test_a_run_that_was_killed_before_its_beginning_was_stored_says_so(here, say, stop_at):
    go_on = stop_at(5)
    say(*DEMO, lossless(here, 30), "--seconds", "2", "--run-dir", "run")
    go_on()
    for path in sorted((here / "run" / "chunks").iterdir())[1:]:
        path.unlink()
    status, line = say("resume", "run")
    assert (status, "before all that it begins with was stored: begin a new one" in line) == (2, True), line


def test_latents_of_a_run_go_on_as_the_run_itself(here, say, monkeypatch):
    """The law: given chunks are chunks that were made. Seen to fail with steps of the first chunk behind them."""
    mine = ["demo", RED, "--format", "ffv1", "--seconds"]
    say(*mine, "1.3", "--run-dir", "short")
    begun = latents_of("short")
    assert len(begun) == 2
    say("extend", "short", "--seconds", "1.5")
    source = lossless(here, 21, fps=16.0)
    monkeypatch.setattr(
        "histream_core.runs.weights.Weights.encode_frames", lambda weights, frames: torch.cat(begun, dim=2)
    )
    say(*DEMO, source, "--seconds", "2.8", "--run-dir", "given")
    made, wanted = latents_of("given"), latents_of("short")
    assert len(made) == len(wanted) > 3
    assert all(map(torch.equal, made, wanted))
    assert all(map(torch.equal, frames_of("given/video.mkv"), frames_of("short/video.mkv")))


@pytest.mark.parametrize("count", few([40, 12, 1], 1))
def test_the_whole_video_is_itself_and_what_follows(here, say, count):
    """The source comes first, unchanged, with its sound. Seen to fail with shared frames written twice."""
    source = lossless(here, count, sound=sound_file(here / "tone.mka", 0.5))
    new = say(*DEMO, source, "--depth", "8", "--seconds", "2", "--out", "new.mkv")[1]
    code, found = say(*DEMO, source, "--depth", "8", "--seconds", "2", "--whole", "--out", "whole.mkv")
    shared = {1: 1, 12: 9, 40: 21}[count]
    assert (code, new["frames"], found["frames"]) == (0, 49, 49 + count - shared)
    wanted = [*frames_of(source), *list(frames_of("new.mkv"))[shared:]]
    whole = list(frames_of("whole.mkv"))
    assert len(whole) == len(wanted) == found["frames"]
    assert all(map(torch.equal, whole, wanted))
    assert f"the {count} frames of" in found["notes"][-1]
    if count == 40:
        assert sound_packets("whole.mkv") == sound_packets(source)


def test_sound_that_has_no_room_is_left_out_and_told(here, say):
    source = lossless(here, 9, sound=sound_file(here / "tone.wav", 0.3, "pcm_s16le"))
    code, found = say("demo", RED, "--extend-video", source, "--seconds", "1", "--whole", "--out", "a.mp4")
    assert code == 0
    assert "convert" in found["notes"][-1] and "the sound is left out" in found["notes"][-1]


@pytest.mark.parametrize("count", [1, 8])
def test_a_video_shorter_than_a_chunk_gives_its_last_frame_as_a_first_frame(here, say, count):
    source = lossless(here, count)
    write_png(here / "last.png", to_uint8(list(frames_of(source))[-1][None])[0])
    assert (
        "the first frame is the last one of" in say(*DEMO, source, "--seconds", "1", "--out", "a.mkv")[1]["notes"][-1]
    )
    say("demo", RED, "--format", "ffv1", "--seconds", "1.5", "--first-frame", "last.png", "--out", "b.mkv")
    one, two = (list(frames_of(name)) for name in ("a.mkv", "b.mkv"))
    assert len(one) == len(two) == 25
    assert all(map(torch.equal, one, two))


@pytest.mark.parametrize(("count", "shared"), [(9, 9), (20, 9), (21, 21), (22, 21)])
def test_as_many_frames_as_are_whole_chunks(here, say, count, shared):
    found = say(*DEMO, lossless(here, count), "--seconds", "1", "--out", "a.mkv")[1]
    assert f"the first {shared} frames are the last {shared} of" in found["notes"][-1]


def test_size_and_rate_are_those_of_the_video(here, say, weights):
    """A size that is no multiple of 32: its edges are drawn out and cropped again."""
    source = clip(here, 9, size=(48, 36), fps=24000 / 1001)
    words = render_words(weights, "--frames", "13", "--extend-video", source, "--run-dir")
    assert say(*words, "run")[0] == 0
    found = probe("run/video.mp4")
    assert (found.width, found.height, found.num_frames) == (48, 36, 13)
    assert index_video("run/video.mp4").rate == index_video(source).rate
    plan = read_manifest(here / "run").plan
    assert (plan.size, plan.given_frames, plan.first_frame) == ((64, 64), 3, False)
    drawn_out = [extend_picture(frame, (64, 64)) for frame in frames_of(source)]
    weights, _ = demo_source([RED], torch.device("cpu")).load()
    assert torch.equal(latents_of("run")[0], weights.encode_frames(drawn_out))


def test_another_size_is_fitted_and_another_rate_is_taken(here, say, weights):
    source = clip(here, 9, size=(64, 64))
    words = render_words(weights, "--frames", "13", "--extend-video", source, "--size", "64x32", "--fps", "12")
    notes = say(*words, "--fit", "pad", "--out", "a.mp4")[1]["notes"]
    assert any("frames of 64x64 are fitted to 64x32 (pad)" in note for note in notes)
    found = probe("a.mp4")
    assert (found.width, found.height, found.fps) == (64, 32, 12)


def test_what_has_no_window_of_clean_frames_is_refused(here, say):
    lossless(here, 9)
    cases = {
        "a frame that is given has no noisy steps": ["--histories", "each-step"],
        "needs a history for each step": ["--order", "batched"],
        "leave one of them out": ["--first-frame", "clip.mkv"],
        "no first frame to hold": ["--hold-first-frame"],
        "ask for 13 frames or more": ["--seconds", "0.3"],
    }
    for said, more in cases.items():
        status, line = say(*DEMO, "clip.mkv", "--seconds", "1", *more, "--out", "a.mkv")
        assert (status, said in line) == (2, True), line
    assert not (here / "a.mkv").exists()
    assert "leave --whole out, or give --out" in say(*DEMO, "clip.mkv", "--whole", "--run-dir", "run")[1]
    assert "there is no video to write first" in say("demo", RED, "--whole", "--out", "a.mkv")[1]


def test_what_is_no_video_of_an_even_rate_in_sdr_is_refused(here, say):
    (here / "words.mp4").write_text("no video")
    encoded(here / "none.mp4", [])
    encoded(here / "hdr.mp4", range(3), color_trc=16)
    encoded(here / "uneven.mp4", [0, 1, 2, 5, 6])
    cases = {
        "words": "is not a video",
        "none": "",
        "hdr": "is HDR (PQ)",
        "uneven": "constant frame rate",
        "no": "no.mp4",
    }
    for name, said in cases.items():
        status, line = say(*DEMO, f"{name}.mp4", "--seconds", "1", "--out", "a.mkv")
        assert (status, said in line) == (2, True), line


def test_the_video_that_goes_on_is_never_replaced(here, say):
    source = lossless(here, 9)
    before = source.read_bytes()
    status, line = say(*DEMO, source, "--seconds", "1", "--out", source, "--overwrite")
    assert (status, "choose another name for the new one" in line) == (2, True), line
    assert source.read_bytes() == before


def test_shapes_that_are_not_written_are_needed_by_none(here):
    """Only as many frames are encoded as make whole latents."""
    shown = list(shapes(9, SIDE, SIDE))
    assert torch.equal(encode(iter(shown)), encode([*shown, *shown[:2]]))
    with pytest.raises(ValueError, match="no frame to begin with"):
        encode([])
