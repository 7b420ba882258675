"""Progress on a terminal, and where there is none."""

import io
from types import SimpleNamespace

import pytest

from histream_core.cli.progress import follow, progress_bar


def test_a_run_without_network_calls_is_done_when_its_chunk_is():
    """A source that stays as it is."""
    stream = io.StringIO()
    with progress_bar(stream=stream) as report:
        report(
            SimpleNamespace(
                calls={}, num_calls=0, chunks=1, num_chunks=1, frames=9, num_frames=9, seconds=1, describe_left=str
            )
        )
    assert stream.getvalue().startswith("100%, ")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def watch(stream, num_chunks):
    """Report a run of `num_chunks` chunks of 9 frames, of four calls each."""
    with progress_bar("7/8 ", stream) as report:
        for call in range(1, 4 * num_chunks + 1):
            done = call // 4
            report(
                SimpleNamespace(
                    calls={"high": call},
                    num_calls=4 * num_chunks,
                    chunks=done,
                    num_chunks=num_chunks,
                    frames=9 * done,
                    num_frames=9 * num_chunks,
                    seconds=call,
                    describe_left=lambda left=4 * num_chunks - call: f"about {left} s left" if left else "",
                )
            )
    return stream.getvalue()


def test_a_run_is_a_bar_on_a_terminal_and_a_line_for_each_chunk_elsewhere():
    """Seen to fail with a bar for both."""
    assert watch(io.StringIO(), 2) == (
        "7/8  50%, chunk 2/2, 9/18 frames, 4 s, about 4 s left\n7/8 100%, chunk 2/2, 18/18 frames, 8 s\n"
    )
    shown = watch(Terminal(), 2)
    assert shown.count("\n") == 1 and shown.startswith("\r7/8 [")
    assert "100%, chunk 2/2, 18/18 frames, 00:00" in shown


def test_no_time_is_left_behind_a_run_that_was_stopped():
    """The last picture of the bar, which stays on the terminal. Seen to fail where the bar is closed as it is."""
    screen = Terminal()
    with pytest.raises(KeyboardInterrupt), progress_bar("", screen) as report:
        done = {"chunks": 1, "num_chunks": 3, "frames": 9, "num_frames": 33}
        report(SimpleNamespace(calls={"high": 4}, num_calls=12, describe_left=lambda: "about 41 s left", **done))
        raise KeyboardInterrupt
    drawn = screen.getvalue().split("\r")
    assert "about 41 s left" in drawn[-2] and "left" not in drawn[-1] and "9/33 frames" in drawn[-1]


def test_a_run_that_never_begins_draws_nothing():
    """Seen to fail with a bar that is drawn at once."""
    for stream in (Terminal(), io.StringIO()):
        assert watch(stream, 0) == ""


def test_frames_are_counted_on_a_terminal_and_nowhere_else():
    screen, file = Terminal(), io.StringIO()
    assert list(follow([7, 8], "a{b}.mp4 ", screen)) == list(follow([7, 8], "a{b}.mp4 ", file)) == [7, 8]
    assert screen.getvalue().startswith("\ra{b}.mp4 0 frames") and screen.getvalue().endswith("\ra{b}.mp4 2 frames\n")
    assert file.getvalue() == ""
