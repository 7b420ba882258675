"""`histream v2v`: every frame of any clip, its rate, size and sound. Tiny random weights are the bundled ones."""

import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from clips import clip, encoded, probe, shapes
from slow import slow
from sounds import sound_file, sound_packets
from tiny_cli import RED, files_in

from histream_core.cli import main
from histream_core.parallel.link import LostRankError
from histream_core.runs.store.journal import Journal, read_manifest, write_manifest
from histream_core.video.formats import find_format
from histream_core.video.reading import frames_of, index_video
from histream_core.video.writers import open_writer

DEMO = ["--model", "demo", "--prompt", RED]


def check_cut(here, say, go_on, words):
    """A run of 31 frames in three chunks that is stopped has, once resumed, the files of one that was not."""
    assert say(*words, "--run-dir", "cut")[0] == 130
    go_on()
    assert 0 < len(list((here / "cut" / "chunks").iterdir())) < 3
    assert say("resume", "cut")[1]["frames"] == 31
    say(*words, "--run-dir", "whole")
    assert files_in("cut") == files_in("whole")


@pytest.mark.parametrize("count", [1, 2, 5, 33, slow(100)])
def test_every_frame_comes_out(here, say, count):
    """Seen to fail with a first chunk that is cropped, whose frames were waited for in vain."""
    result = say("v2v", clip(here, count), "out.mp4", *DEMO)[1]
    assert result["frames"] == count == probe("out.mp4").num_frames
    assert 0 < result["ttff_s"] <= result["seconds_taken"]


@pytest.mark.parametrize("fps", [12, 24000 / 1001, 30])
def test_the_rate_is_that_of_the_source(here, say, fps):
    source = clip(here, 5, fps=fps)
    assert say("v2v", source, "out.mp4", *DEMO)[0] == 0
    assert index_video("out.mp4").rate == index_video(source).rate


@pytest.mark.parametrize("size", [(32, 64), (48, 36), slow((62, 90))])
def test_the_size_is_that_of_the_source(here, say, size):
    """Portrait, and sizes that are no multiple of 32."""
    say("v2v", clip(here, 2, size=size), "out.mp4", *DEMO)
    found = probe("out.mp4")
    assert (found.width, found.height) == size


def test_a_source_of_ten_bits(here, say):
    say("v2v", clip(here, 2, format="ffv1", depth=10), "out.mkv", *DEMO, "--format", "ffv1", "--depth", "10")
    assert probe("out.mkv").pix_fmt == "gbrp10le"


def test_its_sound_is_kept_unless_it_is_left_out(here, say):
    source = clip(here, 9, sound=sound_file(here / "tone.m4a", 0.5))
    say("v2v", source, "out.mp4", *DEMO)
    assert sound_packets("out.mp4") == sound_packets(source)
    say("v2v", source, "silent.mp4", *DEMO, "--no-sound")
    with pytest.raises(ValueError, match="holds no sound"):
        sound_packets("silent.mp4")


def test_pictures_without_sound_are_made_and_told(here, say):
    source = clip(here, 2, sound=sound_file(here / "tone.m4a", 0.5))
    code, result, *_ = say("v2v", source, "pictures", *DEMO, "--format", "png8")
    assert code == 0
    assert len(list((here / "pictures").glob("*.png"))) == 2
    assert any("holds no sound: that of" in note for note in result["notes"])


@pytest.mark.parametrize("out", [("out.mp4",), ("--run-dir", "run")])
def test_sound_that_does_not_fit_is_left_out_and_told(here, say, out):
    """Seen to fail, in a kept run after its last chunk."""
    source = clip(here, 2, format="ffv1", depth=10, sound=sound_file(here / "tone.wav", 0.5, "pcm_s16le"))
    code, result, *_ = say("v2v", source, *out, *DEMO)
    assert code == 0
    assert any("convert clip.mkv to AAC" in note and "left out" in note for note in result["notes"])


def test_no_noise_is_the_source_again(here, say):
    """The VAE alone comes between them, and no network call is made."""
    result = say("v2v", clip(here, 5), "out.mp4", *DEMO, "--strength", "0")[1]
    assert result["passes"] == {"high": 0, "low": 0}


def test_a_kept_one_is_the_same_and_goes_on_byte_for_byte(here, say, stop_at):
    """Cut in the second of three chunks; motion and VAE stand where they stood."""
    source, words = clip(here, 31), [*DEMO, "--motion", "0.1", "--format", "ffv1"]
    check_cut(here, say, stop_at(6), ["v2v", source, *words])
    say("v2v", source, "out.mkv", *words)
    assert all(map(torch.equal, frames_of("out.mkv"), frames_of(here / "whole" / "video.mkv")))


