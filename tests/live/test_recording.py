"""A recording that cannot be written: the stream goes on, and what was written stays and plays."""

import errno
import os

import pytest
from tiny_live import FPS, After, Living

import histream_core.files.disk
from histream_core.live.player import Recorder
from histream_core.video.formats import find_format
from histream_core.video.reading import frames_of
from histream_core.video.writers import open_writer
from histream_core.video.writing import BackgroundWriter

FULL = "No space left on device"


@pytest.fixture
def disk(monkeypatch):
    """A set of words; with "full" in it nothing more can be written."""
    words = set()

    class Filling(histream_core.files.disk.File):
        def __init__(self, path, **how):
            super().__init__(path, **how)
            whole = self.put

            def put(data):
                if "full" in words:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return whole(data)

            self.put = put

    monkeypatch.setattr(histream_core.files.disk, "File", Filling)
    return words


def recorded(living, folder, wrap=BackgroundWriter):
    """A stream with a place for recordings one.mp4, two.mp4 in a folder."""
    names = iter(("one.mp4", "two.mp4"))

    def open_next():
        path = folder / next(names)
        return Recorder(wrap(open_writer(path, find_format("h264-mp4"), size=(32, 32), fps=FPS)), FPS, path.name)

    living.session.open_recorder = open_next
    living.session.record(True)
    return living


@pytest.mark.parametrize("wrap", [BackgroundWriter, lambda writer: writer])
def test_a_full_disk_leaves_what_was_written_and_the_stream_goes_on(tmp_path, disk, wrap):
    """Seen to fail where the file is removed, and where the error ends the stream."""
    living = recorded(Living(9 + 12 * 9), tmp_path, wrap)
    report = living.run(After(living, 7, lambda: disk.add("full")))
    assert report["frames"] == 9 + 12 * 9 and report["recording"] is None
    assert [path.name for path in tmp_path.iterdir()] == report["recordings"] == ["one.partial.mp4"]
    assert 12 <= len([*frames_of(tmp_path / "one.partial.mp4")]) < report["frames"]
    said = report["recording_error"]
    assert FULL in said and "one.partial.mp4 holds what was written" in said
    assert any(said in line for line in report["log"])


def test_a_disk_that_is_full_at_the_end_leaves_what_was_written(tmp_path, disk):
    """Seen to fail where the file is removed; and a second recording begins when there is room again."""
    living = recorded(Living(9 + 12 * 9), tmp_path)

    def end():
        disk.add("full")
        living.session.record(False)
        disk.clear()
        living.session.record(True)

    report = living.run(After(living, 5, end))
    assert report["recordings"] == ["one.partial.mp4", "two.mp4"] and FULL in report["recording_error"]
    assert all(len([*frames_of(tmp_path / name)]) >= 12 for name in report["recordings"])


def test_a_folder_that_went_away_ends_the_recording_alone(tmp_path):
    folder = tmp_path / "stick"
    folder.mkdir()
    living = recorded(Living(9 + 12 * 4), folder)
    report = living.run(After(living, 2, lambda: folder.rename(tmp_path / "gone")))
    assert report["frames"] == 9 + 12 * 4 and "one.partial.mp4" in report["recording_error"]
    assert len([*frames_of(tmp_path / "gone" / "one.partial.mp4")]) == report["frames"]
