"""A run that is kept, from wherever it stands to its end: under the host's guider, every chunk a file at once."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import torch
from torch import Tensor

from ...histream_core.plan.chunks import Plan, replay
from ...histream_core.plan.schedule import Scale
from ...histream_core.plan.speed import Speed
from ...histream_core.runs import Journal, Session, Snapshots, clean
from ...histream_core.runs.kept import make_video, prompts_of
from ...histream_core.runs.render import Progress, counted
from ...histream_core.runs.store.manifest import kept_frames
from ...histream_core.runs.store.video import chunks_on_disk, format_of, unfinished_path, video_path
from ...histream_core.runs.store.whole_latent import map_latent, write_latent
from ...histream_core.stream.noise import Noise
from ...histream_core.stream.stream import Given, Stream
from ...histream_core.video.formats import Format
from ..settings import StepChoice, VideoChoice, WindowChoice
from . import log as host_log
from . import sampler as host
from . import vae as host_vae
from .decode import decode_bytes
from .preview import some_of
from .run import HostRun
from .run_folders import name_of
from .summary import summary_of_run
from .timeline import Timeline, with_scenes

STOPS = (comfy.model_management.InterruptProcessingException, KeyboardInterrupt, GeneratorExit)
"""How the user stops a run."""


@dataclass(frozen=True)
class KeptVideo:
    """What a run came to."""

    run: str
    """Its folder, under the host's output folder."""
    path: Path
    """The video, or the folder of pictures."""
    format: Format
    latent: dict
    """A LATENT [1, C, T, H, W], un-normalised; it lies on the disk and is read where it is looked at."""
    summary: str
    """What was made, how, and what it took."""


@dataclass(frozen=True)
class KeptRunSampler(host.ChunkSampler):
    """The sampler function of a kept run: every chunk goes to the disk, as a latent and as frames."""

    journal: Journal | None = None
    snapshots: Snapshots | None = None
    tags: Mapping[str, str] | None = None
    on_made: Callable[[Progress], None] = lambda progress: None

    def plan(self, shape: Sequence[int], timeline: Timeline | None = None) -> Plan:
        return self.journal.manifest.plan

    def make(self, run: HostRun, seed: int, device: torch.device) -> Iterator[Tensor]:
        journal, manifest, vae = self.journal, self.journal.manifest, self.vae
        missing = manifest.num_chunks - chunks_on_disk(journal.folder, manifest)
        rest = replay(manifest.plan, journal.finished)
        run.expect(rest, max(1, rest.num_steps() + missing))
        decoder = host_vae.open_decoder(vae, self.speed)
        texts = journal.texts()

        def make_session(progress: Progress, watch: Callable[[Progress], None]) -> Session:
            def make_stream(plan: Plan, noise: Noise, given: Given) -> Stream:
                prompts = prompts_of(manifest, texts, device=device)
                stream = run.stream(plan, noise, device, prompts=prompts, given=given, extra_bytes=self.extra_bytes)
                stream.denoise = counted(stream.denoise, progress, watch)
                return stream

            return Session(journal, make_stream, decoder, snapshots=self.snapshots, device=vae.device)

        def show(frames: Tensor) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            run.count()
            run.show_pictures(some_of(frames))

        def report(progress: Progress) -> None:
            if progress.first_frames is not None:
                run.bottleneck = progress.times.bottleneck

        made = make_video(journal, make_session, tags=self.tags, report=report, on_frames=show, stops=STOPS)
        self.on_made(made)
        last = manifest.plan.chunks[-1]
        yield journal.read(last.index)[:, :, : kept_frames(manifest.plan, last)]


def carry_on(
    model, vae, journal: Journal, choice: VideoChoice, *, tags: Mapping[str, str], speed: Speed | None = None
) -> KeptVideo:
    """Take an open run to its end under the host's guider, and close it.

    What is finished stays when the run is stopped, unless the artist wants it gone. `speed` None: as the run is.
    """
    folder, manifest = journal.folder, journal.manifest
    name, reports, runs = name_of(folder), [], []
    speed = speed or manifest.settings.speed
    shape = (1, 16, manifest.plan.num_latent_frames, *manifest.plan.grids[Scale.HIGH])
    try:
        with journal:
            sampler = KeptRunSampler(
                settings=host.model_settings(model),
                steps=StepChoice(),
                window=WindowChoice(),
                speed=speed,
                shape=shape,
                vae=vae,
                extra_bytes=decode_bytes(vae, shape, speed),
                journal=journal,
                snapshots=Snapshots(every=choice.snapshots, on_cancel=choice.snapshots > 0, cancel=STOPS),
                tags=tags,
                on_made=reports.append,
                on_end=runs.append,
            )
            host.guide(model, [[journal.texts()[0], {}]], sampler, seed=manifest.seeds[0].seed)
            samples = map_latent(write_latent(journal, model.model.process_latent_out))
    except comfy.model_management.InterruptProcessingException:
        if choice.discard:
            clean(folder, video=True)
        else:
            kept = f"{journal.finished} of {manifest.num_chunks} chunks are kept in {name}"
            unfinished = unfinished_path(folder, manifest)
            seen = f" ({unfinished.name} shows them)" if unfinished.exists() else ""
            host_log.warn(f"{kept}{seen}: press Run again with the same seed to go on, or use Resume Run")
        raise
    path = video_path(folder, manifest)
    line = f"{name}/{path.name}: {describe(reports[0])}"
    logging.getLogger("histream").info(line)
    host_log.tell(line)
    summary = summary_of_run(f"{name}/{path.name}", manifest, reports[0], runs[0])
    latent = with_scenes({"samples": samples}, manifest.plan)
    return KeptVideo(name, path, format_of(manifest.settings), latent, summary)


def describe(progress: Progress) -> str:
    """How a run goes, in a line."""
    parts = [f"{progress.frames} of {progress.num_frames} frames"]
    if progress.frames > progress.skipped_frames:
        parts.append(f"{progress.seconds_per_frame:.2f} s for each")
    if progress.first_frames is not None:
        parts.append(f"the first after {progress.first_frames:.1f} s")
        parts.append(f"slowest: {progress.times.bottleneck}")
    return ", ".join(parts)
