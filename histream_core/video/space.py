"""Check of free disk space before a long run."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ..files.disk import check_folder
from ..files.reading import GIGABYTE
from .formats import Format

MARGIN = 1.1
"""Safety factor on the estimated size."""


def check_space(
    folder: Path, format: Format, size: tuple[int, int], num_frames: int, *, copies: int = 1, other_bytes: float = 0
) -> None:
    """Check that a video fits into `folder` and that the folder is writable. Raises OSError with the numbers.

    The size of the video is estimated by `Format.num_bytes`. `copies`: 2 where segments are kept beside the file that
    they are joined into. `other_bytes`: size of everything else that the run writes.
    """
    needed = format.num_bytes(size, num_frames) * copies + other_bytes
    name = f"{format.name}, and their run," if other_bytes else format.name
    check_bytes(folder, needed, f"{num_frames} frames of {size[0]}x{size[1]} as {name}", " or a smaller format")


def check_bytes(folder: Path, num_bytes: float, what: str, other: str = "") -> None:
    """Check that so many bytes fit into `folder` and that it is writable. Raises OSError with the numbers.

    `what` needs them, in words; `other` is what else could be changed.
    """
    check_folder(folder / "file")
    try:
        tempfile.TemporaryFile(dir=folder).close()  # permissions do not tell whether the disk is read-only
    except OSError as error:
        raise type(error)(f"cannot write in {folder}: {error.strerror}; choose another folder") from error
    needed, free = num_bytes * MARGIN, shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"{what} need about {needed / GIGABYTE:.1f} GB in {folder}, where {free / GIGABYTE:.1f} GB are free: "
            f"free space, choose another folder{other}"
        )
