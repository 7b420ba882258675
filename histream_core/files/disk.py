"""Atomic writes of files, and checks of a folder before a long run.

A file is written as NAME.partial.SUFFIX beside its target, synchronised with the disk when it is complete, and renamed
last. So a file under its final name is complete, whatever ended the process. No link is ever written through.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

from .reading import MEGABYTE, open_file

try:
    import fcntl
except ImportError:  # Windows, which lets nobody remove an open file
    fcntl = None

Made = TypeVar("Made")

MAX_NAME = 255
"""Longest name in a folder in bytes, on nearly every file system."""

MAX_PART = 200
"""Longest part of a name that gets a number and an ending behind it, in bytes."""

FORBIDDEN = '<>:"|?*\\'
"""Letters that Windows has in no name."""

DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
"""Names that Windows keeps for devices, whatever stands behind a dot."""

NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of a file system that cannot be asked to wait for its disk: all that was written is there."""


class File:
    """A new file for a muxer or a block of data, written without a buffer: `write` writes all of the data or raises.

    The file is made in its folder by descriptor and exclusively: another file, or a link, that has its name is removed
    and never followed. With `exclusive` it is refused instead, with FileExistsError. With `dropping` set the file
    discards what is written: a muxer goes on writing the end of the file after a failure. A file that another process
    is writing is not removed: raises TakenError.
    """

    def __init__(self, path: Path, *, exclusive: bool = False) -> None:
        self.path, self.dropping = path, False
        with _folder_of(path) as folder:
            if not exclusive:
                check_unused(path)
                _remove(path, folder)
            handle = os.open(path if folder is None else path.name, _CREATE, 0o666, dir_fd=folder)
        _take(handle)
        self._raw = os.fdopen(handle, "w+b", buffering=0)
        self.fileno, self.close = self._raw.fileno, self._raw.close
        self.read, self.seek, self.tell = self._raw.read, self._raw.seek, self._raw.tell
        self.put = self._raw.write

    def write(self, data: bytes | memoryview) -> int:
        left = memoryview(b"" if self.dropping else data)
        while left:
            left = left[self.put(left) :]
        return len(data)

    def sync(self) -> None:
        """Wait until everything written is on the disk."""
        _sync(self.fileno())

    def is_in_place(self) -> bool:
        """Whether the name still is this file's: another process may have replaced the file. Ask before closing it."""
        try:
            return os.path.samestat(os.fstat(self.fileno()), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def remove(self) -> None:
        """Close the file and remove it, unless its name is another's by now."""
        ours = self.is_in_place()
        self.close()
        if ours:
            self.path.unlink(missing_ok=True)


_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL
_CREATE |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@contextlib.contextmanager
def _folder_of(path: Path) -> Iterator[int | None]:
    """A descriptor of the folder of `path`; None on systems that cannot open a file relative to one."""
    if os.open not in os.supports_dir_fd:
        yield None
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _take(handle: int) -> bool:
    """Lock an open file for this process; False where another one has. Where there are no locks, every file is free."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def check_unused(path: Path) -> None:
    """Refuse a file that another process is writing now. Raises TakenError."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        handle = os.open(path, flags)
    except OSError:  # none, a link, or not ours to read
        return
    try:
        free = _take(handle)
    finally:
        os.close(handle)
    if not free:
        raise TakenError(f"another process is writing {path}: wait for it, or choose another name")


def _sync(handle: int) -> None:
    """Wait until an open file is on the disk; does nothing on file systems that cannot be asked."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def _remove(path: Path, folder: int | None) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path if folder is None else path.name, dir_fd=folder)


def partial_name(path: Path) -> Path:
    """The name under which `path` is written: NAME.partial.SUFFIX."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def rename_whole(partial: Path, path: Path, *, overwrite: bool = True) -> None:
    """Rename a synchronised file to its final name, durably; an older file or link of that name is replaced.

    Without `overwrite` it keeps its partial name where something has the final one by now. Raises MeanwhileError then.
    """
    if not overwrite and path != partial and os.path.lexists(path):
        raise MeanwhileError(f"another program made {path} meanwhile: what was written now is in {partial}")
    partial.replace(path)
    sync_folder(path.parent)


class TakenError(FileExistsError):
    """A name that something has already."""


class MeanwhileError(OSError):
    """A name that something got while its file was written."""


@dataclass(frozen=True)
class NewName:
    """A name for a file or a folder that nothing may have yet; where a plain path is given, a file is replaced."""

    path: Path


def path_of(name: str | Path | NewName) -> Path:
    """The path itself."""
    return name.path if isinstance(name, NewName) else Path(name)


def check_new(path: Path, *, overwrite: bool = False) -> None:
    """Refuse a name that something has already, unless it is a file and `overwrite`. Raises TakenError.

    A half-written file counts too: another process may be writing it, or it holds what an interrupted one finished.
    """
    if not overwrite:
        for name in (path, partial_name(path)):
            if os.path.lexists(name):
                raise _taken(name)
    elif os.path.lexists(path) and not path.is_file():
        raise TakenError(f"{path} exists and is no file: choose another name")
    else:
        check_unused(partial_name(path))


def check_not_read(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse a name whose file is one of `inputs`, by whatever name or link, or lies in one that is a folder.

    The half-written file of that name would be replaced too. Raises ValueError.
    """
    for one in inputs:
        for name in (path, partial_name(path)):
            if _is_in(name, one):
                as_given = "" if name == one else f" (as {one})"
                raise ValueError(f"{name} is read{as_given} to make {path}: choose another name for the new one")


def _is_in(path: Path, other: Path) -> bool:
    """Whether `path` is the file `other`, or lies in the folder `other`; False where one of them does not exist."""
    try:
        return path.samefile(other) or (other.is_dir() and path.resolve().is_relative_to(other.resolve()))
    except (OSError, ValueError):
        return False


def check_empty(folder: Path) -> None:
    """Refuse a folder with something in it, which --overwrite does not replace. Raises TakenError."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise TakenError(f"{folder} is no folder: choose another name")
    if folder.is_dir() and os.listdir(folder):
        raise TakenError(f"the folder {folder} is not empty: choose another name, or empty it first")


def claim(path: Path, *, overwrite: bool = False) -> File:
    """Open the partial file of `path`, which is then this process's alone. Raises TakenError as `check_new` does.

    Of several processes that want a new name at once, one gets it.
    """
    if overwrite:
        return File(partial_name(path))
    check_new(path)
    try:
        file = File(partial_name(path), exclusive=True)
    except FileExistsError as error:
        raise _taken(partial_name(path)) from error
    if os.path.lexists(path):  # another process finished it since the check
        file.remove()
        raise _taken(path)
    return file


def _taken(path: Path) -> TakenError:
    return TakenError(f"{path} exists: choose another name, or replace it with --overwrite")


def under_new_name(names: Iterable[Path], make: Callable[[Path], Made]) -> Made:
    """Return the result of `make` for the first free name of `names`; another program may take one first."""
    for name in names:
        with contextlib.suppress(TakenError):
            check_new(name)
            return make(name)
    raise FileExistsError("all names are taken: choose one")


def append_line(path: Path, text: str) -> None:
    """Append a line to a file, made where needed; a link is refused with OSError. It is on the disk on return."""
    with _opened(path, os.O_APPEND) as file:
        file.write(f"{text}\n")
        file.flush()
        _sync(file.fileno())


def write_in_place(path: Path, text: str) -> None:
    """Replace the text of a file that stays the same file, such as a lock; a link is refused with OSError.

    A reader may see it half-written; everything else is written by `whole_file`.
    """
    with _opened(path, 0) as file:
        os.ftruncate(file.fileno(), 0)
        file.write(text)


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[TextIO]:
    """An ordinary file, opened for writing in place and made where needed; a link is refused with OSError."""
    if path.is_symlink():  # the system refuses it too, without a word of what to do
        raise OSError(f"{path} is a link or no file: remove it, it is not written to")
    flags |= os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666), "w", encoding="utf-8") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
            raise OSError(f"{path} is a link or no file: remove it, it is not written to")
        yield file


