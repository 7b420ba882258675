"""What can be done with runs, over any backend: begin, go on, extend, branch. The chunks are made by `make.make`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..plan import Plan
from ..stream.prompts import Prompt
from .backend import Backend
from .describe import NewRun, check_possible, manifest_now, new_manifest, sections_of
from .store import branching, opening
from .store.journal import Journal
from .store.manifest import Manifest
from .store.opening import branched, check_same, environment_notes
from .store.video import chunks_on_disk

FindSame = Callable[[Manifest], Journal | None]
"""The journal of a run that is there already and is the same in all; None where there is none."""


def _none(_: Manifest) -> None:
    """Look for no such run."""


def begin(
    backend: Backend,
    folder: Path,
    run: NewRun,
    *,
    find_same: FindSame = _none,
    ignore_memory: bool = False,
) -> Journal:
    """The journal of a new run in `folder`, or of the same one that was begun before, if `find_same` finds it.

    Raises ValueError and OSError for what cannot work, and nothing is left then.
    """
    manifest = new_manifest(backend, run)
    check_possible(backend, folder, manifest, sound=run.sound, ignore_memory=ignore_memory)
    journal = find_same(manifest) or opening.create_run(folder, manifest, run.texts, run.sound)
    if run.given is not None and not journal.finished:
        journal.write(0, run.given)  # so that going on needs the picture no more
    return journal


def check_resumed(backend: Backend, journal: Journal, *, ignore_memory: bool = False) -> list[str]:
    """Refuse to go on with a run under other conditions or without room; return what else is new, in words.

    Raises ValueError that names what is not as it was, and OSError.
    """
    manifest, now = journal.manifest, manifest_now(journal.manifest, backend)
    check_same(journal, now)
    done = chunks_on_disk(journal.folder, manifest)
    check_possible(backend, journal.folder, manifest, done, ignore_memory=ignore_memory)
    return environment_notes(journal, now)


def extend(journal: Journal, plan: Plan, prompts: Sequence[Prompt] = ()) -> None:
    """Make an open run longer: `plan` begins as its plan does, and `prompts` hold from the old end on.

    Raises ValueError for a plan that begins otherwise or is not longer.
    """
    sections = sections_of(prompts, journal.manifest.num_chunks)
    opening.lengthen_run(journal, plan, sections, [prompt.text.context for prompt in prompts])


def branch_manifest(
    manifest: Manifest,
    chunk: int,
    *,
    seed: int | None = None,
    prompts: Sequence[Prompt] = (),
    anchors: Sequence[int] = (),
    scenes: Sequence[int] = (),
) -> Manifest:
    """The run that is like another up to `chunk`, and from there on has another seed or other prompts.

    `anchors` and `scenes` are the first latent frames of those that the prompts begin with.
    """
    sections = sections_of(prompts, chunk)
    return branched(manifest, chunk, seed=seed, sections=sections, anchors=anchors, scenes=scenes)


@dataclass(frozen=True)
class Branch:
    """A run that is about to share the first `chunk` chunks of the one in `source`."""

    source: Path
    chunk: int
    manifest: Manifest
    """What it becomes, as `branch_manifest` returns it."""
    prompts: Sequence[Prompt] = ()
    """The new ones."""
    sound: bytes | None = None
    """Another sound than that of `source`, as `pack_sound` packs it."""


def branch(
    backend: Backend, folder: Path, new: Branch, *, find_same: FindSame = _none, ignore_memory: bool = False
) -> Journal:
    """The journal of a branch in `folder`, or of the same one that was begun before. Raises as `begin` does."""
    manifest = manifest_now(new.manifest, backend)
    check_possible(backend, folder, manifest, sound=new.sound, ignore_memory=ignore_memory)
    texts = [prompt.text.context for prompt in new.prompts]
    return find_same(manifest) or branching.create_branch(new.source, folder, new.chunk, manifest, texts, new.sound)
