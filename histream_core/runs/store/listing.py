"""Listing and cleaning of runs, without opening them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...files.disk import partial_name
from ...files.reading import printable
from . import whole_latent
from .folder import CHUNKS, DRAFT, LOCK, MANIFEST, SEGMENTS, SNAPSHOTS, SOUND, TEXTS, DamagedRunError, check_run, inside
from .journal import chunk_indices, chunk_path, lock, read_manifest, snapshot_paths, text_paths
from .lock import is_locked
from .manifest import Manifest, words_of_seeds
from .segments import segment_files
from .video import CUTS, is_written, lacks_checksums, picture_files, section_paths, unfinished_path, video_path


@dataclass(frozen=True)
class RunInfo:
    """Summary of a run, made without locking it or reading a chunk."""

    folder: Path
    state: str
    """One of "finished", "stopped", "running" and "damaged"."""
    problem: str
    """Description of the damage."""
    chunks: int
    num_chunks: int
    num_bytes: int
    manifest: Manifest | None
    lacks_checksums: bool = False
    """Whether files of the video have no checksums, as an older version left them."""

    def line(self, name: str) -> str:
        """One line about the run, with `name` as its name; nothing in it commands a terminal."""
        return printable(" ".join(self._words(name).splitlines()))

    def _words(self, name: str) -> str:
        if not self.manifest:
            return f"{name}  {self.state}: {self.problem}"
        settings, seconds = self.manifest.settings, self.manifest.plan.num_pixel_frames / self.manifest.settings.fps
        prompts = " | ".join(section.prompt for section in self.manifest.sections)
        base = self.manifest.base
        begun = f", {base.chunks} chunks from {base.run}" if base else ""
        lacking = ", files without checksums" if self.lacks_checksums else ""
        return (
            f"{name}  {self.state} {self.chunks}/{self.num_chunks} chunks, {seconds:.1f} s of "
            f"{settings.size[0]}x{settings.size[1]}, {self.num_bytes / 1e6:.1f} MB, "
            f"seed {words_of_seeds(self.manifest)}{begun}{lacking}  {prompts}"
        )


def list_runs(folder: str | Path) -> list[RunInfo]:
    """The run in `folder`, and the runs in its subfolders. Raises FileNotFoundError."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} does not exist: give the one that holds the runs")
    inner = (path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    places = [folder, *sorted(path for path in inner if not path.name.startswith("."))]
    return [_look(place) for place in places if os.path.lexists(place / MANIFEST)]


def clean(folder: str | Path, *, video: bool = False) -> int:
    """Remove the files of a run and return the number of bytes freed; the video is removed only if `video`.

    Other files stay, and the folder with them. Raises as `resume` does, but accepts damaged runs whose manifest can
    be told to be one of ours.
    """
    folder = Path(folder)
    held = lock(folder)
    try:
        freed = remove_run(folder, video=video)
        held.remove()
    except BaseException:
        held.release()
        raise
    _drop_empty(folder)
    return freed


def remove_run(folder: Path, *, video: bool = False) -> int:
    """Remove the files of a locked run, but not the lock, and return the number of bytes freed."""
    freed = _remove(segment_files(folder))
    with contextlib.suppress(DamagedRunError):
        manifest = read_manifest(folder)
        files = [video_path(folder, manifest), unfinished_path(folder, manifest), *section_paths(folder, manifest)]
        files += [folder / name for name in CUTS]
        freed += _remove(map(partial_name, files))
        if video:
            freed += _remove(picture_files(folder, manifest))
            freed += _remove(files)
            _drop_empty(video_path(folder, manifest))
    chunks = [chunk_path(folder, index) for index in sorted(chunk_indices(folder), reverse=True)]
    files = [folder / name for name in (whole_latent.NAME, SOUND, DRAFT, MANIFEST)]
    freed += _remove([*_partials(folder), *snapshot_paths(folder), *text_paths(folder), *chunks])
    freed += _remove(files)
    for name in (CHUNKS, SNAPSHOTS, TEXTS, SEGMENTS):
        _drop_empty(folder / name)
    return freed


def _look(folder: Path) -> RunInfo:
    num_bytes = sum(map(_num_bytes, folder.rglob("*")))
    try:
        check_run(folder)
        manifest = read_manifest(folder)
        chunks, lacking = len(chunk_indices(folder)), lacks_checksums(folder, manifest)
    except DamagedRunError as error:
        return RunInfo(folder, "damaged", str(error), 0, 0, num_bytes, None)
    if is_locked(folder / LOCK):
        state = "running"
    else:
        whole = chunks == manifest.num_chunks and is_written(folder, manifest)
        state = "finished" if whole else "stopped"
    return RunInfo(folder, state, "", chunks, manifest.num_chunks, num_bytes, manifest, lacking)


def _num_bytes(path: Path) -> int:
    """The size of a file; 0 of anything else, and of what a run that goes on has removed meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        about = path.lstat()
        return about.st_size if stat.S_ISREG(about.st_mode) else 0
    return 0


def _partials(folder: Path) -> Iterator[Path]:
    """Half-written files that a kill left."""
    for name in (MANIFEST, SOUND, DRAFT, whole_latent.NAME):
        yield from folder.glob(partial_name(Path(name)).name)
    for name in (CHUNKS, SNAPSHOTS, TEXTS):
        yield from inside(folder / name).glob("[0-9a-f]*.partial.safetensors")
        yield from (folder / name).glob(".[0-9]*.safetensors.partial")


def _remove(paths: Iterable[Path]) -> int:
    """Remove those of `paths` that are there, and no folders."""
    freed = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            about = path.lstat()
            if stat.S_ISDIR(about.st_mode):
                continue
            freed += about.st_size if about.st_nlink == 1 else 0  # a branch may still hold it
            path.unlink()
    return freed


def _drop_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
