"""Files are created without following a link, replaced whole, and never taken from somebody else."""

import os

import pytest

from histream_core.files.disk import File, append_line, check_new, partial_name, write_whole


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