def test_a_run_whose_ranks_are_lost_goes_on_from_its_source(here, say, monkeypatch):
    """Seen to fail when the source is not opened again."""
    source, lost, write = clip(here, 31), [], Journal.write

    def written(journal, chunk, *rest):
        if chunk and not lost:
            lost.append(chunk)
            raise LostRankError("the connection to another rank broke")
        write(journal, chunk, *rest)

    assert say("v2v", source, *DEMO, "--run-dir", "whole")[0] == 0
    monkeypatch.setattr(Journal, "write", written)
    assert say("v2v", source, *DEMO, "--run-dir", "lost")[0] == 0
    assert lost == [1] and files_in("lost") == files_in("whole")


def test_the_noise_of_each_chunk_is_told(here, say, stop_at):
    """Less where the source moves, all of it where it stands; a run that is resumed tells of all its chunks too.

    Seen to fail where the last chunk alone is told of.
    """
    moving, still = shapes(25, 32, 32), shapes(25, 32, 32)[-1:].expand(32, -1, -1, -1)
    with open_writer(here / "clip.mp4", find_format("h264-mp4"), size=(32, 32), fps=16) as writer:
        writer.write(torch.cat([moving, still]))
    source, words = here / "clip.mp4", [*DEMO, "--motion", "0.1"]
    entries = say("v2v", source, "out.mp4", *words)[1]["entries"]
    assert [entry["frame"] for entry in entries] == [0, 9, 21, 33, 45]
    shares = [entry["share"] for entry in entries]
    assert 0.7 <= min(shares[:2]) < max(shares[:2]) < shares[-1] <= 0.8
    assert [entry["told"] for entry in entries] == shares
    go_on = stop_at(9)
    say("v2v", source, "--run-dir", "cut", *words)
    go_on()
    assert say("resume", "cut")[1]["entries"] == entries
    assert {entry["share"] for entry in say("v2v", source, "even.mp4", *DEMO)[1]["entries"]} == {0.8}


@pytest.mark.parametrize(("lever", "call"), [("last-step", 4), ("clean-anchor", 5)])
def test_kept_keys_of_a_first_step_are_computed_again_as_they_were(here, say, stop_at, lever, call):
    """The only step of each chunk; seen to fail where it is told the level of a still source."""
    source = clip(here, 31)
    words = [*DEMO, "--motion", "0.1", "--strength", "0.3", "--high-keys", lever, "--format", "ffv1"]
    check_cut(here, say, stop_at(call), ["v2v", source, *words])


def test_sinks_give_way_and_a_stopped_run_goes_on_with_them(here, say, stop_at):
    """The whole run is the same byte for byte; without the option it is another. Seen to fail without the option."""
    source, go_on = clip(here, 25), stop_at(14)
    words = ["--preset", "streamdiffusionv2", *DEMO, "--format", "ffv1"]
    assert say("v2v", source, "--run-dir", "cut", *words, "--sinks", "1")[0] == 130
    go_on()
    assert 3 < len(list((here / "cut" / "chunks").iterdir())) < 7
    assert say("resume", "cut")[1]["frames"] == 25
    say("v2v", source, "--run-dir", "whole", *words, "--sinks", "1")
    assert files_in("cut") == files_in("whole")
    say("v2v", source, "--run-dir", "fixed", *words)
    assert files_in("fixed") != files_in("whole")


def test_sinks_that_cannot_give_way_are_refused_in_a_sentence(here, say):
    source = clip(here, 5)
    assert (
        "sinks give way to single frames, and the chunks have 3"
        in say("v2v", source, "x.mp4", *DEMO, "--sinks", "0.5")[1]
    )
    words = ["--preset", "streamdiffusionv2", *DEMO, "--sinks", "2"]
    assert "below a cosine of 2: use a number from -1" in say("v2v", source, "x.mp4", *words)[1]


def test_sinks_are_told_by_plan(say, capsys):
    """Their rule, and the room of one frame's un-rotated keys where the anchor moves."""
    words = ["plan", "--preset", "streamdiffusionv2", "--size", "512x512", "--frames", "121"]
    fixed, found = say(*words)[1], say(*words, "--sinks", "0.5")[1]
    assert (fixed["sinks"], found["sinks"]) == (None, {"threshold": 0.5})
    assert found["kv_bytes"] > fixed["kv_bytes"]
    assert main([*words, "--sinks", "0.5"]) == 0
    assert "sinks: the least alike gives way to a frame below a cosine of 0.5" in capsys.readouterr().out


