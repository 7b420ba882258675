"""New folders of runs: locked before anything is written, and gone again if they cannot be begun."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

from ...files.disk import check_length, disk_errors, partial_name, sync_folder, write_whole
from .folder import CHUNKS, FOLDERS, LOCK, MANIFEST, SNAPSHOTS, SOUND, TEXTS, inside, own_folder
from .journal import TEXT, Journal, write_manifest, write_texts
from .listing import remove_run
from .lock import Lock, RunInUseError, is_own, take
from .manifest import Manifest

_BEGUN = {LOCK, *FOLDERS, SOUND, *(partial_name(Path(name)).name for name in (MANIFEST, SOUND))}
"""Names that a start that was killed may have left."""


def create_run(
    folder: str | Path, manifest: Manifest, texts: Iterable[Tensor] = (), sound: bytes | None = None
) -> Journal:
    """Create a run, and return its journal, which holds the lock.

    With `texts`, the embeddings of its prompts, it can be resumed without a text encoder. `sound` is from `pack_sound`,
    if the manifest names one. Raises FileExistsError for a folder that holds something, RunInUseError, and OSError if
    it cannot be written; nothing is left then.
    """
    folder = Path(folder)
    with new_folder(folder) as held:
        write_run(folder, manifest, texts, sound)
        return Journal(folder, held=held)


def write_run(folder: Path, manifest: Manifest, texts: Iterable[Tensor] = (), sound: bytes | None = None) -> None:
    """Write the files that a run begins with into a locked folder, the manifest last."""
    write_texts(folder, texts)
    if sound is not None:
        write_whole(inside(folder / SOUND), sound)
    write_manifest(folder, manifest)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Lock]:
    """The folder of a new run, which is locked first and stays so; an exception in the block leaves nothing."""
    check_free(folder)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with disk_errors(folder, RunInUseError):
        folder.mkdir(parents=True, exist_ok=True)
        for path in missing:
            sync_folder(path.parent)
        held = take(folder / LOCK)
    try:
        check_free(folder)  # another start may have been faster
        try:
            with disk_errors(folder):
                own_folder(folder / CHUNKS)
                own_folder(folder / SNAPSHOTS)
            yield held
        except BaseException:
            remove_run(folder)
            held.remove()
            for path in missing:
                with contextlib.suppress(OSError):
                    path.rmdir()
            raise
    except BaseException:
        held.release()
        raise


def check_free(folder: Path) -> None:
    """Raise FileExistsError for a folder that holds anything but what a start that was killed has left."""
    check_length(folder, partial=False)
    if not os.path.lexists(folder):
        return
    if os.path.lexists(folder / MANIFEST):
        raise FileExistsError(f"{folder} holds a run already: histream resume {folder}, or choose another folder")
    if folder.is_symlink() or not folder.is_dir() or not _is_begun(folder):
        raise FileExistsError(f"{folder} is not empty: a new run wants a folder of its own, choose another one")


def _is_begun(folder: Path) -> bool:
    """Whether a folder is empty, or as a start that was killed has left it."""
    names = {path.name for path in folder.iterdir()}
    if not names:
        return True
    if not is_own(folder / LOCK) or names - _BEGUN:
        return False
    folders = names.intersection(FOLDERS)
    if names - {LOCK, *FOLDERS} and not folders.issuperset((CHUNKS, SNAPSHOTS)):
        return False
    if any((folder / name).is_symlink() or not (folder / name).is_dir() for name in folders):
        return False
    inner = (path.name for name in folders - {TEXTS} for path in (folder / name).iterdir())
    texts = (folder / TEXTS).glob("*") if TEXTS in folders else ()
    return not any(inner) and all(TEXT.fullmatch(path.name.replace(".partial.", ".")) for path in texts)
