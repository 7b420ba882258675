"""`histream resume`, `extend`, `branch`, `runs` and `clean`: what becomes of runs that are kept in a folder."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...runs import (
    Journal,
    Manifest,
    RunInfo,
    Settings,
    branch,
    branched,
    check_same,
    clean,
    extend,
    hash_bytes,
    list_runs,
    longer,
    notes,
    resume,
)
from ...runs.render import Weights
from ...runs.store.journal import read_manifest, sound_path
from ...runs.store.video import check_room, chunks_on_disk, format_of
from ...video.formats import NAMES, find_format
from ...video.sound import check_sound
from ..options.keeping import (
    add_section_files,
    add_snapshots,
    as_now,
    carry_on,
    options_of,
    read_sound,
    snapshots_of,
    with_output,
)
from ..options.memory import add_kv_option, add_memory_option, check_memory, with_kv
from ..options.speed import add_speed_options, speed_of
from ..options.timelines import Continued, add_timeline, continued
from ..options.weights import Source, find_source


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add the five verbs."""
    verb = verbs.add_parser("resume", help="go on with a run that was stopped, killed or interrupted")
    verb.add_argument("folder", metavar="DIR", type=Path, help="the folder that was given as --run-dir")
    _add_places(verb)
    verb.set_defaults(run=run_resume)
    yield verb
    verb = verbs.add_parser("extend", help="make a run longer")
    verb.add_argument("folder", metavar="DIR", type=Path)
    verb.add_argument("--seconds", metavar="S", type=float, required=True, help="how much longer")
    _add_prompt(verb)
    _add_places(verb)
    verb.set_defaults(run=run_extend)
    yield verb
    verb = verbs.add_parser(
        "branch",
        help="a new run that shares the first chunks of another: another seed, prompt, length or format from there on",
        description="Retry from a chunk with another --seed, go another way with another --prompt, or write what is "
        "finished in another --format.",
    )
    verb.add_argument("folder", metavar="DIR", type=Path)
    verb.add_argument("new", metavar="NEW", type=Path, help="a folder that does not exist yet")
    verb.add_argument("--from", metavar="K", dest="chunk", type=int, help="chunks to share (default: all finished)")
    verb.add_argument("--seed", metavar="N", type=int, help="of the chunks from K on (default: as it was)")
    verb.add_argument("--seconds", metavar="S", type=float, help="how much longer (default: as long as it was)")
    verb.add_argument("--format", metavar="F", help=f"{', '.join(NAMES)} (default: as it was)")
    verb.add_argument("--depth", metavar="BITS", type=int, help="bits for each channel (default: what is usual)")
    sound = verb.add_mutually_exclusive_group()
    sound.add_argument("--sound", metavar="FILE", type=Path, help="another sound (default: as it was)")
    sound.add_argument("--no-sound", action="store_true", help="leave the sound out")
    add_section_files(verb)
    _add_prompt(verb)
    _add_places(verb)
    verb.set_defaults(run=run_branch)
    yield verb
    verb = verbs.add_parser("runs", help="list the runs in a folder")
    verb.add_argument("folder", metavar="DIR", type=Path, nargs="?", default=Path(), help="default: this folder")
    verb.set_defaults(run=run_runs)
    yield verb
    verb = verbs.add_parser("clean", help="remove what a run left, but not the video")
    verb.add_argument("folder", metavar="DIR", type=Path)
    verb.add_argument("--video", action="store_true", help="remove the video too")
    verb.set_defaults(run=run_clean)
    yield verb


def _add_places(verb: argparse.ArgumentParser) -> None:
    add_snapshots(verb)
    add_kv_option(verb, default=None)
    add_memory_option(verb)
    add_speed_options(verb, kept=True)
    verb.add_argument("--model", metavar="F", help="where the transformer is now (default: where it was)")
    verb.add_argument("--vae", metavar="F", help="where the VAE is now")
    verb.add_argument("--device", metavar="D", help="cuda, cuda:1, mps, cpu (default: as it was)")


def _add_prompt(verb: argparse.ArgumentParser) -> None:
    text = verb.add_mutually_exclusive_group()
    text.add_argument("--prompt", metavar="P", help="what the video shows from there on (default: as it was)")
    add_timeline(text)
    verb.add_argument("--text-encoder", metavar="F", help="where the text encoder is now")


