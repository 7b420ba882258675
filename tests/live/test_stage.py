"""A stream with its device: set up, played and ended."""

import threading
from types import SimpleNamespace

from histream_core.live import stage
from histream_core.live.clock import Clock


def staged(play, run=lambda: None):
    """A stage whose device plays so, and whose session runs so."""
    settings = SimpleNamespace(device=SimpleNamespace(play=play))
    return stage.Stage(settings, SimpleNamespace(run=run), None, None, Clock())


def test_a_source_that_hangs_holds_nothing_up(monkeypatch):
    """A camera that stalled is still read. Seen to fail where its thread is waited for without a limit."""
    monkeypatch.setattr(stage, "LAST_WAIT", 0.0)
    forever = threading.Event()
    playing = threading.Thread(target=staged(lambda *_: forever.wait()).play, daemon=True)
    playing.start()
    playing.join(60)
    ended = not playing.is_alive()
    forever.set()
    assert ended
