"""Parts of a run, each with some of its chunks in a folder of its own, become one run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from .branching import begun_aside, share
from .folder import CHUNKS, DamagedRunError
from .journal import Journal, chunk_path, sound_path, write_texts
from .manifest import Manifest, differences
from .new import write_run


def join_parts(parts: Sequence[Path], folder: Path) -> Journal:
    """Create the run whose chunks are in `parts`, in their order; its video is not decoded yet.

    Chunks are linked where the disk can do that, else copied, and their files are those of a run that was made at
    once. The parts stay. Raises DamagedRunError where a chunk is missing, ValueError for parts of different runs, and
    as `create_run` does; nothing is left then.
    """
    with ExitStack() as opened:
        journals = [opened.enter_context(Journal(part)) for part in parts]
        first = journals[0]
        whole = _whole([journal.manifest for journal in journals], parts)
        for journal in journals:
            if journal.finished < journal.manifest.kept.stop:
                missing = chunk_path(journal.folder, journal.finished)
                raise DamagedRunError(f"{missing} is missing: submit the list again")
        with begun_aside(folder) as aside:
            write_run(aside, whole)
            write_texts(aside, first.stored_texts())
            for journal in journals:
                share([chunk_path(journal.folder, index) for index in journal.manifest.kept], aside / CHUNKS)
            sound = sound_path(first.folder, whole)
            share([sound] if sound else [], aside)
    return Journal(folder)


def _whole(manifests: Sequence[Manifest], parts: Sequence[Path]) -> Manifest:
    """The manifest of the run that parts belong to."""
    whole = replace(manifests[0], part=None)
    for manifest, part in zip(manifests[1:], parts[1:], strict=True):
        if found := differences(whole, manifest):
            raise ValueError(
                f"the run in {part} differs from the one in {parts[0]} in {', '.join(found)}, as GPUs of other kinds "
                f"round it: remove {part.parent}, and submit the list again with workers of one kind"
            )
    ends = [range(0), *(manifest.kept for manifest in manifests), range(whole.num_chunks, whole.num_chunks)]
    for before, after in pairwise(ends):
        if before.stop != after.start:
            raise DamagedRunError(f"no part of the run in {parts[0].parent} has chunk {before.stop}: make it again")
    return whole
