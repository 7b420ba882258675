"""Files from anywhere are read if they are ordinary files of a bounded size, and refused in a sentence if not."""

import os
import socket

import pytest

from histream_core.files.reading import open_file, parse_json, printable, read_bytes, read_text


def test_a_file_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(OSError, match="has 5 bytes, and at most 4 are read"):
        read_bytes(path, 4)


def test_a_sparse_file_is_refused_by_its_size(tmp_path):
    path = tmp_path / "sparse.json"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(OSError, match=f"{path} has {3 * 2**30} bytes"):
        read_text(path)


def test_a_pipe_is_refused_at_once(tmp_path):
    """Without O_NONBLOCK this test would never end."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="is a pipe: give an ordinary file"):
        open_file(path)


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(OSError, match="is a folder: give an ordinary file"):
        open_file(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}/gone.mp4 does not exist: check the name$"):
        open_file(tmp_path / "gone.mp4")
    with pytest.raises(OSError, match="is a device"):
        open_file("/dev/zero")
    link = tmp_path / "link"
    link.symlink_to("/dev/zero")
    with pytest.raises(OSError, match="is a device"):
        open_file(link)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "door"))
        with pytest.raises(OSError):
            open_file(tmp_path / "door")


def test_bytes_are_no_text(tmp_path):
    path = tmp_path / "a.txt"
    for data in (b"\xff\xff", "für".encode("cp1252"), b"\xff\xfea", b"\xef\xbb\xbf\xff"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="is not text in UTF-8"):
            read_text(path)


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", *(("mark", code) for code in ("le", "be"))],
    ids=str,
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=repr)
def test_a_text_is_read_as_editors_save_it(tmp_path, encoding, end):
    """Seen to fail where the bytes are taken for UTF-8."""
    path, text = tmp_path / "a.txt", f"[0:00] a cat{end}[0:04] 雪, ein Fuß{end}"
    marked = isinstance(encoding, tuple)
    path.write_bytes(f"\ufeff{text}".encode(f"utf-16-{encoding[1]}") if marked else text.encode(encoding))
    assert read_text(path) == text


def test_a_name_that_no_file_can_have_is_a_sentence(tmp_path):
    with pytest.raises(OSError, match=r"^a{200} cannot be read: File name too long$"):
        open_file("a" * 300)


def test_deep_json_is_refused():
    assert parse_json("[1]") == [1]
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json("[" * 200_000)


def test_a_name_twice_is_refused_where_it_is_asked_for():
    """Seen to fail without the check."""
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2} and parse_json('{"a": [{"b": 1}]}', unique=True)
    with pytest.raises(ValueError, match="a name twice"):
        parse_json('[{"a": 1, "a": 2}]', unique=True)


def test_nothing_that_commands_a_terminal_is_printed():
    assert printable("a\x1b[2J\x9b31m\u202eb\r\n\tc é 猫") == "a\ufffd[2J\ufffd31m\ufffdb\ufffd\n\tc é 猫"
