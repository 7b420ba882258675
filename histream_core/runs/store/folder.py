"""The names in a run's folder, and checks that each is what a run left there, and no link to elsewhere.

A folder is that of a run only if its manifest says so. Nothing is opened here but the manifest.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ...files.reading import MEGABYTE, read_bytes
from .manifest import envelope

MANIFEST, LOCK, CHUNKS, SNAPSHOTS, TEXTS = "manifest.json", "lock", "chunks", "snapshots", "texts"
SOUND, SEGMENTS = "sound.mka", "segments"
DRAFT = "draft.png"
"""The picture of a chunk at LOW that somebody is asked about; gone when the answer is there."""

FILES = (MANIFEST, LOCK, SOUND, DRAFT)
FOLDERS = (CHUNKS, SNAPSHOTS, TEXTS, SEGMENTS)

MAX_MANIFEST = 32 * MEGABYTE
"""Largest size in bytes of a manifest: that of a timeline of a hundred thousand prompts."""


class DamagedRunError(ValueError):
    """Raised for a folder that is not as a run left it; the message names the file and what is wrong."""


def check_run(folder: Path) -> None:
    """Raise FileNotFoundError or DamagedRunError for a folder that holds no run; nothing in it is changed."""
    if not os.path.lexists(folder / MANIFEST):
        raise FileNotFoundError(f"{folder} holds no run: give a folder that was made with --run-dir")
    for name in FOLDERS:
        check_folder_of_run(folder / name)
    for name in FILES:
        check_file_of_run(folder / name)
    text = manifest_text(folder)
    try:
        envelope(text)
    except ValueError as error:
        raise DamagedRunError(f"{folder / MANIFEST} {error}") from error


def manifest_text(folder: Path) -> str:
    """The text of a run's manifest, of a bounded size. Raises DamagedRunError."""
    path = inside(folder / MANIFEST)
    try:
        return read_bytes(path, MAX_MANIFEST).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedRunError(f"{path} is not the manifest of a run: it is no text in UTF-8") from error
    except OSError as error:
        raise DamagedRunError(f"{path} cannot be read: {error.strerror or error}") from error


def inside(path: Path) -> Path:
    """Return `path`; raises DamagedRunError if it leads out of the run's folder."""
    if path.is_symlink():
        raise DamagedRunError(f"{path} is a link to another place: a run keeps to its own folder")
    return path


def check_file_of_run(path: Path) -> None:
    """Raise DamagedRunError for a link, and for a folder, a pipe or a device in the place of a file."""
    if os.path.lexists(inside(path)) and not stat.S_ISREG(path.lstat().st_mode):
        raise DamagedRunError(f"{path} is no ordinary file, as a run has one there: remove it, or put the file back")


def check_folder_of_run(path: Path) -> None:
    """Raise DamagedRunError for a link, and for anything else in the place of a folder."""
    if os.path.lexists(inside(path)) and not path.is_dir():
        raise DamagedRunError(f"{path} is no folder, as a run has one there: remove it, or put the folder back")


def own_folder(path: Path) -> None:
    """Make a folder of a run, unless it is there. Raises DamagedRunError and OSError."""
    check_folder_of_run(path)
    path.mkdir(exist_ok=True)
