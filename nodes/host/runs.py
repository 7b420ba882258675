"""Which run a node means: a new one, one that was stopped, a longer one, a branch; opened, and checked at the door."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ...histream_core.cost.fitting import does_not_fit
from ...histream_core.plan.chunks import Plan
from ...histream_core.plan.schedule import Scale
from ...histream_core.plan.speed import Speed
from ...histream_core.runs import (
    DamagedRunError,
    Journal,
    Manifest,
    Section,
    Seed,
    Settings,
    branch,
    branched,
    check_same,
    environment,
    hash_bytes,
    hash_tensor,
    longer,
    notes,
    resume,
    start,
)
from ...histream_core.runs.kept import FIRST_FRAME, keep_given, sections_of, text_before
from ...histream_core.runs.store.journal import read_manifest
from ...histream_core.runs.store.manifest import differences
from ...histream_core.runs.store.video import check_room, chunks_on_disk, usual_output, video_path
from ...histream_core.stream.timeline import Cue
from ...histream_core.video.formats import find_format
from ...histream_core.weights.checkpoint import dtype_name
from ..settings import VideoChoice
from . import log as host_log
from . import sampler as host
from .checks import check_latent, check_model
from .decode import check_vae, video_size
from .fingerprint import fingerprints
from .memory import cost_of, memory_of
from .run_folders import find_run, name_of, next_run, numbered_runs, place
from .speed import kernels_for
from .timeline import Placed, Timeline, placed, timeline_of


def begin(
    model,
    vae,
    positive: list,
    latent: dict,
    sampler: host.ChunkSampler,
    choice: VideoChoice,
    *,
    seed: int,
    words: str = "",
) -> Journal:
    """The journal of a run as the nodes describe it: the same run that was stopped, or else a new one.

    `words` is the prompt as the artist wrote it. Raises ValueError and OSError for what cannot work, and nothing is
    left then.
    """
    check_model(model)
    check_vae(vae)
    samples = check_latent(latent, model)
    if samples.shape[0] != 1:
        raise ValueError(
            f"the LATENT is a batch of {samples.shape[0]}: a kept run makes one video, set batch_size to 1"
        )
    plan = sampler.plan(samples.shape)
    found, sections, texts = told(model, positive, plan, choice.fps, words=words)
    plan = found.plan
    given = sampler.first_frame and host.given_latent(model.model, sampler.first_frame, 1).contiguous()
    preset, _ = sampler.steps.resolve(sampler.settings)
    mode = "custom" if sampler.steps.table.strip() else sampler.steps.mode
    manifest = Manifest(
        plan=plan,
        settings=as_computed(settings_of(choice, plan, preset=preset.name, mode=mode), model, sampler.speed),
        sections=sections,
        seeds=(Seed(0, seed),),
        fingerprint=fingerprints(model, vae) | ({} if given is None else {FIRST_FRAME: hash_tensor(given)}),
        source={},
        made_with=environment(model.load_device, kernels_for(sampler.speed, model).in_use),
    )
    check_possible(model, vae, place(choice.folder), manifest, sound=choice.sound)
    journal = open_or_make(choice, manifest, lambda folder: start(folder, manifest, texts, choice.sound))
    keep_given(journal, given)
    return journal


def go_on(model, vae, name: str, speed: Speed | None = None) -> Journal:
    """The journal of a run that was stopped. Raises ValueError that names what is not as it was, and OSError.

    `speed` None: as the run is.
    """
    check_model(model)
    check_vae(vae)
    journal = resume(find_run(name))
    try:
        now = as_now(journal.manifest, model, vae, speed)
        check_same(journal, now)
        check_possible(model, vae, journal.folder, journal.manifest, chunks_on_disk(journal.folder, journal.manifest))
    except BaseException:
        journal.close()
        raise
    for note in notes(journal, now):
        host_log.warn(note)
    return journal


def extended(
    model,
    vae,
    name: str,
    choice: VideoChoice | None,
    *,
    seconds: float,
    positive: list | None,
    words: str = "",
    speed: Speed | None = None,
) -> Journal:
    """The journal of a run that begins as another and is `seconds` longer; a new prompt holds behind the old end.

    The other one stays as it is, and shares what it has finished. Raises as `go_on` does.
    """
    with go_on(model, vae, name, speed) as old:
        manifest, done, source = old.manifest, old.finished, old.folder
    longer_run = replace(manifest, plan=longer(manifest, seconds))
    changed, texts = continued(model, source, longer_run, manifest.num_chunks, choice, positive, words=words)
    return derived(model, vae, source, choice, changed, done, texts, speed)


def retaken(
    model,
    vae,
    name: str,
    choice: VideoChoice | None,
    *,
    chunk: int | None,
    seed: int | None,
    positive: list | None,
    words: str = "",
    speed: Speed | None = None,
) -> Journal:
    """The journal of a run that is another up to `chunk` (None: all that is finished) and then goes its own way.

    With another seed, prompt, MODEL, format or speed from there on; what is None stays. Raises as `go_on` does.
    """
    check_model(model)
    check_vae(vae)
    source = find_run(name)
    if chunk is None:
        with resume(source) as old:
            chunk = old.finished
    manifest = read_manifest(source)
    changed, texts = continued(model, source, manifest, chunk, choice, positive, words=words, seed=seed)
    return derived(model, vae, source, choice, changed, chunk, texts, speed)


def told(
    model,
    positive: list,
    plan: Plan,
    fps: float,
    *,
    words: str = "",
    first_chunk: int = 0,
    before: Tensor | None = None,
) -> tuple[Placed, tuple[Section, ...], list[Tensor]]:
    """What a CONDITIONING tells from a chunk on: where in the plan, the sections counted from there, and their texts.

    `words` is the prompt as the artist wrote it, `before` the text that it takes over from. A line for each section is
    in the host's log. Raises ValueError for what does not fit the video.
    """
    timeline = timeline_of(positive) or Timeline((Cue(0.0, words),), (positive,))
    found = placed(timeline, plan, fps, first_chunk)
    for line in found.lines if len(found.chunks) > 1 else ():
        host_log.say(line)
    parts = found.stretches(1, model.model.diffusion_model.text_dim, before)
    return found, sections_of(parts, first_chunk), [part.text for part in parts]


def continued(
    model,
    source: Path,
    manifest: Manifest,
    chunk: int,
    choice: VideoChoice | None,
    positive: list | None,
    *,
    words: str,
    seed: int | None = None,
) -> tuple[Manifest, list[Tensor]]:
    """The run that is another, kept in `source`, up to `chunk`, and the texts of its new sections, if it has some."""
    if not positive:
        return branched(manifest, chunk, seed=seed), []
    fps = choice.fps if choice else manifest.settings.fps
    with Journal(source, first_chunks=chunk or None) as old:
        before = text_before(old.manifest, old.texts(), chunk)
    plan = manifest.plan
    found, sections, texts = told(model, positive, plan, fps, words=words, first_chunk=chunk, before=before)
    return branched(manifest, chunk, seed=seed, sections=sections, anchors=found.anchors, scenes=found.scenes), texts


def derived(
    model,
    vae,
    source: Path,
    choice: VideoChoice | None,
    manifest: Manifest,
    chunk: int,
    texts: Sequence[Tensor],
    speed: Speed | None,
) -> Journal:
    """The journal of a run that shares the first chunks of another; without `choice` it is kept as that one is."""
    if choice is None:
        choice = VideoChoice(folder=re.sub(r"_[0-9]+$", "", name_of(source)))
    else:
        old = manifest.settings
        settings = settings_of(choice, manifest.plan, preset=old.preset, mode=old.mode)
        manifest = replace(manifest, settings=settings)
    manifest = as_now(manifest, model, vae, speed)
    check_possible(model, vae, place(choice.folder), manifest, sound=choice.sound)
    base = (source.resolve().name, chunk) if chunk else None

    def make(folder: Path) -> Journal:
        return branch(source, folder, chunk, manifest, texts, choice.sound)

    return open_or_make(choice, manifest, make, base=base)


def as_now(manifest: Manifest, model, vae, speed: Speed | None) -> Manifest:
    """The run as it would be if it were begun now; `speed` None: as the run is."""
    speed = speed or manifest.settings.speed
    settings = as_computed(manifest.settings, model, speed)
    made_with = environment(model.load_device, kernels_for(speed, model).in_use)
    fingerprint = dict(manifest.fingerprint) | fingerprints(model, vae)
    return replace(manifest, settings=settings, fingerprint=fingerprint, made_with=made_with)


def check_possible(model, vae, folder: Path, manifest: Manifest, first: int = 0, *, sound: bytes | None = None) -> None:
    """Refuse a run that has no room on the disk or in memory, from chunk `first` on. Raises ValueError or OSError."""
    check_room(folder, manifest.plan, manifest.settings, first, sound=sound)
    check_memory(model, vae, manifest)


def open_or_make(
    choice: VideoChoice, manifest: Manifest, make: Callable[[Path], Journal], *, base: tuple[str, int] | None = None
) -> Journal:
    """The journal of the run that is the same in all, where the artist wants that and it is there; else a new one.

    `base` is the run that it branches from and the number of chunks it shares.
    """
    new, name = next_run(choice, manifest.settings.size)
    if choice.resume:
        for folder in reversed(numbered_runs(name)):
            if is_same(folder, manifest, base):
                journal = resume(folder)
                host_log.warn(
                    f"{name_of(folder)} is this very run, {journal.finished} chunks of it are there: it goes on"
                )
                for note in notes(journal, manifest):
                    host_log.warn(note)
                return journal
    return make(new)


def is_same(folder: Path, manifest: Manifest, base: tuple[str, int] | None) -> bool:
    """Whether the run in `folder` would become the same video, and made in the same way if it is finished."""
    try:
        there = read_manifest(folder)
    except DamagedRunError:
        return False
    shared = (there.base.run, there.base.chunks) if there.base else None
    if differences(there, manifest) or shared != base:
        return False
    return not video_path(folder, there).exists() or there.made_with == manifest.made_with


def settings_of(choice: VideoChoice, plan: Plan, *, preset: str, mode: str) -> Settings:
    """What the manifest says about an artist's choice, but for what `as_computed` knows.

    Raises ValueError for a format that does not exist.
    """
    high = plan.grids[Scale.HIGH]
    return Settings(
        preset=preset,
        mode=mode,
        size=video_size(high, crop=choice.crop),
        fps=choice.fps,
        format=choice.format,
        output=usual_output(find_format(choice.format, choice.depth)),
        dtype="",
        depth=choice.depth,
        section_files=choice.section_files,
        sound=hash_bytes(choice.sound) if choice.sound else None,
    )


def check_memory(model, vae, manifest: Manifest) -> None:
    """Refuse a plan whose caches and working memory the device cannot hold; the host moves weights out at need.

    Raises ValueError that says what would fit.
    """
    num_prompts, speed = len(manifest.sections), manifest.settings.speed
    cost = cost_of(model, vae, manifest.plan, num_prompts=num_prompts, speed=speed)
    problems = does_not_fit(cost, memory_of(model.load_device))
    if problems:
        raise ValueError("; ".join(problems))


def as_computed(settings: Settings, model, speed: Speed) -> Settings:
    """The settings, as far as they tell how this MODEL computes."""
    dtype = dtype_name(model.model.get_dtype_inference())
    return replace(settings, dtype=dtype, fp8_kv=host.model_settings(model).kv == "fp8", speed=speed.approximations)
