"""The lock on a run's folder: one process at a time, and the system takes it back when its holder dies.

The lock is filelock's, which torch brings. Some versions empty the file that they lock, so what lies there is looked
at first: a link would lead to a file of somebody else. Where a file system has no locks, the number of the process in
the file is the lock, among the processes of one computer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from ...files.disk import File, write_in_place
from ...files.reading import open_file, read_text
from .folder import DamagedRunError, inside

PATIENCE = 0.3
"""Seconds for which a lock that another process only looks at may be held."""

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""Errors of a file system without locks."""

MAX_NUMBER = 64
"""Largest size in bytes of a lock; it holds the number of a process."""


class RunInUseError(OSError):
    """Raised if another process works in the folder."""


class Held(Protocol):
    """Something that can be given back."""

    def release(self) -> object: ...


class Lock:
    """A lock that this process holds until `release`, or until its end, however that comes."""

    def __init__(self, path: Path, held: Held) -> None:
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
        if _lacks_locks(path):
            return Lock(path, Number.written(path))
        try:
            lock.acquire(timeout=PATIENCE, poll_interval=0.02)
        except Timeout:
            raise _in_use(path) from None
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
        if _lacks_locks(path):
            return _is_alive(_number(path))
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


class Number:
    """The number of this process in a file, which stands for a lock where a file system has none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def written(cls, path: Path) -> Number:
        """Write the number. Raises RunInUseError where that of another process is there, which may be as fast."""
        if _is_alive(_number(path)):
            raise _in_use(path)
        write_in_place(path, f"{os.getpid()}\n")
        time.sleep(PATIENCE)
        if _number(path) != os.getpid():
            raise _in_use(path)
        return cls(path)

    def release(self) -> None:
        """Take the number out of the file, if it is there and still ours."""
        if _number(self._path) == os.getpid():
            write_in_place(self._path, "")


def _lacks_locks(path: Path) -> bool:
    """Whether the file system of a lock has no locks. A file that cannot be opened counts as one that has."""
    try:
        import fcntl
    except ImportError:  # Windows has locks everywhere
        return False
    try:
        with open_file(path) as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in NO_LOCKS
    return False


def _is_alive(number: int | None) -> bool:
    """Whether a process of this computer has that number."""
    if number is None or number < 1:
        return False
    try:
        os.kill(number, 0)
    except PermissionError:  # somebody else's
        return True
    except (OSError, OverflowError):
        return False
    return True


def _in_use(path: Path) -> RunInUseError:
    # Old versions of filelock empty the file before they wait, and Windows lets nobody read a locked one.
    number = _number(path)
    holder = f"process {number}" if number is not None else "another process"
    return RunInUseError(f"the run in {path.parent} is in use by {holder}: wait for it, or stop it")


def _number(path: Path) -> int | None:
    """The number in a lock; None where there is none."""
    try:
        return int(read_text(path, MAX_NUMBER))
    except (OSError, ValueError):
        return None
