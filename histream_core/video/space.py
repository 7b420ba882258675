"""Room on the disk for a video, asked for before a long run."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ..files.disk import check_folder
from .formats import Format

MARGIN = 1.1
"""Room to leave on a disk, as a factor on what is needed."""

GIGABYTE = 1e9


def check_space(
    folder: Path, format: Format, size: tuple[int, int], num_frames: int, *, copies: int = 1, beside: float = 0
) -> None:
    """Refuse a video that has no room in `folder`, or a folder that cannot be written, before any work is done.

    `copies` is 2 where segments are kept beside the file that they are joined into, `beside` the bytes of whatever
    else is written. The size is an estimate: see `Format.num_bytes`. Raises FileNotFoundError, PermissionError or
    another OSError.
    """
    check_folder(folder / "file")
    try:
        tempfile.TemporaryFile(dir=folder).close()  # asking for permissions is not enough: disks can be read-only
    except OSError as error:
        raise type(error)(f"cannot write in {folder}: {error.strerror}; choose another folder") from error
    needed = (format.num_bytes(size, num_frames) * copies + beside) * MARGIN
    free, name = shutil.disk_usage(folder).free, f"{format.name}, and their run," if beside else format.name
    if needed > free:
        raise OSError(
            f"{num_frames} frames of {size[0]}x{size[1]} as {name} need about {needed / GIGABYTE:.1f} GB in "
            f"{folder}, where {free / GIGABYTE:.1f} GB are free: free space, choose another folder or a smaller format"
        )
