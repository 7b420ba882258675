"""What a user does with runs: start, resume, extend, retry, branch, list, clean up."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ..files.disk import partial_name, sync_folder
from ..plan.chunks import Plan, lengthen, with_anchors
from ..plan.sizes import latent_frames, whole_length
from .store import whole_latent
from .store.journal import (
    CHUNKS,
    LOCK,
    MANIFEST,
    SNAPSHOTS,
    SOUND,
    TEXTS,
    DamagedRunError,
    Journal,
    check_run,
    chunk_indices,
    chunk_path,
    create,
    inside,
    lock,
    read_manifest,
    snapshot_paths,
    sound_path,
    text_paths,
    write_texts,
)
from .store.lock import is_locked
from .store.manifest import Base, Manifest, Section, Seed, check_longer, differences, kept_frames, words_of_seeds
from .store.segments import SEGMENTS, checksums_of, segment_files
from .store.video import CUTS, common_segments, drop_segment, picture_files, section_paths, unfinished_path, video_path

CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""What a disk says that knows no second name for a file."""


def start(folder: str | Path, manifest: Manifest, texts: Iterable[Tensor] = (), sound: bytes | None = None) -> Journal:
    """A new run in `folder`; with `texts`, the embeddings of its prompts, it can go on without a text encoder.

    `sound` is what `pack_sound` makes of a file, where the manifest names one. Raises FileExistsError where a run is
    already.
    """
    create(Path(folder), manifest, texts, sound)
    return Journal(folder)


def resume(folder: str | Path, now: Manifest | None = None) -> Journal:
    """Open a run to go on with it. With `now`, what would be started today, it is refused if anything differs.

    Raises FileNotFoundError, RunInUseError, DamagedRunError, or ValueError that names what differs.
    """
    journal = Journal(folder)
    try:
        if now:
            check_same(journal, now)
    except ValueError:
        journal.close()
        raise
    return journal


def start_or_resume(folder: str | Path, manifest: Manifest) -> Journal:
    """Resume the run in `folder` if it is this one, start it where there is none."""
    if os.path.lexists(Path(folder) / MANIFEST):
        return resume(folder, manifest)
    return start(folder, manifest)


def check_same(journal: Journal, now: Manifest) -> None:
    """Refuse to go on with a run under other conditions. Raises ValueError that names what differs."""
    found = differences(journal.manifest, now)
    if found:
        raise ValueError(
            f"the run in {journal.folder} was made otherwise: {', '.join(found)} changed; "
            "put it back, or branch to go on with what is new"
        )


def notes(journal: Journal, now: Manifest) -> list[str]:
    """What may change the last bits of numbers though it is no setting: another device, torch, thread count."""
    then, today = journal.manifest.made_with, now.made_with
    return [
        f"the run was begun with {name} {then.get(name, 'none')}, now it is {today.get(name, 'none')}: new frames fit, "
        "but may not be the same to the last bit as in one run"
        for name in sorted(then.keys() | today.keys())
        if then.get(name) != today.get(name)
    ]


def extend(journal: Journal, plan: Plan, sections: Sequence[Section] = (), texts: Iterable[Tensor] = ()) -> None:
    """Make an open run longer: `plan` begins as its plan does. Chunks of new `sections` are counted from the old end.

    `texts` are the sections' embeddings, to be kept. Raises ValueError for a plan that begins otherwise or is not
    longer.
    """
    old = journal.manifest
    check_longer(old.plan, plan)
    run = branched(replace(old, plan=plan), old.num_chunks, sections=sections, anchors=plan.anchors)
    last = old.plan.chunks[-1]
    if kept_frames(old.plan, last) < len(last.frames):  # what was cut off comes back
        drop_segment(journal.folder, old, last.index)
    write_texts(journal.folder, texts)
    journal.rewrite(run)


def longer(manifest: Manifest, seconds: float) -> Plan:
    """A run's plan, made `seconds` longer at the run's rate, rounded up to what the VAE can make. Raises ValueError."""
    if not 0 < seconds < math.inf:
        raise ValueError(f"{seconds:g} seconds is no length: use 5")
    num_frames = whole_length(manifest.plan.num_pixel_frames + math.ceil(seconds * manifest.settings.fps))
    return lengthen(manifest.plan, latent_frames(num_frames))


