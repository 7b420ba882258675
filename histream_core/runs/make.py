"""Finishes a kept run from its current state: writes every chunk at once, then the video and the cut list.

F pixel frames; H W in pixels here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from ..parallel.link import LostRankError
from ..plan import Plan, replay
from ..stream.inputs import Inputs, Source
from ..stream.prompts import Prompt
from ..video.writing import BackgroundWriter
from .backend import Backend, OpenStream
from .describe import prompts_of, video_tags
from .progress import Progress, Report, silent, timed_decode
from .restyle import EncodedSource, SourceVideo
from .review import Look, reviewed_by
from .session import Decoding, Session, Snapshots
from .store.folder import DRAFT
from .store.journal import Journal
from .store.manifest import Manifest
from .store.video import chunks_on_disk, join_finished, join_video, open_video_writer, write_cuts

Watch = Callable[[Journal], AbstractContextManager[Report]]
"""Function that watches a run while it is finished; its report is called as that of `make` is."""


def unwatched(_: Journal) -> AbstractContextManager[Report]:
    """Watch nothing."""
    return nullcontext(silent)


MAX_LOST = 3
"""Times that ranks may be lost one after the other without a finished chunk between."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Making:
    """Options of `make`: snapshots, tags, and callbacks that watch the run."""

    snapshots: Snapshots | None = None
    """When to write caches to the disk; its `cancel` are the exceptions by which the user stops a run."""
    tags: Mapping[str, str] | None = None
    """Tags stored in the video besides prompts and seeds."""
    report: Report = silent
    on_frames: Callable[[Tensor], None] | None = None
    """Called with the frames [F, H, W, 3] of each chunk."""
    source: Source | None = None
    """How the chunks of a restyled video begin."""
    video: SourceVideo | None = None
    """The video that is restyled: its source begins again where a run goes on after a rank was lost."""
    look: Look | None = None
    """Who looks at the LOW estimate of each chunk, and may have it drawn again."""

    @property
    def stops(self) -> tuple[type[BaseException], ...]:
        return (self.snapshots or Snapshots()).cancel


def make(
    backend: Backend, journal: Journal, how: Making | None = None, *, prompts: Sequence[Prompt] | None = None
) -> Progress:
    """Finish a run from its current state, write its video and cut list, and return the counts and times.

    A part of a run has latents alone, and no video. `prompts` None: made from the embeddings in the journal. Raises
    ValueError and OSError that say what to change; finished chunks stay. When the user stops the run, a video of the
    finished chunks is written too.
    """
    how = how or Making()
    (journal.folder / DRAFT).unlink(missing_ok=True)  # of a look at a chunk during which the run was killed
    prompts = prompts or prompts_of(journal.manifest, journal.texts(), journal.negative())
    try:
        progress = _outlive_ranks(partial(_attempt, backend, journal, how, prompts), journal, how)
    except how.stops:
        with suppress(OSError, ValueError):  # a courtesy: the segments are there in any case
            join_finished(journal, _tags(journal, how))
        raise
    if journal.manifest.part is None:
        join_video(journal, _tags(journal, how))
        write_cuts(journal.folder, journal.manifest)
    return progress


def _tags(journal: Journal, how: Making) -> dict[str, str]:
    """The tags of a run's video, with the seeds that it has by now."""
    manifest = journal.manifest
    words, seeds = [section.prompt for section in manifest.sections], [seed.seed for seed in manifest.seeds]
    return video_tags(words, seeds) | dict(how.tags or {})


def _outlive_ranks(attempt: Callable[[], Progress], journal: Journal, how: Making) -> Progress:
    """Make an attempt, and another one from the finished chunks on where a rank is lost.

    Raises LostRankError where ranks are lost MAX_LOST times without a chunk between.
    """
    lost = 0
    while True:
        before = journal.finished
        try:
            return attempt()
        except LostRankError as error:
            lost = 1 if journal.finished > before else lost + 1
            if lost == MAX_LOST:
                raise LostRankError(
                    f"{error}, {lost} times without a finished chunk: use fewer GPUs, or one"
                ) from error
            _log.warning(
                "%s: the ranks are started again, and the run goes on with chunk %d", error, journal.finished + 1
            )
            if how.video and isinstance(how.source, EncodedSource):
                how.source.begin_again(how.video.frames())