def run_resume(args: argparse.Namespace) -> tuple[dict, str]:
    """Go on."""
    snapshots = snapshots_of(args)
    with resume(args.folder) as journal:
        texts, source = journal.texts(), find_source(options_of(journal.manifest, args), None)
        manifest = journal.manifest
        check_room(args.folder, manifest.plan, manifest.settings, chunks_on_disk(args.folder, manifest))
        weights = _as_chosen(source.load()[0], args, manifest.settings)
        check_memory(args, weights, manifest.plan, num_prompts=len(texts))
        said = [*source.notes, *_check(journal, weights)]
        return carry_on(journal, weights, texts, snapshots=snapshots, notes=said)


def run_extend(args: argparse.Namespace) -> tuple[dict, str]:
    """Make a run longer, and go on."""
    snapshots = snapshots_of(args)
    with resume(args.folder) as journal:
        plan = longer(journal.manifest, args.seconds)
        told = continued(args, journal.manifest, plan, journal.manifest.num_chunks)
        source = _source(journal.manifest, args, told)
        check_room(args.folder, plan, journal.manifest.settings, chunks_on_disk(args.folder, journal.manifest))
        weights, texts = source.load()
        weights = _as_chosen(weights, args, journal.manifest.settings)
        check_memory(args, weights, plan, num_prompts=len(journal.manifest.sections) + len(texts))
        said = [*source.notes, *_check(journal, weights), *told.notes]
        sections, texts = told.sections(texts, journal)
        extend(journal, told.plan, sections, texts)
        return carry_on(journal, weights, journal.texts(), snapshots=snapshots, notes=said)


def run_branch(args: argparse.Namespace) -> tuple[dict, str]:
    """Share the first chunks in a new run, and go on there."""
    snapshots = snapshots_of(args)
    old = read_manifest(args.folder)
    settings, sound = _settings(old.settings, args)
    plan = old.plan if args.seconds is None else longer(old, args.seconds)
    check_room(args.new, plan, settings, sound=sound)
    with Journal(args.folder, first_chunks=args.chunk or None) as journal:
        chunk = journal.finished if args.chunk is None else args.chunk
        if settings.sound and not sound:
            check_sound(sound_path(args.folder, old), format_of(settings))
        told = continued(args, old, plan, chunk)
        source = _source(old, args, told)
        weights, texts = source.load()
        sections, texts = told.sections(texts, journal)
    weights = _as_chosen(weights, args, settings)
    check_memory(args, weights, plan, num_prompts=len(old.sections) + len(texts))
    now = as_now(replace(old, plan=plan, settings=settings), weights)
    changed = branched(now, chunk, seed=args.seed, sections=sections, anchors=told.anchors, scenes=told.scenes)
    with branch(args.folder, args.new, chunk, changed, texts, sound) as journal:
        return carry_on(journal, weights, journal.texts(), snapshots=snapshots, notes=[*source.notes, *told.notes])


def run_runs(args: argparse.Namespace) -> tuple[dict, str]:
    """One line for each run."""
    found = list_runs(args.folder)
    lines = [info.line(str(info.folder)) for info in found] or [f"no run is in {args.folder}"]
    return {"runs": [_plain(info) for info in found]}, "\n".join(lines)


def run_clean(args: argparse.Namespace) -> tuple[dict, str]:
    """How much room there is now."""
    freed = clean(args.folder, video=args.video)
    return {"run": str(args.folder.resolve()), "bytes": freed}, f"{args.folder}: {freed / 1e6:.1f} MB are free again"


def _as_chosen(weights: Weights, args: argparse.Namespace, settings: Settings) -> Weights:
    """The weights, computed with as was asked for, else so that they give the run's frames."""
    return replace(with_kv(weights, args, settings), speed=speed_of(args, settings.speed))


def _check(journal: Journal, weights: Weights) -> list[str]:
    """Refuse weights that are not the run's; what else is new comes back in words."""
    now = as_now(journal.manifest, weights)
    check_same(journal, now)
    return notes(journal, now)


def _source(manifest: Manifest, args: argparse.Namespace, told: Continued) -> Source:
    """The run's weights, and the text encoder where there is a new prompt."""
    options = options_of(manifest, args)
    if not told.cues:
        return find_source(options, None)
    if args.text_encoder:
        options.embeds = None
    if options.embeds:
        raise ValueError("the run was made from --embeds: give --text-encoder for the new prompt")
    return find_source(options, [cue.prompt for cue in told.cues])


def _settings(old: Settings, args: argparse.Namespace) -> tuple[Settings, bytes | None]:
    """The settings of a branch, and its sound where it is a new one."""
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
