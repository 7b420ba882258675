"""No verb replaces a file unasked, and runs at the same time never share a name."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from clips import probe
from forks import Child
from slow import slow
from tiny_cli import refusal_of, result_of

from histream_core.cli import main
from histream_core.cli.verbs import videos
from histream_core.cli.verbs.videos import new_names
from histream_core.files import disk
from histream_core.files.disk import (
    File,
    MeanwhileError,
    NewName,
    TakenError,
    check_new,
    claim,
    partial_name,
    under_new_name,
    whole_file,
    write_whole,
)
from histream_core.runs import render as runs_render
from histream_core.video.formats import find_format
from histream_core.video.writers import open_writer

SHORT = ["--seconds", "0.1"]
EVAL = ["eval", "--demo", "--prompts", "2", "--frames", "9"]


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    """Refusals come before the weights are loaded."""
    monkeypatch.setattr(videos, "_load", lambda *_: pytest.fail("the weights were loaded"))


@pytest.mark.parametrize("name", ["mine.mp4", "mine.partial.mp4"])
def test_a_file_of_the_user_is_refused_at_the_door_and_replaced_when_asked(here, capsys, name, nothing_is_loaded):
    """The half-written file of an interrupted run too. Seen to fail without `check_new` in `check_output`."""
    (here / name).write_bytes(b"dear")
    assert f"{name} exists: choose another name, or replace it with --overwrite" in refusal_of(
        ["demo", *SHORT, "--out", "mine.mp4"], capsys
    )
    assert (here / name).read_bytes() == b"dear"
    assert os.listdir(here) == [name]


def test_overwrite_replaces_the_file(here, capsys):
    (here / "mine.mp4").write_bytes(b"dear")
    (here / "mine.partial.mp4").write_bytes(b"old")
    result_of(["demo", *SHORT, "--out", "mine.mp4", "--overwrite"], capsys)
    assert probe("mine.mp4").num_frames == 5
    assert os.listdir(here) == ["mine.mp4"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["demo", "--overwrite"], "give --out too"),
        (["demo", "--overwrite", "--run-dir", "run"], "never replaced"),
        (["demo", "--out", "folder.mp4", "--overwrite"], "folder.mp4 is a folder"),
        (["demo", "--format", "png8", "--out", "full"], "the folder full is not empty"),
        (["demo", "--format", "png8", "--out", "full", "--overwrite"], "the folder full is not empty"),
        (["demo", "--format", "exr", "--out", "a.csv"], "a.csv is no folder"),
        (["sheet", "--model", "demo", "--out", "a.png"], "a.png exists"),
        (["drift", "missing.mp4", "--plot", "a.png"], "a.png exists"),
        ([*EVAL, "--sheet", "a.png"], "a.png exists"),
        ([*EVAL, "--csv", "a.csv"], "a.csv exists"),
        ([*EVAL, "--plot", "a.svg"], "a.svg exists"),
        (["bench", "--meta", "--out", "a.json"], "a.json exists"),
        (["bench", "--plots", "."], "cost-size.svg exists"),
    ],
)
def test_no_verb_replaces_a_file_unasked(here, capsys, words, said, nothing_is_loaded):
    """Seen to fail for each verb without its check."""
    (here / "full").mkdir()
    (here / "folder.mp4").mkdir()
    for name in ("full/dear.txt", "a.png", "a.csv", "a.svg", "a.json", "cost-size.svg"):
        (here / name).write_bytes(b"dear")
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert said in refusal_of(words, capsys)
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_an_empty_folder_takes_pictures(here, capsys):
    (here / "shot").mkdir()
    result_of(["demo", *SHORT, "--format", "png8", "--out", "shot"], capsys)
    assert sorted(os.listdir("shot")) == [f"shot.{n:05d}.png" for n in range(5)]


@pytest.mark.parametrize("format", ["h264-mp4", "png8"])
def test_a_demo_that_begins_during_another_takes_a_name_of_its_own(here, capsys, monkeypatch, format):
    """One begins while the first samples, one between its look at the names and its first frame.

    Seen to fail with a name that is chosen once, and with a partial file that is not created exclusively.
    """
    words, suffix = ["demo", *SHORT, "--format", format], find_format(format).suffix if format != "png8" else ""
    frames, notes = runs_render.stream_frames, videos.print_notes

    def begin_another(then):
        def run(*args):
            monkeypatch.setattr(runs_render, "stream_frames", frames)
            monkeypatch.setattr(videos, "print_notes", notes)
            assert main(words) == 0
            return then(*args)

        return run

    monkeypatch.setattr(runs_render, "stream_frames", begin_another(frames))
    assert result_of(words, capsys, last=True)["file"] == str(here / f"histream-demo{suffix}")
    monkeypatch.setattr(videos, "print_notes", begin_another(notes))
    assert result_of(words, capsys, last=True)["file"] == str(here / f"histream-demo-4{suffix}")
    names = [f"histream-demo{number}{suffix}" for number in ("", "-2", "-3", "-4")]
    assert sorted(os.listdir(here)) == sorted(names)
    whole = [(here / name).read_bytes() for name in names] if suffix else [sorted(os.listdir(name)) for name in names]
    assert suffix == "" or len(set(whole)) == 1
    assert suffix or all(len(pictures) == 5 for pictures in whole)


def test_the_kept_part_of_a_stopped_demo_is_never_replaced(here, capsys, monkeypatch):
    """Seen to fail where only the finished name is looked for."""
    frames = runs_render.stream_frames

    def stop(*args):
        yield next(frames(*args))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs_render, "stream_frames", stop)
        assert main(["demo", "--seconds", "1"]) == 130
    assert "9 finished frames are in histream-demo.partial.mp4" in capsys.readouterr().err
    kept = (here / "histream-demo.partial.mp4").read_bytes()
    assert result_of(["demo", *SHORT], capsys)["file"] == str(here / "histream-demo-2.mp4")
    assert (here / "histream-demo.partial.mp4").read_bytes() == kept


def test_twenty_at_once_get_a_name_each(here):
    """Threads here, processes below. Seen to fail with `File(partial_name(path))` in `claim`."""

    def make(_):
        def write(path):
            with whole_file(path, overwrite=False) as file:
                file.write(str(path).encode())
            return path

        return under_new_name(new_names("clip", ".mp4"), write)

    with ThreadPoolExecutor(20) as threads:
        made = list(threads.map(make, range(200)))
    assert len(set(made)) == 200
    assert all(path.read_text() == str(path) for path in made)
    assert len(os.listdir(here)) == 200


@pytest.mark.parametrize("count", [4, slow(20)])
def test_demos_at_once_get_a_video_each(here, count):
    demos = [Child(lambda _: main(["demo", *SHORT])) for _ in range(count)]
    assert [demo.wait() for demo in demos] == [0] * count
    assert len(os.listdir(here)) == count
    assert {probe(name).num_frames for name in os.listdir(here)} == {5}


def test_of_many_folders_of_pictures_at_once_one_is_written(tmp_path):
    """Seen to fail without the sign in the folder."""
    known, frames = find_format("png8"), np.zeros((2, 16, 16, 3), np.uint8)

    def write(_):
        try:
            with open_writer(NewName(tmp_path / "shot"), known, size=(16, 16)) as writer:
                writer.write(frames)
        except TakenError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(write, range(32))) == 1
    assert sorted(os.listdir(tmp_path / "shot")) == ["shot.00000.png", "shot.00001.png"]


def test_a_folder_of_pictures_is_claimed_without_a_gap(tmp_path):
    """The first picture is written into the sign itself. Seen to fail where the sign is removed and made anew."""
    folder, frames = tmp_path / "shot", np.zeros((2, 16, 16, 3), np.uint8)
    with open_writer(NewName(folder), find_format("png8"), size=(16, 16)) as writer:
        half = folder / "shot.00000.partial.png"
        sign = half.stat()
        also = folder.parent / "also"  # keeps the number of the file from being given to another
        also.hardlink_to(half)
        writer.write(frames)
    assert os.path.samestat(sign, (folder / "shot.00000.png").stat())


def test_a_folder_of_pictures_that_fails_at_once_is_gone_again(tmp_path):
    with pytest.raises(ValueError), open_writer(NewName(tmp_path / "shot"), find_format("png8"), size=(16, 16)):
        raise ValueError
    assert not os.listdir(tmp_path)


def test_a_file_that_appears_meanwhile_stays_and_so_does_the_video(tmp_path):
    """Seen to fail with a rename that does not look."""
    path, frames = tmp_path / "a.mkv", np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(MeanwhileError, match=r"what was written now is in .*a\.partial\.mkv"):  # noqa: SIM117
        with open_writer(NewName(path), find_format("ffv1"), size=(16, 16)) as writer:
            writer.write(frames)
            path.write_bytes(b"dear")
    assert path.read_bytes() == b"dear"
    assert probe(partial_name(path)).num_frames == 2


def test_a_finished_file_leaves_the_half_alone_that_the_next_one_begins(tmp_path, monkeypatch):
    """Seen to fail where the partial name is removed once more after the rename."""
    path, rename, begun = tmp_path / "a.txt", disk.rename_whole, []

    def rename_and_begin(*args, **options):
        rename(*args, **options)
        begun.append(File(partial_name(path), exclusive=True))

    monkeypatch.setattr(disk, "rename_whole", rename_and_begin)
    write_whole(path, b"whole", overwrite=False)
    assert begun[0].is_in_place()
    begun[0].close()


def test_two_that_overwrite_one_file_never_mix(tmp_path):
    """Seen to fail where the first one renames whatever has the partial name."""
    path = tmp_path / "a.txt"
    with whole_file(path) as first:
        first.write(b"first")
        for refused in (lambda: claim(path, overwrite=True), lambda: check_new(path, overwrite=True)):
            with pytest.raises(TakenError, match=r"another process is writing .*a\.partial\.txt"):
                refused()
    assert path.read_bytes() == b"first"
    with pytest.raises(MeanwhileError, match="another process writes"), whole_file(path):
        partial_name(path).unlink()  # by a program that asks nobody
        second = claim(path, overwrite=True)
    second.close()
    assert (sorted(os.listdir(tmp_path)), path.read_bytes()) == (["a.partial.txt", "a.txt"], b"first")
    write_whole(path, b"whole")
    assert path.read_bytes() == b"whole"


CLIP = ["--seconds", "1", "--overwrite"]
READ = {
    "a sound": ["demo", *CLIP, "--sound", "film.mp4", "--out"],
    "a first frame": ["render", "--model", "demo", "--overwrite", "--first-frame", "film.mp4", "--out"],
    "a video that is extended": ["demo", *CLIP, "--extend-video", "film.mp4", "--out"],
    "a timeline": ["demo", *CLIP, "--timeline", "film.mp4", "--out"],
    "weights": ["render", "--model", "film.mp4", "--overwrite", "--out"],
    "a vae": ["render", "--model", "demo", "--vae", "film.mp4", "--overwrite", "--out"],
    "embeddings": ["render", "--model", "demo", "--embeds", "film.mp4", "--overwrite", "--out"],
    "a live source": ["live", "--model", "demo", "--source", "film.mp4", "--overwrite", "--out"],
    "a video that is restyled": ["v2v", "--model", "demo", "--overwrite", "film.mp4"],
    "a video that is measured": ["drift", "film.mp4", "--overwrite", "--plot"],
    "weights that are converted": ["convert", "--overwrite", "film.mp4"],
    "prompts of a sheet": ["sheet", "--model", "demo", "--prompts", "film.mp4", "--overwrite", "--out"],
}


@pytest.mark.parametrize("way", ["itself", "hard link", "symbolic link"])
@pytest.mark.parametrize("words", READ.values(), ids=READ)
def test_a_file_that_is_read_is_never_replaced(here, capsys, words, way, nothing_is_loaded):
    """Whatever the option that reads it, and the name that it is written by. Seen to fail without `check_inputs`."""
    film, out = here / "film.mp4", here / "film.mp4" if way == "itself" else here / "other.mp4"
    film.write_bytes(b"dear")
    if way != "itself":
        out.hardlink_to(film) if way == "hard link" else out.symlink_to(film)
    assert "choose another name for the new one" in refusal_of([*words, out.name], capsys)
    assert film.read_bytes() == out.read_bytes() == b"dear"
