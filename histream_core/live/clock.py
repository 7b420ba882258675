"""The clock of a live stream: the time in seconds, and waiting for a thread or for a time to come."""

from __future__ import annotations

import threading
import time


class Clock:
    """The computer's clock. A test gives one of its own."""

    def __call__(self) -> float:
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        """Wait until `condition`, which is held, is notified, at most that long."""
        condition.wait(seconds)
