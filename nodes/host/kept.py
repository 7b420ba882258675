"""Finishes a kept run from its current state, with progress and previews in the node."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import comfy.model_management
from torch import Tensor

from ...histream_core.plan.chunks import replay
from ...histream_core.plan.schedule import Scale
from ...histream_core.plan.sizes import generated_size
from ...histream_core.runs import Journal, Snapshots, clean
from ...histream_core.runs.make import Making, make
from ...histream_core.runs.progress import Progress
from ...histream_core.runs.restyle import reopen
from ...histream_core.runs.store.video import chunks_on_disk, format_of, unfinished_path, video_path
from ...histream_core.runs.store.whole_latent import map_latent, write_latent
from ...histream_core.video.formats import Format
from ..settings import VideoChoice
from . import log as host_log
from .decode import decode_bytes
from .display import Display, told
from .preview import thumbnails
from .run_folders import name_of
from .runs import OpenRun
from .sizes import with_size
from .summary import summary_of_run
from .timeline import with_scenes

STOPS = (comfy.model_management.InterruptProcessingException, KeyboardInterrupt, GeneratorExit)
"""Exceptions by which the user stops a run."""


@dataclass(frozen=True)
class KeptVideo:
    """The result of a kept run."""

    run: str
    """Its folder, under the host's output folder."""
    path: Path
    """The video, or the folder of pictures."""
    format: Format
    latent: dict
    """A LATENT [1, C, T, H, W], un-normalised, memory-mapped from the disk."""
    summary: str
    """The run's settings, times and kernels, as text."""


def make_kept_video(run: OpenRun, choice: VideoChoice, *, tags: Mapping[str, str]) -> KeptVideo:
    """Finish an open run under the host's guider, and close it.

    Finished chunks stay when the run is stopped, unless `choice.discard` is set.
    """
    backend, journal = run.backend, run.journal
    folder, manifest = journal.folder, journal.manifest
    shape = (1, 16, manifest.plan.num_latent_frames, *manifest.plan.grids[Scale.HIGH])
    vae_bytes = decode_bytes(backend.vae, shape, backend.speed) + backend.encode_bytes(manifest.plan)
    backend = replace(backend, vae_bytes=vae_bytes)
    try:
        with journal:
            progress = _make(replace(run, backend=backend), choice, tags)
            samples = map_latent(write_latent(journal, backend.model.model.process_latent_out))
    except comfy.model_management.InterruptProcessingException:
        if choice.discard:
            clean(folder, video=True)
        else:
            _say_stopped(journal)
        raise
    name, path = name_of(folder), video_path(folder, manifest)
    line = f"{name}/{path.name}: {progress_line(progress)}"
    logging.getLogger("histream").info(line)
    host_log.tell(line)
    summary = summary_of_run(f"{name}/{path.name}", manifest, progress, backend)
    asked = generated_size(*manifest.settings.size)
    latent = with_size(with_scenes({"samples": samples}, manifest.plan), manifest.plan, asked)
    return KeptVideo(name, path, format_of(manifest.settings), latent, summary)


def _make(run: OpenRun, choice: VideoChoice, tags: Mapping[str, str]) -> Progress:
    """Make the missing chunks of a run; each decoded chunk moves the progress bar and is shown."""
    backend, journal = run.backend, run.journal
    manifest = journal.manifest
    missing = manifest.num_chunks - chunks_on_disk(journal)
    display = Display(max(1, replay(manifest.plan, journal.finished).num_steps() + missing))
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        seen[:] = [progress]
        display(progress)

    def show(frames: Tensor) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        display.count()
        for progress in seen:
            display.show_pictures(thumbnails(frames), progress)

    snapshots = Snapshots(every=choice.snapshots, on_cancel=choice.snapshots > 0, cancel=STOPS)
    source = reopen(backend, manifest, run.video)
    with told(display.where):
        return make(backend, journal, Making(snapshots, tags, report, show, source, run.video))


def _say_stopped(journal: Journal) -> None:
    folder, manifest = journal.folder, journal.manifest
    kept = f"{journal.finished} of {manifest.num_chunks} chunks are kept in {name_of(folder)}"
    unfinished = unfinished_path(folder, manifest)
    seen = f" ({unfinished.name} shows them)" if unfinished.exists() else ""
    host_log.warn(f"{kept}{seen}: press Run again with the same seed to go on, or use Resume Run")


def progress_line(progress: Progress) -> str:
    """One line about the progress of a run."""
    parts = [f"{progress.frames} of {progress.num_frames} frames"]
    if progress.frames > progress.skipped_frames:
        parts.append(f"{progress.seconds_per_frame:.2f} s for each")
    if progress.first_frames is not None:
        parts.append(f"the first after {progress.first_frames:.1f} s")
        parts.append(f"slowest: {progress.times.bottleneck}")
    return ", ".join(parts)