def branched(
    manifest: Manifest,
    chunk: int,
    *,
    seed: int | None = None,
    sections: Sequence[Section] = (),
    anchors: Sequence[int] = (),
    scenes: Sequence[int] = (),
) -> Manifest:
    """The run that is like another up to `chunk`, and from there on has another seed or other prompts.

    Chunks of `sections` are counted from `chunk`; `anchors` and `scenes` are the first latent frames of those that
    they begin with. With the seed that it had it is the same run.
    """
    plan, seeds, old = manifest.plan, manifest.seeds, manifest.sections
    if seed is not None:
        seeds = tuple(old for old in seeds if old.first_chunk < chunk)
        if not seeds or seeds[-1].seed != seed:
            seeds = (*seeds, Seed(chunk, seed))
    if sections:
        new = (replace(section, first_chunk=chunk + section.first_chunk) for section in sections)
        old = (*(section for section in old if section.first_chunk < chunk), *new)
        begin = plan.chunks[chunk].frames.start if chunk < len(plan.chunks) else plan.generated_frames
        plan = with_anchors(plan, [*(anchor for anchor in plan.anchors if anchor < begin), *anchors], scenes)
    return replace(manifest, plan=plan, seeds=seeds, sections=old)


def branch(
    source: str | Path,
    folder: str | Path,
    chunk: int,
    manifest: Manifest | None = None,
    texts: Iterable[Tensor] = (),
    sound: bytes | None = None,
) -> Journal:
    """A new run that shares the first `chunk` chunks with another; `manifest` is what it is, as `branched` makes it.

    Without one, it is the same run again; its plan may be longer. `texts` are embeddings of new prompts, to be kept,
    and `sound` is another one than the old run's, as `pack_sound` packs it. The chunks are linked where the disk can do
    that, else copied, and so are the old run's sound and the closed segments that the new run would write just the
    same. The old run may be damaged behind them. Raises ValueError for chunks that are not there, FileExistsError where
    `folder` is not empty, and as `resume` does.
    """
    source, folder = Path(source), Path(folder)
    with Journal(source, first_chunks=chunk if chunk > 0 else None) as old:
        if not 0 <= chunk <= old.finished:
            raise ValueError(f"the run in {source} has {old.finished} finished chunks: branch from 0 to {old.finished}")
        manifest = manifest or old.manifest
        _check_head(old.manifest, manifest, chunk)
        base = Base(source.resolve().name, chunk, old.recipe(chunk - 1)) if chunk else None
        segments = common_segments(source, old.manifest, manifest, chunk)
        _check_free(folder)
        partial = folder.with_name(f".{folder.name}.partial")
        if os.path.lexists(partial / MANIFEST):  # an earlier attempt was killed
            clean(partial)
        same_sound = manifest.settings.sound == old.manifest.settings.sound
        create(partial, replace(manifest, base=base), texts, None if same_sound else sound)
        if text_paths(source):
            write_texts(partial, old.texts())
        _share([chunk_path(source, index) for index in range(chunk)], partial / CHUNKS)
        _share([*segments, *checksums_of(segments)], partial / SEGMENTS)
        if same_sound and manifest.settings.sound:
            _share([sound_path(source, old.manifest)], partial)
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()  # is empty
        partial.rename(folder)
        sync_folder(folder.parent)
    return Journal(folder)


def retry(source: str | Path, folder: str | Path, chunk: int, seed: int) -> Journal:
    """A new run that shares the first `chunk` chunks with another and goes on with another seed."""
    return branch(source, folder, chunk, branched(read_manifest(Path(source)), chunk, seed=seed))


@dataclass(frozen=True)
class RunInfo:
    """A run, as a look from outside shows it: nothing is locked, no chunk is read."""

    folder: Path
    state: str
    """finished, stopped, running or damaged."""
    problem: str
    """What is damaged."""
    chunks: int
    num_chunks: int
    num_bytes: int
    manifest: Manifest | None

    def line(self, name: str) -> str:
        """The run in a line, under that name."""
        if not self.manifest:
            return f"{name}  {self.state}: {self.problem}"
        settings, seconds = self.manifest.settings, self.manifest.plan.num_pixel_frames / self.manifest.settings.fps
        prompts = " | ".join(section.prompt for section in self.manifest.sections)
        base = self.manifest.base
        begun = f", {base.chunks} chunks from {base.run}" if base else ""
        return (
            f"{name}  {self.state} {self.chunks}/{self.num_chunks} chunks, {seconds:.1f} s of "
            f"{settings.size[0]}x{settings.size[1]}, {self.num_bytes / 1e6:.1f} MB, "
            f"seed {words_of_seeds(self.manifest)}{begun}  {prompts}"
        )