def _attempt(
    backend: Backend,
    journal: Journal,
    how: Making,
    prompts: Sequence[Prompt],
) -> Progress:
    """Finish the chunks of a run from its current state; the counts and times of this attempt."""
    progress = resumed_progress(backend, journal)

    def work(open_stream: OpenStream) -> None:
        if journal.manifest.part:
            _write_latents(journal, open_stream, progress, how)
        else:
            _write_chunks(backend, journal, open_stream, progress, how)

    backend.sample(journal.manifest.plan, prompts, progress, work)
    return progress


def _write_chunks(
    backend: Backend,
    journal: Journal,
    open_stream: OpenStream,
    progress: Progress,
    how: Making,
) -> None:
    """Write the frames of every chunk that has no file yet: first of the chunks in the journal, then of new ones."""
    first, writer = progress.chunks, None
    if first < journal.manifest.num_chunks:
        files = open_video_writer(journal, first, _tags(journal, how))
        writer = BackgroundWriter(files, times=progress.times).keeping_on(how.stops)

    def watch(progress: Progress) -> None:
        if writer:
            progress.note_first(writer.num_frames, 1)
        how.report(progress)

    progress.report = watch
    session = Session(
        journal,
        open_stream,
        backend.open_decoder(),
        inputs=Inputs(source=how.source, review=how.look and reviewed_by(how.look, journal, progress)),
        snapshots=how.snapshots,
        decoding=Decoding(backend.decode_device, ahead=backend.speed.decode == "ahead"),
    )
    with closing(session.run(first)) as chunks, writer or nullcontext():
        progress.pace.start()
        for finished in timed_decode(chunks, progress.times):
            if finished.frames is not None and writer:
                writer.write(finished.frames[0])
                progress.count_chunk(finished.frames.shape[1])
                if how.on_frames:
                    how.on_frames(finished.frames[0])
            watch(progress)
    if writer:
        progress.note_first(writer.num_frames, 1)


def _write_latents(journal: Journal, open_stream: OpenStream, progress: Progress, how: Making) -> None:
    """Denoise the chunks of a part, and decode none."""
    progress.report = how.report
    session = Session(journal, open_stream, inputs=Inputs(source=how.source), snapshots=how.snapshots)
    with closing(session.run(journal.finished)) as chunks:
        progress.pace.start()
        for finished in chunks:
            progress.count_chunk(frames_before(journal.manifest, finished.chunk.index + 1) - progress.frames)
            how.report(progress)


def resumed_progress(backend: Backend, journal: Journal) -> Progress:
    """The progress of a run before it continues; its finished chunks count as skipped."""
    manifest = journal.manifest
    done = chunks_on_disk(journal) if manifest.part is None else journal.finished
    rest = replay(_up_to_part(manifest), journal.finished)
    progress = backend.new_progress(rest)
    recached = sum(section.recache for section in manifest.sections if section.first_chunk in manifest.kept)
    by_others = progress.pace.begin_at(manifest.kept.start)
    progress.num_calls = rest.num_calls() - by_others + recached * len(manifest.plan.grids)
    progress.chunks = done
    progress.pace.skip(done)
    progress.frames = progress.skipped_frames = frames_before(manifest, done)
    return progress


def _up_to_part(manifest: Manifest) -> Plan:
    """The plan of a run; for a part one that ends with it, from which the time left follows."""
    plan = manifest.plan
    if manifest.kept.stop == plan.num_chunks:
        return plan
    return replace(plan, num_latent_frames=plan.chunks[manifest.kept.stop].frames.start, cropped_frames=0)


def frames_before(manifest: Manifest, chunk: int) -> int:
    """Number of pixel frames of the video in the chunks before `chunk`."""
    chunks = manifest.plan.chunks
    return chunks[chunk].first_pixel_frame if chunk < len(chunks) else manifest.plan.num_pixel_frames
