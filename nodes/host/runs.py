"""Opens and checks the run of a node: a new one, a stopped one, a longer one, or a branch."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...histream_core.plan.chunks import Plan
from ...histream_core.plan.sizes import PIXELS_PER_CELL, generated_size
from ...histream_core.plan.speed import Speed
from ...histream_core.runs import (
    DamagedRunError,
    Journal,
    Manifest,
    Settings,
    environment_notes,
    hash_bytes,
    longer,
    resume,
)
from ...histream_core.runs.describe import NewRun, text_before
from ...histream_core.runs.restyle import SourceVideo
from ...histream_core.runs.store.branching import num_shared
from ...histream_core.runs.store.journal import read_manifest
from ...histream_core.runs.store.manifest import differences, refuse_part, usual_output
from ...histream_core.runs.store.video import is_written
from ...histream_core.runs.verbs import Branch, FindSame, begin, branch, branch_manifest, check_resumed
from ...histream_core.vae.encode import check_encoder
from ...histream_core.video.formats import find_format
from ..settings import VideoChoice
from . import log as host_log
from .ahead import check_run
from .backend import HostBackend
from .checks import check_latent, check_model
from .decode import check_vae
from .ranks import model_settings
from .run_folders import find_run, name_of, next_run, numbered_runs
from .sampler import ChunkSampler, given_latent
from .sizes import latent_size, say_crop, video_size
from .source import source_of_run
from .timeline import Audience, prompts_in, say_limits, with_negative


@dataclass(frozen=True)
class RunInputs:
    """The seed and the prompt of a run, from a node's inputs."""

    seed: int | None = None
    """None: unchanged."""
    positive: list | None = None
    """A CONDITIONING; None: unchanged."""
    words: str = ""
    """The prompt as the artist wrote it."""
    source: Any = None
    """The VIDEO that the run restyles; None: from where it was."""
    hidden: Any = None
    """The hidden inputs of the node, with the graph: nodes behind it are checked before anything is made."""


def open_backend(model, vae, speed: Speed) -> HostBackend:
    """The backend of a kept run. Raises ValueError for a MODEL or a VAE that cannot be used."""
    check_model(model)
    check_vae(vae)
    engine = model_settings(model).engine
    return HostBackend(model, vae, replace(speed, decode="ahead") if engine and engine.gpus > 1 else speed)


@dataclass(frozen=True)
class OpenRun:
    """A run that is about to be finished."""

    backend: HostBackend
    journal: Journal
    video: SourceVideo | None = None
    """The video that it restyles."""


def begin_run(
    backend: HostBackend, latent: dict, sampler: ChunkSampler, choice: VideoChoice, inputs: RunInputs
) -> OpenRun:
    """The run that the nodes describe: an equal one that was stopped, or else a new one.

    Raises ValueError and OSError for what cannot work, and nothing is left then.
    """
    samples = check_latent(latent, backend.model)
    if samples.shape[0] != 1:
        raise ValueError(
            f"the LATENT is a batch of {samples.shape[0]}: a kept run makes one video, set batch_size to 1"
        )
    size, plan = latent_size(samples.shape), sampler.plan(samples.shape)
    say_crop(plan, size)
    run = new_run(backend, sampler, plan, choice, inputs, size=size)
    given = sampler.first_frame and given_latent(backend.model.model, sampler.first_frame, 1).contiguous()
    return open_new(backend, replace(run, given=given), choice, inputs)


