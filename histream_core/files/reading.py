"""Reading of files from anywhere: ordinary files of a bounded size, and JSON of a bounded depth.

A pipe or a device in the place of a file would block or never end; a link may lead to one, so the opened file is
looked at, not its name.
"""

from __future__ import annotations

import codecs
import json
import os
import stat
import unicodedata
from pathlib import Path
from typing import Any, BinaryIO

MEGABYTE, GIGABYTE = 2**20, 2**30

MAX_TEXT = MEGABYTE
"""Largest size in bytes of a text that a person writes, such as a timeline."""

MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""The marks that editors begin a text with, and how the text behind them is encoded."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(path: str | Path) -> BinaryIO:
    """Open an ordinary file for reading, never waiting for it. Raises OSError for none, a folder, a pipe, a device."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist: check the name") from error
    except OSError as error:
        told = type(error)(f"{str(path)[:200]} cannot be read: {error.strerror or error}")
        told.errno = error.errno
        raise told from error
    try:
        kind = stat.S_IFMT(os.fstat(handle).st_mode)
        if kind != stat.S_IFREG:
            raise OSError(f"{path} is {_KINDS.get(kind, 'no ordinary file')}: give an ordinary file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: str | Path, limit: int) -> bytes:
    """The content of an ordinary file of at most `limit` bytes. Raises OSError for a larger one."""
    with open_file(path) as file:
        data = file.read(limit + 1)
        if len(data) > limit:
            size = max(len(data), os.fstat(file.fileno()).st_size)
            raise OSError(f"{path} has {size} bytes, and at most {limit} are read: it is not the file that is meant")
    return data


def read_text(path: str | Path, limit: int = MAX_TEXT) -> str:
    """The text of an ordinary file of at most `limit` bytes, in UTF-8, or in UTF-16 as some editors save it.

    Raises OSError, or ValueError for bytes.
    """
    data = read_bytes(path, limit)
    mark, encoding = next(((mark, name) for mark, name in MARKS.items() if data.startswith(mark)), (b"", ""))
    try:
        return data.removeprefix(mark).decode(encoding or _unmarked(data))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: save it as UTF-8") from error


def _unmarked(data: bytes) -> str:
    """The encoding of a text without a mark: UTF-8, or UTF-16 by its zeros, where the brackets and digits are."""
    if 0 not in data:
        return "utf-8"
    return "utf-16-le" if data[1::2].count(0) > data[::2].count(0) else "utf-16-be"


def parse_json(text: str | bytes, *, unique: bool = False) -> Any:
    """The value of a JSON text. Raises ValueError, also where it is nested too deep.

    With `unique` an object that has a name twice is refused too: another reader may take the other value.
    """
    try:
        return json.loads(text, object_pairs_hook=_object if unique else None)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deep") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("the JSON has a name twice")
    return found


def printable(text: str) -> str:
    """The text without characters that command a terminal or change its direction of writing; lines and tabs stay.

    Prompts, names and messages may quote a stranger's file.
    """
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "\N{REPLACEMENT CHARACTER}"
        for c in text
    )
