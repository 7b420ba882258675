"""One process at a time in a folder: a lock that the system takes back when its holder dies."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType

if os.name == "nt":
    import msvcrt
else:
    import fcntl

FAR = 1 << 20
"""The byte that is locked where locks also keep others from reading: behind the text."""

PATIENCE = 0.3
"""Seconds for which a lock that is only being looked at may be held by another."""


class RunInUseError(OSError):
    """Another process works in the folder."""


class Lock:
    """Held from its creation to `release`, or to the end of the process however that comes."""

    def __init__(self, path: Path) -> None:
        self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            self._take(path)
        except BaseException:
            os.close(self._file)
            raise
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    def _take(self, path: Path) -> None:
        end = time.monotonic() + PATIENCE
        while not _try_lock(self._file):
            if time.monotonic() > end:
                raise RunInUseError(
                    f"the run in {path.parent} is in use by process {_holder(path)}: wait for it, or stop it"
                )
            time.sleep(0.02)

    def release(self) -> None:
        """Let others in; a second call does nothing."""
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.release()


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock now."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _try_lock(file)
    finally:
        os.close(file)


def _try_lock(file: int) -> bool:
    try:
        if os.name == "nt":
            os.lseek(file, FAR, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            os.lseek(file, 0, os.SEEK_SET)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip() or "of unknown number"
    except (OSError, ValueError):
        return "of unknown number"
