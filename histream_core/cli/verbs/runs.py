"""`histream resume`, `extend`, `branch`, `runs` and `clean`: the verbs of kept runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ...plan import Plan
from ...plan.anchoring import NO_STARTS
from ...runs import (
    Journal,
    Manifest,
    RunInfo,
    Settings,
    Snapshots,
    clean,
    hash_bytes,
    list_runs,
    longer,
    resume,
)
from ...runs.describe import check_memory, text_before
from ...runs.make import Making, Watch, make, unwatched
from ...runs.progress import Progress
from ...runs.restyle import SourceVideo, reopen, video_of_run
from ...runs.store.folder import check_run
from ...runs.store.journal import read_manifest, sound_path
from ...runs.store.manifest import refuse_part
from ...runs.store.new import check_free
from ...runs.store.video import (
    check_room,
    check_targets,
    chunks_on_disk,
    format_of,
    section_paths,
    unfinished_path,
    video_path,
)
from ...runs.verbs import Branch, branch, branch_manifest, check_resumed, check_whole, checksum_notes, extend
from ...runs.weights import Weights
from ...stream.inputs import Source as Begun
from ...stream.prompts import Prompt
from ...stream.timeline import Placed
from ...video.formats import find_format
from ...video.sound import check_sound
from ..options.keeping import (
    options_of,
    read_sound,
    snapshots_of,
    source_video_of,
    with_output,
)
from ..options.memory import with_kv
from ..options.speed import speed_of
from ..options.timelines import notes_of, place_continuation
from ..options.weights import Source, engine_notes, engine_of, find_source
from ..progress import print_notes, progress_bar
from ..results import describe_entries, describe_progress, describe_video, sentence
from ..review import TerminalReview, check_review


def run_resume(args: argparse.Namespace) -> tuple[dict, str]:
    """Resume a run and finish it."""
    check_run(args.folder)
    refuse_part(args.folder, read_manifest(args.folder))
    return resume_run(args)


def resume_run(args: argparse.Namespace, watch: Watch = unwatched) -> tuple[dict, str]:
    """Resume a run and finish it, under the eyes of `watch`."""
    snapshots = snapshots_of(args)
    with resume(args.folder) as journal:
        manifest = journal.manifest
        video = video_of_run(manifest, source_video_of(manifest, args))
        journal.texts()  # refuses what it cannot go on from before the weights are loaded
        journal.negative()
        if args.review:
            check_review(manifest.plan)
        check_targets(args.folder, manifest)
        source = find_source(options_of(manifest, args), None, encodes=manifest.plan.restyle is not None)
        check_room(args.folder, manifest.plan, manifest.settings, chunks_on_disk(journal), low=manifest.keeps_low)
        weights = _as_chosen(source.load()[0], args, manifest.settings, manifest.plan)
        notes = [*source.notes, *check_resumed(weights, journal, ignore_memory=args.ignore_memory)]
        begun = reopen(weights, manifest, video)
        return finish_run(weights, journal, Finishing(snapshots, notes, begun, watch, video, args.review))


def run_extend(args: argparse.Namespace) -> tuple[dict, str]:
    """Make a run longer and finish it."""
    snapshots = snapshots_of(args)
    with resume(args.folder) as journal:
        old = journal.manifest
        refuse_part(args.folder, old)
        check_whole(journal)
        video = video_of_run(old, source_video_of(old, args))
        journal.negative()  # refuses a run without it before the run is made longer
        plan = longer(old, args.seconds)
        if args.review:
            check_review(plan)
        placed = place_continuation(args, old, plan, old.num_chunks)
        source = _source(old, args, placed)
        check_room(args.folder, plan, old.settings, chunks_on_disk(journal), low=old.keeps_low)
        weights, texts = source.load()
        weights = _as_chosen(weights, args, old.settings, plan)
        check_memory(weights, plan, num_prompts=len(old.sections) + len(texts), ignore=args.ignore_memory)
        notes = [*source.notes, *check_resumed(weights, journal, ignore_memory=args.ignore_memory)]
        notes += [*(notes_of(args, placed) if placed else ()), *(video.notes(plan) if video else ())]
        prompts = _prompts(placed, texts, journal, old.num_chunks)
        extend(journal, placed.plan if placed else plan, prompts)
        begun = reopen(weights, journal.manifest, video)
        return finish_run(weights, journal, Finishing(snapshots, notes, begun, video=video, review=args.review))


def run_branch(args: argparse.Namespace) -> tuple[dict, str]:
    """Create a run that shares the first chunks of another, and finish it."""
    snapshots = snapshots_of(args)
    check_run(args.folder)
    check_free(args.new)
    old = read_manifest(args.folder)
    refuse_part(args.folder, old)
    settings, sound = _settings(old.settings, args)
    plan = old.plan if args.seconds is None else longer(old, args.seconds)
    if args.review:
        check_review(plan)
    check_room(args.new, plan, settings, sound=sound, low=old.keeps_low or bool(args.upsampler))
    with Journal(args.folder, first_chunks=args.chunk) as journal:
        chunk = journal.finished if args.chunk is None else args.chunk
        if settings.sound and not sound and (kept := sound_path(args.folder, old)):
            check_sound(kept, format_of(settings))
        placed = place_continuation(args, old, plan, chunk)
        video = video_of_run(old, source_video_of(old, args))
        source = _source(old, args, placed)
        lacking = checksum_notes(journal)
        weights, texts = source.load()
        prompts = _prompts(placed, texts, journal, chunk)
    weights = _as_chosen(weights, args, settings, plan)
    manifest = replace(old, plan=plan, settings=settings)
    new = branch_manifest(
        manifest,
        chunk,
        seed=args.seed,
        prompts=prompts,
        starts=placed.starts if placed else NO_STARTS,
    )
    notes = [*source.notes, *lacking, *(notes_of(args, placed) if placed else ())]
    notes += video.notes(plan) if video else ()
    wanted = Branch(args.folder, chunk, new, prompts, sound)
    with branch(weights, args.new, wanted, ignore_memory=args.ignore_memory) as journal:
        begun = reopen(weights, journal.manifest, video)
        return finish_run(weights, journal, Finishing(snapshots, notes, begun, video=video, review=args.review))


@dataclass(frozen=True)
class Finishing:
    """Options of `finish_run`: snapshots, notes for the user, and who else watches."""

    snapshots: Snapshots
    notes: Sequence[str]
    source: Begun | None = None
    """The source of the video that the run restyles."""
    watch: Watch = unwatched
    video: SourceVideo | None = None
    """The video that the run restyles."""
    review: bool = False
    """Whether the user is asked about the draft of each chunk."""


def finish_run(weights: Weights, journal: Journal, how: Finishing) -> tuple[dict, str]:
    """Finish an open run, and return its result."""
    manifest, folder, kept = journal.manifest, journal.folder, journal.finished
    look = TerminalReview(weights, folder, manifest.num_chunks) if how.review else None
    notes, source = [*how.notes, *engine_notes(weights, manifest.plan)], how.source
    print_notes(notes)
    try:
        with progress_bar() as show, how.watch(journal) as note:

            def report(progress: Progress) -> None:
                show(progress)
                note(progress)

            options = Making(snapshots=how.snapshots, report=report, source=source, video=how.video, look=look)
            progress = make(weights, journal, options)
    except KeyboardInterrupt as stop:
        done = f"{journal.finished} of {manifest.num_chunks} chunks are kept"
        unfinished = unfinished_path(folder, manifest)
        if unfinished.exists():
            done = f"{done} ({unfinished.name} shows them)"
        raise KeyboardInterrupt(f"{done}, go on with: histream resume {folder}") from stop
    manifest = journal.manifest  # with the seeds of what was drawn again
    settings = manifest.settings
    result = {
        "file": str(video_path(folder, manifest).resolve()),
        "section_files": [str(path.resolve()) for path in section_paths(folder, manifest)],
        "run": str(folder.resolve()),
        "prompt": manifest.sections[-1].prompt,
        "preset": settings.preset,
        "mode": settings.mode,
        "kv": weights.kv,
        "kernels": dict(weights.kernels().in_use),
        "seed": manifest.seeds[-1].seed,
        **describe_video(manifest.plan, format_of(settings), settings.size, settings.fps),
        "chunks_kept": kept,
        **describe_progress(progress),
        **describe_entries(source),
        "notes": notes,
    }
    return result, sentence(result)


def run_runs(args: argparse.Namespace) -> tuple[dict, str]:
    """List runs, one line each."""
    found = list_runs(args.folder)
    lines = [info.line(str(info.folder)) for info in found] or [f"no run is in {args.folder}"]
    return {"runs": [_plain(info) for info in found]}, "\n".join(lines)


def run_clean(args: argparse.Namespace) -> tuple[dict, str]:
    """Remove the files of a run, and return the bytes freed."""
    freed = clean(args.folder, video=args.video)
    return {"run": str(args.folder.resolve()), "bytes": freed}, f"{args.folder}: {freed / 1e6:.1f} MB are free again"


def _as_chosen(weights: Weights, args: argparse.Namespace, settings: Settings, plan: Plan) -> Weights:
    """The weights with the requested speed, memory tier and devices; by default those that give the run's frames."""
    weights = replace(with_kv(weights, args, settings), speed=speed_of(args, settings.speed))
    return weights.on(engine_of(args), plan)