def test_another_video_is_no_source_of_a_run(here, say, stop_at):
    source = clip(here, 33)
    go_on = stop_at(6)
    say("v2v", source, "--run-dir", "cut", *DEMO)
    go_on()
    moved = source.rename(here / "moved.mp4")
    assert "clip.mp4" in say("resume", "cut")[1]
    clip(here, 32)
    assert "is not the video that the run restyles: give it as --source" in say("resume", "cut")[1]
    assert say("resume", "cut", "--source", moved)[0] == 0


def test_a_strangers_run_chooses_no_file_to_open(here, say, stop_at):
    """Seen to fail without the check: the words of another file would be opened as a video."""
    stop_at(6)
    say("v2v", clip(here, 33), "--run-dir", "cut", *DEMO)
    manifest = read_manifest(here / "cut")
    for path in ("/etc/hostname", "//server/share/clip.mp4", "clip.mp4"):
        write_manifest(here / "cut", replace(manifest, source=dict(manifest.source) | {"video": path}))
        assert "only ordinary files of video are opened for it" in say("resume", "cut")[1]


def test_a_branch_of_another_video_leaves_no_folder(here, say):
    say("v2v", clip(here, 33), "--run-dir", "one", *DEMO)
    other = clip(here, 32)
    assert "is not the video" in say("branch", "one", "two", "--from", "1", "--seed", "5", "--source", other)[1]
    assert not (here / "two").exists()


def test_a_branch_restyles_on_with_another_seed(here, say):
    source = clip(here, 33)
    say("v2v", source, "--run-dir", "one", *DEMO)
    say("branch", "one", "two", "--from", "2", "--seed", "5")
    say("v2v", source, "--run-dir", "five", *DEMO, "--seed", "5")
    one, two = (list(frames_of(here / name / "video.mp4")) for name in ("one", "two"))
    assert all(map(torch.equal, one[:21], two[:21]))
    assert not torch.equal(one[25], two[25])
    assert read_manifest(here / "two").fingerprint["source video"] == index_video(source).digest


@pytest.mark.parametrize(("count", "longer"), [(22, 33), (32, 41)])
def test_a_run_of_any_length_is_made_longer(here, say, count, longer):
    """The chunk that the source cut off becomes whole, also where the cut is inside a latent frame; both ways agree."""
    source = clip(here, count)
    say("v2v", source, "--run-dir", "one", *DEMO)
    assert say("branch", "one", "two", "--seconds", "0.5")[1]["frames"] == longer
    result = say("extend", "one", "--seconds", "0.5")[1]
    assert result["frames"] == longer
    assert f"ends after {count} frames: the last one is held for the rest" in result["notes"][-1]
    one, two = (list(frames_of(here / name / "video.mp4")) for name in ("one", "two"))
    assert len(one) == longer
    assert all(map(torch.equal, one, two))


def test_prompts_change_in_time(here, say):
    """Chunks before a change are those of the run without it."""
    timeline = f"[0:00-0:01] {RED}\n[0:01] a blue square moves up"
    source = clip(here, 33)
    say("v2v", source, "one.mp4", *DEMO)
    say("v2v", source, "two.mp4", "--model", "demo", "--timeline", timeline)
    one, two = (list(frames_of(name)) for name in ("one.mp4", "two.mp4"))
    same = [torch.equal(*pair) for pair in zip(one, two, strict=True)]
    assert all(same[:9])
    assert not all(same)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--strength", "1.5"], "use 0.8, or 0 to 1"),
        (["--strength", "0.1", "--motion", "0.1"], "use a span of 0, or one below the strength"),
        (["--timeline", RED], "put the prompt into the timeline, or leave one out"),
        (["--sound", "clip.mp4", "--no-sound"], "leave one of the two out"),
        (["--told", "0.9"], "use an offset of 0"),
        (["--mode", "none"], 'mode "none" does not exist'),
    ],
)
def test_what_cannot_be_is_refused_first(here, say, more, said):
    status, found = say("v2v", clip(here, 5), "out.mp4", *DEMO, *more)
    assert status == 2
    assert said in found
    assert not (here / "out.mp4").exists()


@pytest.mark.parametrize(("code", "name"), [(16, "PQ"), (18, "HLG")])
def test_a_source_in_hdr_is_refused(here, say, code, name):
    source = encoded(here / "hdr.mp4", range(3), color_trc=code)
    status, found = say("v2v", source, "out.mp4", *DEMO)
    assert status == 2
    assert f"is HDR ({name}): convert it to SDR" in found


