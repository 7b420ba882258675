"""Files that are there whole or not at all, and the questions to ask of a disk before a long run.

Whatever is being written is called NAME.partial.SUFFIX beside its target, is synchronised with the disk when it is
whole, and only then gets its name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


class File:
    """An unbuffered file that writes all or raises; it can be told to drop what comes.

    To be handed to a muxer, which goes on writing its end after a failure.
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
        """Return when all that was written is on the disk."""
        os.fsync(self.fileno())


def partial_name(path: Path) -> Path:
    """What `path` is called until it is whole."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def rename_whole(partial: Path, path: Path) -> None:
    """Give a synchronised file its name, for good: an older file of that name is replaced."""
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk, where the system can say so."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[File]:
    """A file to write so that it is there whole or not at all. Raises OSError that says what to change."""
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
    """Write a file so that it is there whole or not at all. Raises OSError that says what to change."""
    with whole_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Add to an OSError which file it is about and what to do; its kind and `errno` stay."""
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


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
