"""Branches: a new run that shares the first chunks of another, by hard links if the disk has them, else by copies."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ...files.disk import check_folder, copy_whole, sync_folder
from ...plan.chunks import Plan
from .folder import CHUNKS, MANIFEST, SEGMENTS, own_folder
from .journal import Journal, chunk_path, read_manifest, sound_path, write_texts
from .listing import clean
from .manifest import Base, Manifest, refuse_part
from .new import check_free, new_folder, write_run
from .segments import checksums_of
from .video import common_segments

CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""Errors of a disk that has no hard links."""


def create_branch(
    source: str | Path,
    folder: str | Path,
    chunk: int,
    manifest: Manifest | None = None,
    texts: Iterable[Tensor] = (),
    sound: bytes | None = None,
) -> Journal:
    """Create a run that shares the first `chunk` chunks of another; `manifest` is the new run's, from `branched`.

    `manifest` None: that of the old run; its plan may be longer. `texts` are embeddings of new prompts to store, and
    `sound` is a new sound, packed by `pack_sound`. The chunks, and more if more were given to the old run, are linked
    where the disk can do that, else copied, and so are the old run's sound and the closed segments that the new run
    would write identically. The old run may be damaged after these chunks. Raises ValueError for chunks that do not
    exist, FileExistsError if `folder` is not empty, and as `resume` does.
    """
    source, folder = Path(source), Path(folder)
    chunk = num_shared(read_manifest(source).plan, chunk)
    with Journal(source, first_chunks=chunk if chunk >= 0 else None) as old:
        refuse_part(source, old.manifest)
        if not 0 <= chunk <= old.finished:
            raise ValueError(f"the run in {source} has {old.finished} finished chunks: branch from 0 to {old.finished}")
        manifest = manifest or old.manifest
        _check_head(old.manifest, manifest, chunk)
        base = Base(source.resolve().name, chunk, old.recipe(chunk - 1)) if chunk else None
        segments = common_segments(old, manifest, chunk)
        same_sound = manifest.settings.sound == old.manifest.settings.sound
        with begun_aside(folder) as partial:
            write_run(partial, replace(manifest, base=base), texts, None if same_sound else sound)
            write_texts(partial, old.stored_texts())
            share([chunk_path(source, index) for index in range(chunk)], partial / CHUNKS)
            share([*segments, *checksums_of(segments)], partial / SEGMENTS)
            sound_file = sound_path(source, old.manifest)
            if same_sound and sound_file:
                share([sound_file], partial)
    return Journal(folder)


@contextlib.contextmanager
def begun_aside(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write a run into, which takes its place at the end of the block.

    An exception in the block leaves nothing. Raises FileExistsError if `folder` is not empty.
    """
    check_free(folder)
    check_folder(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    if partial.is_symlink():
        raise FileExistsError(f"{partial}, where the run is begun, is a link: remove it, or choose another folder")
    if os.path.lexists(partial / MANIFEST):  # an earlier attempt was killed
        clean(partial)
    with new_folder(partial) as held:
        yield partial
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()  # an empty folder of that name is replaced
        partial.rename(folder)
        sync_folder(folder.parent)
    held.release()


def num_shared(plan: Plan, chunk: int) -> int:
    """Number of chunks that a branch at `chunk` of a run shares with it: those that were given too."""
    return chunk if chunk < 0 else max(chunk, plan.given_chunks)


def _check_head(old: Manifest, new: Manifest, chunk: int) -> None:
    """Raise ValueError unless the shared chunks have the same frames and size in both plans."""
    kept = [[c.frames for c in manifest.plan.chunks[:chunk]] for manifest in (old, new)]
    if kept[0] != kept[1] or old.plan.size != new.plan.size:
        raise ValueError("the new run has another size or other chunks than the one it branches from: start a new one")
    had, has = (manifest.keeps_low for manifest in (old, new))
    if chunk and had != has:
        was, way = ("with", "give one (histream branch --upsampler)") if had else ("without", "leave it out")
        raise ValueError(f"the shared chunks were made {was} an upsampler, which remembers them: {way}, or share none")


def share(files: list[Path], folder: Path) -> None:
    """Link files into `folder`, or copy them if the disk has no hard links."""
    if not files:
        return
    own_folder(folder)
    for path in files:
        try:
            os.link(path, folder / path.name)
        except OSError as error:
            if error.errno not in CANNOT_LINK:
                raise
            copy_whole(path, folder / path.name)
    sync_folder(folder)