def test_a_source_of_uneven_rate_is_refused(here, say):
    status, found = say("v2v", encoded(here / "uneven.mp4", [0, 1, 2, 5, 6]), "out.mp4", *DEMO)
    assert status == 2
    assert "convert it to a constant frame rate" in found


def test_a_source_is_never_replaced_by_its_result(here, say):
    source = clip(here, 5)
    before = source.read_bytes()
    link = here / "other.mp4"
    link.hardlink_to(source)
    for out in (source, link):
        status, found = say("v2v", source, out, *DEMO, "--overwrite")
        assert status == 2
        assert "choose another name for the new one" in found
    assert source.read_bytes() == before


def test_a_source_that_lies_on_its_side_comes_out_upright(here, say):
    """A quarter turn in the header, as telephones write it."""
    source = clip(here, 5, size=(64, 32))
    lying = torch.stack(list(frames_of(source)))
    data = bytearray(source.read_bytes())
    matrix = data.rindex(b"tkhd") + 4 + 40
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    source.write_bytes(data)
    assert torch.equal(next(frames_of(source)), lying[0].rot90(-1, (0, 1)))
    say("v2v", source, "out.mp4", *DEMO)
    found = probe("out.mp4")
    assert (found.num_frames, found.width, found.height) == (5, 32, 64)


def test_a_source_bigger_than_the_memory_or_the_disk_is_refused_before_the_first_step(here, say, stop_at, monkeypatch):
    source, full = clip(here, 5), shutil.disk_usage(here)._replace(free=0)
    stop_at(0)
    with monkeypatch.context() as patch:
        patch.setattr("histream_core.runs.weights.memory_of", lambda device: 0.1)
        for where in (["out.mp4"], ["--run-dir", "run"]):
            status, found = say("v2v", source, *where, *DEMO)
            assert status == 2
            assert "are needed and 0.1 GB are there" in found
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
    for where in (["out.mp4"], ["--run-dir", "run"]):
        status, found = say("v2v", source, *where, *DEMO)
        assert status == 2
        assert "free space, choose another folder" in found
    assert not (here / "out.mp4").exists() and not (here / "run").exists()


def test_what_is_no_video_is_refused(here, say):
    (here / "words.mp4").write_text("no video")
    assert say("v2v", here / "words.mp4", "out.mp4", *DEMO)[0] == 2
    assert "none.mp4 does not exist: check the name" in say("v2v", here / "none.mp4", "out.mp4", *DEMO)[1]
    assert say("v2v", sound_file(here / "tone.m4a", 0.5), "out.mp4", *DEMO)[0] == 2


def test_the_new_video_may_be_named_behind_options(here, say):
    """And is not named twice, nor beside a run's folder, in the words of this verb."""
    source = clip(here, 1)
    result = say("v2v", source, *DEMO, "out.mp4", "--seed", "1")[1]
    assert Path(result["file"]) == here / "out.mp4" and result["seed"] == 1
    said = "--overwrite lets OUT replace a file: give OUT too, or leave it out for a new name"
    assert say("v2v", source, *DEMO, "--overwrite")[1] == f"histream: {said}"
    assert "unrecognized arguments: more.mp4" in say("v2v", source, "out.mp4", *DEMO, "more.mp4")[1]
    for words in ([*DEMO, "run.mp4"], ["run.mp4", *DEMO]):
        assert "leave OUT out, or leave --run-dir out" in say("v2v", source, "--run-dir", "run", *words)[1]
    assert not (here / "run").exists() and not (here / "run.mp4").exists()


def test_what_is_not_said_is_the_presets(here, say):
    """Steps of a plan under the preset of StreamDiffusionV2: two of one grid, or as many as asked for."""
    words = ["--preset", "streamdiffusionv2", *DEMO]
    assert say("v2v", clip(here, 5), "out.mp4", *words)[1]["passes"] == {"high": 2 * 2 + 1, "low": 0}
    found = say("v2v", here / "clip.mp4", "one.mp4", *words, "--steps", "1")[1]
    assert found["passes"] == {"high": 2 * 1 + 1, "low": 0}
    assert "takes 1 to 4 steps" in say("v2v", here / "clip.mp4", "no.mp4", *words, "--steps", "5")[1]


def test_plan_restyles_where_the_weights_were_made_for_it(say):
    found = say("plan", "--preset", "streamdiffusionv2", "--size", "512x512", "--frames", "33")[1]
    assert found["restyle"]["share"] == 0.8
    assert found["passes"][0]["high"] == 3
    assert say("plan", "--size", "512x512", "--frames", "33")[1]["restyle"] is None
