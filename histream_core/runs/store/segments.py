"""The files of a run's video, each chunk's with checksums beside it: closed segments, or single pictures.

    segments/seg-00003.sha256   the SHA-256 of segment 3, and a hash of all that decides its frames
    segments/pic-00003.json     that hash for the pictures of chunk 3, and the size and SHA-256 of each

What was made by another run is told by the second hash, which an older version did not write. Files without checksums,
left by an older version, are accepted unchecked; a kill leaves none, for a segment gets its name after its checksum,
and pictures have a record that fits to none until all of them are there.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...files.disk import disk_errors, write_whole
from ...files.reading import MEGABYTE, parse_json, read_bytes, read_text
from ...video.formats import Format
from ...video.writers import PictureFolder, Segments, segment_name
from .fingerprint import hash_file
from .folder import SEGMENTS, DamagedRunError, inside, own_folder

Bind = Callable[[int], str]
"""Function that returns, for the index of a chunk, a hash of all that decides its frames in files."""

BEGUN = b'{"made_by": "", "pictures": {}}\n'
"""The record of pictures that are being written."""

MAX_CHECKSUM, MAX_RECORD = 1024, 4 * MEGABYTE

_SEGMENT = re.compile(r"seg-[0-9]{5,9}(\.partial)?\.[a-z0-9]+|pic-[0-9]{5,9}(\.partial)?\.json")


class KeptSegments(Segments):
    """Writer of segments that writes the checksum of each segment before the segment gets its name."""

    def __init__(self, folder: Path, format: Format, *, bind: Bind, **settings: Any) -> None:
        super().__init__(folder, format, **settings)
        self.bind = bind

    def record(self, partial: Path) -> None:
        index = self.first + len(self.finished)
        path = segment_name(self.folder, self.format, index)
        path.unlink(missing_ok=True)  # an older segment, to which the new checksum does not fit
        write_whole(checksum_path(path), f"{hash_file(partial)}\n{self.bind(index)}\n".encode())


class KeptPictures(PictureFolder):
    """Writer of pictures that writes the checksums of each chunk to `segments`.

    Every `write` is a chunk, `next_chunk` the first.
    """

    def __init__(
        self, folder: Path, format: Format, *, segments: Path, next_chunk: int, bind: Bind, **settings: Any
    ) -> None:
        super().__init__(folder, format, **settings)
        self.segments, self.next_chunk, self.bind = segments, next_chunk, bind

    def write(self, frames: Any) -> None:
        first, path = self.num_frames, record_path(self.segments, self.next_chunk)
        with disk_errors(path):
            own_folder(self.segments)
        write_whole(path, BEGUN)
        super().write(frames)
        names = [self._name(index) for index in range(first, self.num_frames)]
        pictures = {name.name: [name.stat().st_size, hash_file(name)] for name in names}
        write_whole(path, f"{json.dumps({'made_by': self.bind(self.next_chunk), 'pictures': pictures})}\n".encode())
        self.next_chunk += 1


def checksum_path(segment: Path) -> Path:
    """Path of the checksum of a segment."""
    return inside(segment.with_suffix(".sha256"))


def record_path(segments: Path, index: int) -> Path:
    """Path of the checksums of a chunk's pictures."""
    return inside(segments / f"pic-{index:05d}.json")


def checksums_of(segments: Sequence[Path]) -> list[Path]:
    """Paths of the checksums of those segments that have one."""
    return [path for path in map(checksum_path, segments) if path.exists()]


def is_file(path: Path) -> bool:
    """Whether `path` is an ordinary file of the run's folder. Raises DamagedRunError for a link."""
    try:
        return stat.S_ISREG(inside(path).lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def segment_made_by(segment: Path) -> str | None:
    """The hash of all that decided a segment, as written beside it; None if there is none."""
    words = _words(segment)
    return words[1] if len(words) > 1 else None


def _words(segment: Path) -> list[str]:
    try:
        return read_text(checksum_path(segment), MAX_CHECKSUM).split()
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        return ["damaged", "damaged"]


def pictures_made_by(segments: Path, index: int, names: Sequence[Path]) -> str | None:
    """The hash of all that decided a chunk's pictures; None if none is written, "" if the pictures do not fit to it."""
    record = read_record(segments, index)
    if record is None:
        return None
    kept = {name: size for name, (size, _) in record["pictures"].items()}
    there = {name.name: name.lstat().st_size for name in names}
    return record["made_by"] if kept == there else ""


def read_record(segments: Path, index: int) -> dict[str, Any] | None:
    """The checksums of a chunk's pictures; None if there are none. Those of a damaged file fit to nothing."""
    try:
        data = parse_json(read_bytes(record_path(segments, index), MAX_RECORD))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        data = None
    pictures = data.get("pictures") if isinstance(data, dict) and isinstance(data.get("made_by"), str) else None
    whole = isinstance(pictures, dict) and all(isinstance(row, list) and len(row) == 2 for row in pictures.values())
    return data if whole else {"made_by": "", "pictures": {}}


def check_segments(segments: Sequence[Path]) -> None:
    """Raise DamagedRunError for segments that are not as they were written."""
    for path in segments:
        words = _words(path)
        if words and is_file(path) and words[0] != hash_file(path):
            raise DamagedRunError(
                f"{path} was changed after it was written, its checksum does not fit: remove it and write it again, by "
                "histream resume"
            )


def check_pictures(segments: Path, index: int, folder: Path) -> None:
    """Raise DamagedRunError for pictures of a chunk that are not as they were written."""
    record = read_record(segments, index) or {"pictures": {}}
    for name, (_, checksum) in record["pictures"].items():
        path = inside(folder / Path(name).name)
        if not is_file(path) or hash_file(path) != checksum:
            raise DamagedRunError(
                f"{path} was changed after it was written, its checksum does not fit: remove it and write it again, by "
                "histream resume"
            )


def segment_files(folder: Path) -> list[Path]:
    """Paths of all segments and of all checksums, including half-written ones."""
    segments = inside(folder / SEGMENTS)
    return sorted(path for path in segments.glob("*") if _SEGMENT.fullmatch(path.name))