def begin_restyled(
    backend: HostBackend, video: SourceVideo, sampler: ChunkSampler, choice: VideoChoice, inputs: RunInputs
) -> OpenRun:
    """The run that restyles a video, at its size and rate: an equal one that was stopped, or else a new one.

    Raises as `begin_run` does.
    """
    check_encoder(backend.vae.first_stage_model)
    width, height = (side // PIXELS_PER_CELL for side in video.generated_size)
    plan = video.cropped(sampler.plan((1, 16, video.num_latent_frames, height, width)))
    run = new_run(backend, sampler, plan, replace(choice, fps=video.fps), inputs, size=plan.size)
    return open_new(backend, replace(run, settings=replace(run.settings, size=video.size), video=video), choice, inputs)


def new_run(
    backend: HostBackend,
    sampler: ChunkSampler,
    plan: Plan,
    choice: VideoChoice,
    inputs: RunInputs,
    *,
    size: tuple[int, int],
) -> NewRun:
    """The run of a plan with the artist's prompts and choices, and of the size that was asked for."""
    seed = None if sampler.first_frame or plan.restyle else inputs.seed
    audience = Audience(backend.text_width, fps=choice.fps, seed=seed)
    placed, prompts = prompts_in(inputs.positive or [], plan, audience, words=inputs.words)
    prompts = with_negative(prompts, plan.guidance, sampler.settings.negative, audience)
    say_limits(sampler.settings, placed.plan, inputs.positive)
    preset, _ = sampler.steps.resolve(sampler.settings)
    mode = "custom" if sampler.steps.table.strip() else sampler.steps.mode
    settings = run_settings(choice, size, preset=preset.name, mode=mode)
    return NewRun(placed.plan, prompts, inputs.seed or 0, settings, sound=choice.sound)


def open_new(backend: HostBackend, run: NewRun, choice: VideoChoice, inputs: RunInputs) -> OpenRun:
    """A new run in the next folder of its name, or an equal one that is there."""
    check_run(inputs.hidden, run.plan, run.settings)
    folder, name = next_run(choice, run.settings.size)
    return OpenRun(backend, begin(backend, folder, run, find_same=same_run(choice, name)), run.video)


def resume_run(model, vae, name: str, speed: Speed | None = None, *, source=None, hidden=None) -> OpenRun:
    """A run that was stopped. Raises ValueError that names what is not as it was, and OSError.

    `speed` None: as the run is. `source`: the VIDEO that it restyles; None: from where it was. `hidden`: as in
    `RunInputs`.
    """
    folder = find_run(name)
    manifest = read_manifest(folder)
    refuse_part(folder, manifest)
    check_run(hidden, manifest.plan, manifest.settings)
    video = source_of_run(manifest, source)
    journal = resume(folder)
    try:
        backend = open_backend(model, vae, speed or journal.manifest.settings.speed)
        said = check_resumed(backend, journal)
    except BaseException:
        journal.close()
        raise
    for note in said:
        host_log.warn(note)
    return OpenRun(backend, journal, video)


def extend_run(
    model, vae, name: str, choice: VideoChoice | None, inputs: RunInputs, *, seconds: float, speed: Speed | None = None
) -> OpenRun:
    """A run that begins as another and is `seconds` longer; a new prompt begins at the old end.

    The other one stays as it is, and shares what it has finished. Raises as `resume_run` does.
    """
    run = resume_run(model, vae, name, speed, source=inputs.source)
    with run.journal as old:
        manifest, done, folder = old.manifest, old.finished, old.folder
    longer_run = replace(manifest, plan=longer(manifest, seconds))
    for note in run.video.notes(longer_run.plan) if run.video else ():
        host_log.warn(note)
    new = new_branch(run.backend, folder, longer_run, manifest.num_chunks, choice, inputs)
    return replace(run, journal=open_branch(run.backend, replace(new, chunk=done), choice, inputs))


def branch_run(
    model,
    vae,
    name: str,
    choice: VideoChoice | None,
    inputs: RunInputs,
    *,
    chunk: int | None,
    speed: Speed | None = None,
) -> OpenRun:
    """A branch that shares the chunks before `chunk` (None: all finished ones).

    Seed, prompt, MODEL, format or speed can differ from there on; None: unchanged. Raises as `resume_run` does.
    """
    check_model(model)
    check_vae(vae)
    folder = find_run(name)
    manifest = read_manifest(folder)
    video = source_of_run(manifest, inputs.source)
    if chunk is None:
        with resume(folder) as old:
            chunk = old.finished
    backend = open_backend(model, vae, speed or manifest.settings.speed)
    new = new_branch(backend, folder, manifest, chunk, choice, inputs)
    return OpenRun(backend, open_branch(backend, new, choice, inputs), video)


def new_branch(
    backend: HostBackend, source: Path, manifest: Manifest, chunk: int, choice: VideoChoice | None, inputs: RunInputs
) -> Branch:
    """The inputs of a branch of the run in `source` at `chunk`, with the artist's seed, prompt and sound."""
    sound = choice.sound if choice else None
    say_limits(model_settings(backend.model), manifest.plan, inputs.positive)
    if not inputs.positive:
        return Branch(source, chunk, branch_manifest(manifest, chunk, seed=inputs.seed), sound=sound)
    with Journal(source, first_chunks=chunk) as old:
        before = text_before(old.manifest, old.texts(), chunk)
    audience = Audience(backend.text_width, fps=choice.fps if choice else manifest.settings.fps, first_chunk=chunk)
    placed, prompts = prompts_in(inputs.positive, manifest.plan, audience, words=inputs.words, before=before)
    new = branch_manifest(manifest, chunk, seed=inputs.seed, prompts=prompts, starts=placed.starts)
    return Branch(source, chunk, new, prompts, sound)


def open_branch(backend: HostBackend, new: Branch, choice: VideoChoice | None, inputs: RunInputs) -> Journal:
    """The journal of a branch; `choice` None: in the same folder and format as the other run."""
    if choice is None:
        choice = VideoChoice(folder=re.sub(r"_[0-9]+$", "", name_of(new.source)))
    else:
        old = new.manifest.settings
        settings = run_settings(choice, generated_size(*old.size), preset=old.preset, mode=old.mode)
        if new.manifest.plan.restyle:
            settings = replace(settings, size=old.size, fps=old.fps)
        new = replace(new, manifest=replace(new.manifest, settings=settings))
    check_run(inputs.hidden, new.manifest.plan, new.manifest.settings)
    shared = num_shared(new.manifest.plan, new.chunk)
    base = (new.source.resolve().name, shared) if shared else None
    folder, name = next_run(choice, new.manifest.settings.size)
    return branch(backend, folder, new, find_same=same_run(choice, name, base))


def same_run(choice: VideoChoice, name: str, base: tuple[str, int] | None = None) -> FindSame:
    """A function that finds an equal run of that name, if the artist's choice is to resume.

    `base` is the run that it branches from and the number of chunks it shares.
    """

    def find(manifest: Manifest) -> Journal | None:
        for folder in reversed(numbered_runs(name)) if choice.resume else ():
            if is_same(folder, manifest, base):
                journal = resume(folder)
                host_log.warn(
                    f"{name_of(folder)} is this very run, {journal.finished} chunks of it are there: it goes on"
                )
                for note in environment_notes(journal, manifest):
                    host_log.warn(note)
                return journal
        return None

    return find


def is_same(folder: Path, manifest: Manifest, base: tuple[str, int] | None) -> bool:
    """Whether the run in `folder` makes the same video, and in the same environment if it is finished."""
    try:
        there = read_manifest(folder)
    except DamagedRunError:
        return False
    shared = (there.base.run, there.base.chunks) if there.base else None
    if differences(there, manifest) or shared != base:
        return False
    return not is_written(folder, there) or there.made_with == manifest.made_with


def run_settings(choice: VideoChoice, size: tuple[int, int], *, preset: str, mode: str) -> Settings:
    """The settings in the manifest for an artist's choice and size, without those that `completed_settings` adds.

    Raises ValueError for a format that does not exist.
    """
    return Settings(
        preset=preset,
        mode=mode,
        size=video_size(size, crop=choice.crop),
        fps=choice.fps,
        format=choice.format,
        output=usual_output(find_format(choice.format, choice.depth)),
        dtype="",
        depth=choice.depth,
        section_files=choice.section_files,
        sound=hash_bytes(choice.sound) if choice.sound else None,
    )
