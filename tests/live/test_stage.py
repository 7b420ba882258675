"""A stream with its device: set up, played and ended."""

import threading
from types import SimpleNamespace

import pytest
from tiny_live import Living

from histream_core.live import stage
from histream_core.live.clock import Clock


def staged(play, session):
    """A stage whose device plays so."""
    living = Living(0, clock=Clock())
    settings = SimpleNamespace(device=SimpleNamespace(play=play))
    return stage.Stage(settings, session or living.session, living.player, living.feed, living.clock)


def test_a_source_that_hangs_holds_nothing_up(monkeypatch):
    """A camera that stalled is still read. Seen to fail where its thread is waited for without a limit."""
    monkeypatch.setattr(stage, "LAST_WAIT", 0.0)
    forever = threading.Event()
    session = SimpleNamespace(run=lambda: None, guarded=lambda work: work())
    playing = threading.Thread(target=staged(lambda *_: forever.wait(), session).play, daemon=True)
    playing.start()
    playing.join(60)
    ended = not playing.is_alive()
    forever.set()
    assert ended


def test_whatever_goes_wrong_in_a_source_is_raised():
    """Seen to fail where the source's thread ends in silence, and the stream waits for its pictures."""

    def play(*_):
        raise RuntimeError("the camera is on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        staged(play, None).play()