def sync_folder(folder: Path) -> None:
    """Wait until the file names of a folder are on the disk; does nothing on systems that cannot open a folder."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _sync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def whole_file(path: Path, *, overwrite: bool = True, claimed: File | None = None) -> Iterator[File]:
    """Open `path` for an atomic write; an exception in the block leaves nothing. Raises OSError with the fix.

    Without `overwrite` it must be a new name: raises TakenError, and MeanwhileError as `rename_whole` does.
    `claimed` is its partial file where the name was claimed before.
    """
    check_folder(path)
    with disk_errors(path):
        file = claimed or claim(path, overwrite=overwrite)
    ours = True
    try:
        with disk_errors(path):
            try:
                yield file
                file.sync()
            finally:
                ours = file.is_in_place()
                file.close()
            check_in_place(file, ours)
            rename_whole(file.path, path, overwrite=overwrite)
            ours = False  # from now on the partial name may be another process's
    except MeanwhileError:
        ours = False
        raise
    finally:
        if ours:
            file.path.unlink(missing_ok=True)


def check_in_place(file: File, ours: bool) -> None:
    """Refuse to rename a file whose name another process has taken over. Raises MeanwhileError."""
    if not ours:
        raise MeanwhileError(f"another process writes {file.path} too: give each a name of its own")


def write_whole(path: Path, data: bytes, *, overwrite: bool = True, claimed: File | None = None) -> None:
    """Write `data` to `path` atomically, as `whole_file` does. Raises OSError with the fix."""
    with whole_file(path, overwrite=overwrite, claimed=claimed) as file:
        file.write(data)


def copy_whole(source: Path, target: Path, *, overwrite: bool = True) -> None:
    """Copy an ordinary file, which may be larger than memory, to `target` atomically, as `whole_file` does."""
    with open_file(source) as data, whole_file(target, overwrite=overwrite) as copy:
        while piece := data.read(MEGABYTE):
            copy.write(piece)


@contextlib.contextmanager
def disk_errors(path: Path, *clear: type[OSError]) -> Iterator[None]:
    """Add the file and the fix to the message of an OSError; its class and `errno` stay the same.

    Errors of the classes `clear` say themselves what to do, and pass.
    """
    try:
        yield
    except (TakenError, MeanwhileError, *clear):
        raise
    except OSError as error:
        kind = type(error) if type(error).__module__ == "builtins" else OSError
        told = kind(f"cannot write {path}: {error.strerror or error}; free space or choose another folder")
        told.errno = error.errno
        raise told from error


def check_length(path: Path, *, partial: bool = True) -> None:
    """Refuse a name that is too long for a file system, with `partial` while it is written. Raises ValueError."""
    over = len(os.fsencode(partial_name(path).name if partial else path.name)) - MAX_NAME
    if over > 0:
        most = len(os.fsencode(path.name)) - over
        raise ValueError(f'"{path.name[:20]}..." is too long for the name of a file: use {most} bytes or fewer')


def check_portable(name: str) -> None:
    """Refuse a name, with folders in it such as video/shot, that not every system can have. Raises ValueError."""
    for part in name.replace(os.sep, "/").split("/"):
        bad = next((letter for letter in part if letter in FORBIDDEN or not letter.isprintable()), None)
        if bad is not None:
            raise ValueError(f"the name {name[:80]!r} has {bad!r} in it, which not every system takes: leave it out")
        if part.split(".")[0].strip().lower() in DEVICES:
            raise ValueError(f"the name {name[:80]!r} has the name of a device in it, {part}: write another one")
        if part not in (".", "..") and part != part.rstrip(". "):
            raise ValueError(f"the name {name[:80]!r} has a part that ends with a dot or a space: leave that out")
        if len(os.fsencode(part)) > MAX_PART:
            raise ValueError(f'"{part[:20]}..." is too long for a name: use {MAX_PART} bytes or fewer')


def check_folder(path: Path) -> None:
    """Refuse a file in a folder that does not exist, or with too long a name. Raises FileNotFoundError, ValueError."""
    check_length(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist: create it or choose another one")


def make_folder(folder: Path) -> None:
    """Make a folder, unless it is there. Raises OSError for a link or a file of its name."""
    check_own(folder)
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)


def check_own(folder: Path) -> None:
    """Refuse a link or a file in the place of a folder that is written into. Raises OSError."""
    if folder.is_symlink():
        raise OSError(f"{folder} is a link: remove it, or give the folder that it leads to")
    if os.path.lexists(folder) and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder: choose another name, or remove it")


def nearest_existing(folder: Path) -> Path:
    """The folder itself, or its nearest parent that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
