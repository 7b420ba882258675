"""Opening of runs: resume, make longer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ...plan.anchoring import NO_STARTS, Starts
from ...plan.chunks import Plan, lengthen, with_anchors
from ...plan.sizes import frames_in, latent_frames, whole_length
from .folder import MANIFEST
from .journal import Journal, write_texts
from .manifest import Manifest, Section, Seed, check_longer, differences, kept_frames
from .new import create_run
from .video import drop_segment


def resume(folder: str | Path, now: Manifest | None = None) -> Journal:
    """Open a run to continue it. `now` is the manifest it would have if begun now; any difference is refused.

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
    """Resume the run in `folder` if its manifest is equal; create it if there is none."""
    if os.path.lexists(Path(folder) / MANIFEST):
        return resume(folder, manifest)
    return create_run(folder, manifest)


def check_same(journal: Journal, now: Manifest) -> None:
    """Raise ValueError that names the differences if the run would continue under other conditions."""
    found = differences(journal.manifest, now)
    if found:
        raise ValueError(
            f"the run in {journal.folder} was made otherwise: {', '.join(found)} changed; "
            "put it back, or branch to go on with what is new"
        )


def environment_notes(journal: Journal, now: Manifest) -> list[str]:
    """Notes on differences that may change the last bits of numbers: another device, torch version, thread count."""
    then, today = journal.manifest.made_with, now.made_with
    return [
        f"the run was begun with {name} {then.get(name, 'none')}, now it is {today.get(name, 'none')}: new frames fit, "
        "but may not be the same to the last bit as in one run"
        for name in sorted(then.keys() | today.keys())
        if then.get(name) != today.get(name)
    ]


def lengthen_run(journal: Journal, plan: Plan, sections: Sequence[Section] = (), texts: Iterable[Tensor] = ()) -> None:
    """Make an open run longer: `plan` must begin as its plan does. New `sections` count chunks from the old end.

    `texts` are embeddings of the sections, to store. Raises ValueError for a plan that begins differently or is not
    longer.
    """
    old = journal.manifest
    check_longer(old.plan, plan)
    run = branched(
        replace(old, plan=plan), old.num_chunks, sections=sections, starts=Starts(plan.anchors, jumps=plan.jumps)
    )
    last = old.plan.chunks[-1]
    if kept_frames(old.plan, last) < len(last.frames) or old.plan.cropped_frames:  # what was cut off comes back
        drop_segment(journal.folder, old, last.index)
    write_texts(journal.folder, texts)
    journal.rewrite(run)


def longer(manifest: Manifest, seconds: float) -> Plan:
    """The run's plan, `seconds` longer, rounded up to a length that the VAE can decode to. Raises ValueError."""
    return longer_by(manifest.plan, seconds, manifest.settings.fps)


def longer_by(plan: Plan, seconds: float, fps: float) -> Plan:
    """A plan `seconds` longer at `fps` frames per second, as `longer` does. Raises ValueError."""
    return lengthen(plan, latent_frames(whole_length(plan.num_pixel_frames + frames_in(seconds, fps))))


def branched(
    manifest: Manifest,
    chunk: int,
    *,
    seed: int | None = None,
    sections: Sequence[Section] = (),
    starts: Starts = NO_STARTS,
) -> Manifest:
    """The manifest of a branch: equal to `manifest` up to `chunk`, with another seed or other prompts from there on.

    `sections` count chunks from `chunk`; `starts` is what they begin. With the old seed and no sections the result is
    equal to `manifest`.
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
        anchors, jumps = ([first for first in firsts if first < begin] for firsts in (plan.anchors, plan.jumps))
        plan = with_anchors(plan, [*anchors, *starts.anchors], starts.scenes, [*jumps, *starts.jumps])
    return replace(manifest, plan=plan, seeds=seeds, sections=old)