def _prompts(placed: Placed | None, texts: Sequence[Tensor], journal: Journal, first_chunk: int) -> tuple[Prompt, ...]:
    """The new prompts from chunk `first_chunk` of the run in `journal` on; empty if the prompts do not change."""
    if placed is None:
        return ()
    return placed.prompts(texts, text_before(journal.manifest, journal.texts(), first_chunk))


def _source(manifest: Manifest, args: argparse.Namespace, placed: Placed | None) -> Source:
    """The run's weights, with a text encoder if there is a new prompt."""
    if placed is None:
        return find_source(options_of(manifest, args), None)
    options = options_of(manifest, args, ("model", "vae", "text_encoder", "embeds", "upsampler"))
    if args.text_encoder:
        options.embeds = None
    if options.embeds:
        raise ValueError("the run was made from --embeds: give --text-encoder for the new prompt")
    return find_source(options, [cue.prompt for cue in placed.cues])


def _settings(old: Settings, args: argparse.Namespace) -> tuple[Settings, bytes | None]:
    """The settings of a branch, and its sound if it is a new one."""
    same = not (args.format or args.depth)
    name, depth = (old.format, old.depth) if same else (args.format or old.format, args.depth)
    sound = read_sound(args.sound, find_format(name, depth)) if args.sound else None
    settings = replace(
        old,
        format=name,
        depth=depth,
        section_files=old.section_files if args.section_files is None else args.section_files,
        sound=hash_bytes(sound) if sound else None if args.no_sound else old.sound,
    )
    return settings if same else with_output(settings), sound


def _plain(info: RunInfo) -> dict:
    manifest = info.manifest
    about = {}
    if manifest:
        about = {
            "prompts": [section.prompt for section in manifest.sections],
            "seeds": [seed.seed for seed in manifest.seeds],
            "preset": manifest.settings.preset,
            "mode": manifest.settings.mode,
            "width": manifest.settings.size[0],
            "height": manifest.settings.size[1],
            "frames": manifest.plan.num_pixel_frames,
            "fps": manifest.settings.fps,
            "format": manifest.settings.format,
            "video": manifest.settings.output,
            "lacks_checksums": info.lacks_checksums,
        }
    return {
        "run": str(info.folder.resolve()),
        "state": info.state,
        "problem": info.problem,
        "chunks_finished": info.chunks,
        "chunks": info.num_chunks,
        "bytes": info.num_bytes,
        **about,
    }
