"""The lock on a run's folder: one process at a time, and the system takes it back when its holder dies.

The lock is filelock's, which torch brings. Where a file system has no locks, filelock writes a marker file
or raises OSError, depending on its version.
"""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock, Timeout

PATIENCE = 0.3
"""Seconds for which a lock that another process only looks at may be held."""


class RunInUseError(OSError):
    """Raised if another process works in the folder."""


def take(path: Path) -> FileLock:
    """The lock at `path`, held until its `release` or the end of the process, however that comes.

    Raises RunInUseError with the number of the process that holds it.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE, poll_interval=0.02)
    except Timeout:
        raise RunInUseError(f"the run in {path.parent} is in use by {_holder(path)}: wait for it, or stop it") from None
    path.write_text(f"{os.getpid()}\n", encoding="ascii")
    return lock


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock now. A file that this user may not open counts as free."""
    if not path.is_file():
        return False
    try:
        FileLock(path).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    except OSError:
        return False
    return False


def _holder(path: Path) -> str:
    # Old versions of filelock empty the file before they wait, and Windows lets nobody read a locked one.
    try:
        return f"process {int(path.read_text(encoding='ascii'))}"
    except (OSError, ValueError):
        return "another process"
