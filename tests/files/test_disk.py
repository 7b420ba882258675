"""Files are created without following a link, replaced whole, and never taken from somebody else."""

import errno
import os

import pytest

from histream_core.files.disk import (
    NO_SYNC,
    File,
    append_line,
    check_folder,
    check_new,
    check_not_read,
    check_portable,
    partial_name,
    sync_folder,
    write_whole,
)


@pytest.fixture(params=["symlink", "hard link", "dangling link"])
def trap(request, tmp_path):
    """A file that is dear to somebody, or the name of one, and a function that links another name to it."""
    dear = tmp_path / "dear"
    if request.param != "dangling link":
        dear.write_text("dear")

    def link(name):
        os.link(dear, name) if request.param == "hard link" else name.symlink_to(dear)

    yield link
    assert not dear.exists() if request.param == "dangling link" else dear.read_text() == "dear"


def test_no_link_is_written_through(tmp_path, trap):
    """Seen to fail with `path.open("w+b")` in File."""
    folder = tmp_path / "run"
    folder.mkdir()
    target = folder / "video.mp4"
    trap(partial_name(target))
    trap(target)
    write_whole(target, b"new")
    assert target.read_bytes() == b"new"
    assert not target.is_symlink()
    assert os.listdir(folder) == ["video.mp4"]


def test_a_pipe_in_the_place_of_a_file_is_replaced(tmp_path):
    os.mkfifo(tmp_path / "a.partial.txt")
    os.mkfifo(tmp_path / "a.txt")
    write_whole(tmp_path / "a.txt", b"new")
    assert (tmp_path / "a.txt").read_bytes() == b"new"


def test_a_file_can_be_created_exclusively(tmp_path):
    path = tmp_path / "a.partial.mp4"
    File(path, exclusive=True).close()
    with pytest.raises(FileExistsError):
        File(path, exclusive=True)


def test_a_name_that_is_taken_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    check_new(path)
    partial_name(path).write_bytes(b"half")
    with pytest.raises(FileExistsError, match=r"a\.partial\.mp4 exists: choose another name"):
        check_new(path)
    partial_name(path).unlink()
    path.write_bytes(b"whole")
    with pytest.raises(FileExistsError, match=r"a\.mp4 exists"):
        check_new(path)
    check_new(path, overwrite=True)
    path.unlink()
    path.mkdir()
    with pytest.raises(FileExistsError):
        check_new(path, overwrite=True)


def test_a_dangling_link_takes_a_name(tmp_path):
    (tmp_path / "a.mp4").symlink_to(tmp_path / "nowhere")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError):
            check_new(tmp_path / "a.mp4", overwrite=overwrite)


def test_lines_are_appended_to_no_link(tmp_path, trap):
    append_line(tmp_path / "lines", "one")
    append_line(tmp_path / "lines", "two")
    assert (tmp_path / "lines").read_text() == "one\ntwo\n"
    trap(tmp_path / "link")
    with pytest.raises(OSError):
        append_line(tmp_path / "link", "three")


@pytest.mark.parametrize("code", NO_SYNC, ids=errno.errorcode.get)
def test_a_file_system_that_cannot_wait_for_its_disk_takes_a_whole_file(tmp_path, monkeypatch, code):
    """Seen to fail with every error of fsync raised; a full disk still is one."""

    def fsync(handle):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(tmp_path / "a.txt", b"whole")
    append_line(tmp_path / "lines", "one")
    sync_folder(tmp_path)
    assert (tmp_path / "a.txt").read_bytes() == b"whole"
    code = errno.EIO
    with pytest.raises(OSError, match="cannot write"):
        write_whole(tmp_path / "a.txt", b"more")
    assert (tmp_path / "a.txt").read_bytes() == b"whole"


WAYS = {
    "another name": os.link,
    "a symbolic link": lambda source, out: out.symlink_to(source),
    "a link to a link": lambda source, out: (out.with_name("l").symlink_to(source), out.symlink_to(out.with_name("l"))),
    "its half-written name": lambda source, out: os.link(source, partial_name(out)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_is_read_is_not_written(tmp_path, way):
    source, out = tmp_path / "source.mp4", tmp_path / "out.mp4"
    source.write_bytes(b"dear")
    check_not_read(out, [source, tmp_path / "missing", tmp_path / ("a" * 300)])
    WAYS[way](source, out)
    for inputs in ([source], [tmp_path / "missing", source], [tmp_path]):
        with pytest.raises(ValueError, match=r"out.* is read.* to make .*out\.mp4: choose another name"):
            check_not_read(out, inputs)


@pytest.mark.parametrize(("letter", "fits"), [("a", 243), ("é", 121), ("\U0001f600", 60)])
def test_a_name_that_is_too_long_is_refused_with_the_length_that_fits(tmp_path, letter, fits):
    """It is longer while it is written: NAME.partial.mp4. Seen to fail with the system's own words."""
    write_whole(tmp_path / f"{letter * fits}.mp4", b"whole")
    with pytest.raises(ValueError, match=r"too long for the name of a file: use 24[0-9] bytes or fewer"):
        check_folder(tmp_path / f"{letter * (fits + 1)}.mp4")


NAMES = [
    "a:b",
    "S01:E02",
    "what?",
    "a*",
    "a|b",
    "<a>",
    'a"b',
    "a\nb",
    "a\tb",
    "a\x00",
    "a\u202eb",
    "x\\y",
    "CON",
    "nul.txt",
]
NAMES += ["x/Com1/y", "lpt9.", "aux ", "x./y", "x /y", "end.", "end ", "a" * 201, "é" * 101]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_not_every_system_takes_is_refused(name):
    """Seen to fail on Linux, which takes them all, for who copies the folder to Windows."""
    with pytest.raises(ValueError, match=r"the name|too long"):
        check_portable(name)
    with pytest.raises(ValueError, match=r"the name|too long"):
        check_portable(f"histream/{name}")


@pytest.mark.parametrize(
    "name", ["histream/run", "%year%/x_%width%", "a.b/c d", "雪/é", "./a", "console", "com10", ".hidden"]
)
def test_other_names_are_taken(name):
    check_portable(name)
