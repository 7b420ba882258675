"""The lock on a run's folder: one process at a time, and the system takes it back when its holder dies.

The lock is filelock's, which torch brings. Where a file system has no locks, filelock writes a marker file
or raises OSError, depending on its version. Some versions empty the file that they lock, so what lies there is looked
at first: a link would lead to a file of somebody else.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from filelock import FileLock, Timeout

from ...files.disk import File, write_in_place
from ...files.reading import read_text
from .folder import DamagedRunError, inside

PATIENCE = 0.3
"""Seconds for which a lock that another process only looks at may be held."""

MAX_NUMBER = 64
"""Largest size in bytes of a lock; it holds the number of a process."""


class RunInUseError(OSError):
    """Raised if another process works in the folder."""


class Lock:
    """A lock that this process holds until `release`, or until its end, however that comes."""

    def __init__(self, path: Path, held: FileLock) -> None:
        self.path, self._held = path, held

    def release(self) -> None:
        self._held.release()

    def remove(self) -> None:
        """Remove the file and release the lock; whoever waits for the removed file looks for a new one."""
        if os.name == "posix":
            self.path.unlink(missing_ok=True)
        self.release()
        if os.name != "posix":  # an open file cannot be removed
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)


def take(path: Path) -> Lock:
    """Take the lock at `path`; its file is made where needed.

    Raises RunInUseError with the number of the process that holds it, and DamagedRunError for a link or no file.
    """
    lock = _file_lock(path)
    while True:
        with contextlib.suppress(FileExistsError):
            File(path, exclusive=True).close()
        before = _check(path)
        try:
            lock.acquire(timeout=PATIENCE, poll_interval=0.02)
        except Timeout:
            holder = _holder(path)
            raise RunInUseError(f"the run in {path.parent} is in use by {holder}: wait for it, or stop it") from None
        if before and before == _check(path):
            break
        lock.release()  # the file that was locked is removed, or another one is in its place
    with contextlib.suppress(PermissionError):  # Windows lets nobody write into a locked file
        write_in_place(path, f"{os.getpid()}\n")
    return Lock(path, lock)


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock now. A file that this user may not open counts as free."""
    try:
        if _check(path) is None:
            return False
        _file_lock(path).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    except (OSError, DamagedRunError):
        return False
    return False


def is_own(path: Path) -> bool:
    """Whether a file is a lock that a run has left: a file of its own with at most the number of a process in it."""
    try:
        return _check(path) is not None and (read_text(path, MAX_NUMBER).strip() or "0").isdecimal()
    except (OSError, ValueError):
        return False


def _file_lock(path: Path) -> FileLock:
    return FileLock(path)


def _check(path: Path) -> tuple[int, int] | None:
    """The identity of the file at `path`; None if there is none. Raises DamagedRunError for a link or no file."""
    inside(path)
    try:
        about = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(about.st_mode):
        raise DamagedRunError(f"{path} is no ordinary file: remove it, the run makes a new one")
    if about.st_nlink > 1:
        raise DamagedRunError(f"{path} is a second name of another file, which it would write to: remove it")
    return about.st_dev, about.st_ino


def _holder(path: Path) -> str:
    # Old versions of filelock empty the file before they wait, and Windows lets nobody read a locked one.
    try:
        return f"process {int(read_text(path, MAX_NUMBER))}"
    except (OSError, ValueError):
        return "another process"