def list_runs(folder: str | Path) -> list[RunInfo]:
    """The run in `folder`, and those in the folders in it. Raises FileNotFoundError."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} does not exist: give the one that holds the runs")
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))]
    return [_look(place) for place in places if os.path.lexists(place / MANIFEST)]


def clean(folder: str | Path, *, video: bool = False) -> int:
    """Remove what a run left in its folder, and return the bytes that were freed; the video stays unless asked for.

    Files that are not a run's stay, and the folder with them. Raises as `resume` does, but takes damaged runs too.
    """
    folder = Path(folder)
    held = lock(folder)
    freed = 0
    try:
        with contextlib.suppress(DamagedRunError):
            manifest = read_manifest(folder)
            freed += _remove(segment_files(folder))
            files = [video_path(folder, manifest), unfinished_path(folder, manifest), *section_paths(folder, manifest)]
            files += [folder / name for name in CUTS]
            freed += _remove([path for path in map(partial_name, files) if path.is_file()])
            if video:
                freed += _remove(picture_files(folder, manifest))
                freed += _remove([path for path in files if path.is_file()])
                _drop_empty(video_path(folder, manifest))
        chunks = [chunk_path(folder, index) for index in sorted(chunk_indices(folder), reverse=True)]
        files = [folder / name for name in (whole_latent.NAME, SOUND, MANIFEST)]
        freed += _remove([*_partials(folder), *snapshot_paths(folder), *text_paths(folder), *chunks])
        freed += _remove([path for path in files if path.exists()])
    finally:
        held.release()
    (folder / LOCK).unlink(missing_ok=True)
    for name in (CHUNKS, SNAPSHOTS, TEXTS, SEGMENTS, ""):
        _drop_empty(folder / name)
    return freed


def _look(folder: Path) -> RunInfo:
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    try:
        check_run(folder)
        manifest = read_manifest(folder)
        chunks = len(chunk_indices(folder))
    except DamagedRunError as error:
        return RunInfo(folder, "damaged", str(error), 0, 0, num_bytes, None)
    if is_locked(folder / LOCK):
        state = "running"
    else:
        whole = chunks == manifest.num_chunks and video_path(folder, manifest).exists()
        state = "finished" if whole else "stopped"
    return RunInfo(folder, state, "", chunks, manifest.num_chunks, num_bytes, manifest)


def _check_head(old: Manifest, new: Manifest, chunk: int) -> None:
    """Shared chunks must be the frames that the new plan means by them."""
    kept = [[c.frames for c in manifest.plan.chunks[:chunk]] for manifest in (old, new)]
    if kept[0] != kept[1] or old.plan.size != new.plan.size:
        raise ValueError("the new run has another size or other chunks than the one it branches from: start a new one")


def _check_free(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise FileExistsError(f"{folder} is there already: choose a new folder for the branch")
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"the folder {folder.parent} does not exist: create it or choose another one")


def _share(files: list[Path], folder: Path) -> None:
    """Give files a second name in `folder`, or copy them."""
    if not files:
        return
    folder.mkdir(exist_ok=True)
    for path in files:
        try:
            os.link(path, folder / path.name)
        except OSError as error:
            if error.errno not in CANNOT_LINK:
                raise
            _copy(path, folder / path.name)
    sync_folder(folder)


def _copy(path: Path, target: Path) -> None:
    with path.open("rb") as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)
        copy.flush()
        os.fsync(copy.fileno())


def _partials(folder: Path) -> Iterator[Path]:
    """What a kill left half written."""
    for name in (MANIFEST, SOUND, whole_latent.NAME):
        yield from folder.glob(partial_name(Path(name)).name)
    for name in (CHUNKS, SNAPSHOTS, TEXTS):
        yield from inside(folder / name).glob("[0-9a-f]*.partial.safetensors")
        yield from (folder / name).glob(".[0-9]*.safetensors.partial")


def _remove(paths: list[Path]) -> int:
    freed = 0
    for path in paths:
        about = path.lstat()
        freed += about.st_size if about.st_nlink == 1 else 0  # a branch may still hold it
        path.unlink()
    return freed


def _drop_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
