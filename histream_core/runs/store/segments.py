"""The segments of a run's video: a closed file for each chunk, with its checksum in a file beside it.

A segment without a checksum, left by a kill or an older version, is accepted unchecked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ...files.disk import write_whole
from ...video.writers import Segments
from .fingerprint import hash_file
from .folder import SEGMENTS, DamagedRunError, inside

_SEGMENT = re.compile(r"seg-[0-9]{5,9}(\.partial)?\.[a-z0-9]+")


class KeptSegments(Segments):
    """Writer of segments that writes the checksum of each closed segment."""

    def cut(self) -> None:
        path = self._open and self._open.path
        if path:
            checksum_path(path).unlink(missing_ok=True)  # of an older segment, which is about to be replaced
        super().cut()
        if path:
            write_whole(checksum_path(path), hash_file(path).encode())


def checksum_path(segment: Path) -> Path:
    """Path of the checksum of a segment."""
    return inside(segment.with_suffix(".sha256"))


def checksums_of(segments: Sequence[Path]) -> list[Path]:
    """Paths of the checksums of those segments that have one."""
    return [path for path in map(checksum_path, segments) if path.exists()]


def check_segments(segments: Sequence[Path]) -> None:
    """Raise DamagedRunError for segments that are not as they were written."""
    for path in segments:
        kept = checksum_path(path)
        if kept.exists() and path.exists() and kept.read_bytes() != hash_file(path).encode():
            raise DamagedRunError(
                f"{path} was changed after it was written, its checksum does not fit: remove it and write it again"
            )


def segment_files(folder: Path) -> list[Path]:
    """Paths of all segments and their checksums, including half-written ones."""
    segments = inside(folder / SEGMENTS)
    return sorted(path for path in segments.glob("seg-*") if _SEGMENT.fullmatch(path.name))
