"""Atomic writes of files, and checks of a folder before a long run.

A file is written as NAME.partial.SUFFIX beside its target, synchronised with the disk when it is complete, and renamed
last. So a file under its final name is complete, whatever ended the process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


class File:
    """An unbuffered file for a muxer: `write` writes all of the data or raises.

    With `dropping` set it discards what is written: a muxer goes on writing the end of the file after a failure.
    """

    def __init__(self, path: Path) -> None:
        self.dropping = False
        self._raw = path.open("w+b", buffering=0)
        self.fileno, self.close = self._raw.fileno, self._raw.close
        self.read, self.seek, self.tell = self._raw.read, self._raw.seek, self._raw.tell
        self.put = self._raw.write

    def write(self, data: bytes) -> int:
        left = memoryview(b"" if self.dropping else data)
        while left:
            left = left[self.put(left) :]
        return len(data)

    def sync(self) -> None:
        """Wait until everything written is on the disk."""
        os.fsync(self.fileno())


def partial_name(path: Path) -> Path:
    """The name under which `path` is written: NAME.partial.SUFFIX."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def rename_whole(partial: Path, path: Path) -> None:
    """Rename a synchronised file to its final name, durably; an older file of that name is replaced."""
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the file names of a folder are on the disk; does nothing on systems that cannot open a folder."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[File]:
    """Open `path` for an atomic write; an exception in the block leaves nothing. Raises OSError with the fix."""
    partial = partial_name(path)
    check_folder(path)
    try:
        with disk_errors(path):
            file = File(partial)
            try:
                yield file
                file.sync()
            finally:
                file.close()
            rename_whole(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically. Raises OSError with the fix."""
    with whole_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Add the file and the fix to the message of an OSError; its class and `errno` stay the same."""
    try:
        yield
    except OSError as error:
        kind = type(error) if type(error).__module__ == "builtins" else OSError
        clear = kind(f"cannot write {path}: {error.strerror or error}; free space or choose another folder")
        clear.errno = error.errno
        raise clear from error


def check_folder(path: Path) -> None:
    """Refuse a file in a folder that does not exist. Raises FileNotFoundError."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist: create it or choose another one")


def nearest_existing(folder: Path) -> Path:
    """The folder itself, or its nearest parent that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
