"""Operations on runs, over any backend: begin, continue, extend, branch. `make.make` then makes the chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..plan import Plan
from ..plan.anchoring import NO_STARTS, Starts
from ..stream.prompts import Prompt
from .backend import Backend
from .describe import NewRun, check_possible, manifest_now, new_manifest, sections_of
from .store import branching, opening
from .store.journal import Journal
from .store.listing import clean
from .store.manifest import Manifest
from .store.new import create_run
from .store.opening import branched, check_same, environment_notes
from .store.video import check_targets, chunks_on_disk, lacks_checksums, listed_frames

FindSame = Callable[[Manifest], Journal | None]
"""Function that returns the journal of an existing run with an equal manifest; None if there is none."""


def _none(_: Manifest) -> None:
    """Find no run."""


def begin(
    backend: Backend,
    folder: Path,
    run: NewRun,
    *,
    find_same: FindSame = _none,
    ignore_memory: bool = False,
) -> Journal:
    """The journal of a new run in `folder`, or of an equal run that `find_same` finds.

    Raises ValueError and OSError for inputs that cannot work, and leaves nothing then.
    """
    manifest = new_manifest(backend, run)
    check_possible(backend, folder, manifest, sound=run.sound, ignore_memory=ignore_memory)
    journal = find_same(manifest) or create_run(folder, manifest, run.texts, run.sound)
    if run.given is not None:
        try:
            _write_given(journal, run.given)  # a resumed run then needs neither picture nor video
        except BaseException:
            journal.close()
            clean(journal.folder)
            raise
    return journal


def _write_given(journal: Journal, given: Tensor) -> None:
    """Write the chunks of `given` that are not there yet."""
    plan = journal.manifest.plan
    for index in range(journal.finished, plan.given_chunks):  # of a later part they are none
        frames = plan.chunks[index].frames
        journal.write(index, given[:, :, frames.start : frames.stop])


def check_resumed(backend: Backend, journal: Journal, *, ignore_memory: bool = False) -> list[str]:
    """Check that a run can continue: equal conditions and enough room; return notes on differences that are allowed.

    Raises ValueError that names the difference, and OSError.
    """
    manifest, now = journal.manifest, manifest_now(journal.manifest, backend)
    if journal.finished < manifest.plan.given_chunks:
        raise ValueError(
            f"the run in {journal.folder} was stopped before all that it begins with was stored: begin a new one"
        )
    check_same(journal, now)
    check_targets(journal.folder, manifest)
    done = chunks_on_disk(journal)
    check_possible(backend, journal.folder, manifest, done, ignore_memory=ignore_memory)
    return [*checksum_notes(journal), *environment_notes(journal, now)]


def checksum_notes(journal: Journal) -> list[str]:
    """A note on files that an older version wrote without checksums; no note if there are none."""
    lacking = lacks_checksums(journal.folder, journal.manifest)
    note = "files of the video have no checksums that bind them to the run, and are taken as they are"
    return [note] if lacking else []


def check_whole(journal: Journal) -> None:
    """Raise ValueError for a run that is not finished, its video and cut list included.

    Only such a run is made longer: an extension that was killed is then finished, and not made once more.
    """
    whole = journal.finished == chunks_on_disk(journal) == journal.manifest.num_chunks
    if not whole or listed_frames(journal.folder) != journal.manifest.plan.num_pixel_frames:
        raise ValueError(f"the run in {journal.folder} is not finished: histream resume {journal.folder} first")


def extend(journal: Journal, plan: Plan, prompts: Sequence[Prompt] = ()) -> None:
    """Make an open run longer: `plan` must begin as its plan does, and `prompts` are in force from the old end on.

    Raises ValueError for a plan that begins differently or is not longer, and for a run that is not finished.
    """
    check_whole(journal)
    sections = sections_of(prompts, journal.manifest.num_chunks)
    opening.lengthen_run(journal, plan, sections, [prompt.text.context for prompt in prompts])


def branch_manifest(
    manifest: Manifest,
    chunk: int,
    *,
    seed: int | None = None,
    prompts: Sequence[Prompt] = (),
    starts: Starts = NO_STARTS,
) -> Manifest:
    """The manifest of a branch: equal to `manifest` up to `chunk`, with another seed or other prompts from there on.

    `starts` is what the prompts begin.
    """
    sections = sections_of(prompts, chunk)
    return branched(manifest, chunk, seed=seed, sections=sections, starts=starts)


@dataclass(frozen=True)
class Branch:
    """Inputs of a branch: a new run that shares the first `chunk` chunks of the run in `source`."""

    source: Path
    chunk: int
    manifest: Manifest
    """The manifest of the branch, from `branch_manifest`."""
    prompts: Sequence[Prompt] = ()
    """The new prompts, from chunk `chunk` on."""
    sound: bytes | None = None
    """A sound to use instead of that of `source`, packed by `pack_sound`."""


def branch(
    backend: Backend, folder: Path, new: Branch, *, find_same: FindSame = _none, ignore_memory: bool = False
) -> Journal:
    """The journal of a branch in `folder`, or of an equal one that `find_same` finds. Raises as `begin` does."""
    manifest = manifest_now(new.manifest, backend)
    check_possible(backend, folder, manifest, sound=new.sound, ignore_memory=ignore_memory)
    texts = [prompt.text.context for prompt in new.prompts]
    return find_same(manifest) or branching.create_branch(new.source, folder, new.chunk, manifest, texts, new.sound)
