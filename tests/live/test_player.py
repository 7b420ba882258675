"""Finished frames on their way to viewers and into a recording."""

import threading

import numpy as np
import pytest
from clips import probe
from tiny_live import STEP, FakeClock

from histream_core.live.clock import Clock
from histream_core.live.pacer import Pacer
from histream_core.live.player import Player, Recorder
from histream_core.video.formats import find_format
from histream_core.video.reading import frames_of
from histream_core.video.writers import open_writer

FPS = 16


def frames(*values):
    return np.stack([np.full((32, 32, 3), value, np.uint8) for value in values])


def player(clock, viewers=(), room=8):
    return Player(Pacer(FPS, 1.0, clock), clock, viewers, room)


def show_all(a_player, clock):
    clock.events.append(a_player.show_due)
    while len(a_player):
        clock.spend(STEP)


def test_frames_are_shown_at_even_times():
    clock, seen = FakeClock(), []
    a_player = player(clock, [lambda frame, captured: seen.append((clock(), captured, frame[0, 0, 0]))])
    captured = [0.0, 1 / 16, 2 / 16, 3 / 16]
    a_player.chunk_ready(0, captured)
    a_player.add(frames(1, 2, 3, 4), captured, FPS)
    show_all(a_player, clock)
    shown, times, values = zip(*seen, strict=True)
    assert values == (1, 2, 3, 4) and list(times) == captured
    assert np.diff(shown)[1:] == pytest.approx(1 / 16, abs=STEP)
    assert a_player.report().frames == 4


def test_whoever_makes_frames_waits_for_room():
    """Seen to fail with a queue without a bound."""
    clock = FakeClock()
    a_player, most = player(clock), []
    clock.events.append(lambda: most.append(len(a_player)))
    clock.events.append(a_player.show_due)
    for chunk in range(8):
        captured = [(4 * chunk + index) / FPS for index in range(4)]
        a_player.chunk_ready(chunk, captured)
        a_player.add(frames(1, 2, 3, 4), captured, FPS)
    assert max(most) <= 8 + 3


def test_chunks_that_come_too_late_are_named():
    clock = FakeClock()
    a_player = player(clock)
    for chunk, time in enumerate([0.5, 1.5, 1.9]):
        clock.now = time
        a_player.chunk_ready(chunk, [0.0])
    assert list(a_player.missed) == [1, 2] and a_player.report().misses == 2


def test_a_player_that_is_closed_ends():
    a_player = player(Clock(), room=2)
    thread = threading.Thread(target=a_player.run, daemon=True)
    thread.start()
    a_player.add(frames(1, 2, 3), [0.0, 0.1, 0.2], 1000)
    a_player.close()
    thread.join(60)
    assert not thread.is_alive() and not len(a_player)


def record(path, *chunks, fps=12):
    format = find_format("ffv1")
    with open_writer(path, format, size=(32, 32), fps=fps) as writer:
        recorder = Recorder(writer, fps)
        for captured in chunks:
            recorder.add(frames(*(round(time * fps) for time in captured)), captured)
    return [round(float(frame.mean()) * 255) for frame in frames_of(path)]


def at(*places, start=0.0, fps=12):
    return [start + place / fps for place in places]


def test_a_recording_has_every_frame(tmp_path):
    path = tmp_path / "out.mkv"
    assert record(path, at(0, 1, 2, 3), at(4, 5, 6, 7)) == [*range(8)]
    assert probe(path).num_frames == 8


def test_frames_that_were_left_out_are_held(tmp_path):
    assert record(tmp_path / "out.mkv", at(0, 2, 4), at(6, 7)) == [0, 0, 2, 2, 4, 4, 6, 7]


def test_frames_at_uneven_times_are_all_there(tmp_path):
    """A camera's clock trembles. Seen to fail with a frame left out whose place is taken."""
    found = record(tmp_path / "out.mkv", at(0, 1.4, 1.45, 3, 4))
    assert len(found) == 5


def test_an_absence_is_held_for_a_second(tmp_path):
    found = record(tmp_path / "out.mkv", at(0, 1), at(100, 101, 102))
    assert found == [0] + [1] * 13 + [100, 101, 102]
