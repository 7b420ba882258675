"""Runs that are kept in a folder: how the command line begins one, and takes one to its end."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ...runs import Journal, Manifest, Settings, Snapshots, clean, environment, hash_bytes, start
from ...runs.kept import describe_run, fingerprints, go_on, keep_given
from ...runs.render import Weights
from ...runs.store.journal import MANIFEST
from ...runs.store.video import check_room, format_of, section_paths, unfinished_path, usual_output, video_path
from ...video.formats import Format
from ...video.sound import check_sound, pack_sound
from ...weights.checkpoint import dtype_name
from ...weights.loading import DTYPES
from ..progress import progress_bar, tell
from ..results import describe_progress, describe_video, sentence
from .memory import check_memory
from .speed import speed_of
from .timelines import Shown
from .weights import DEMO, Source

FILES = ("vae", "text_encoder", "embeds")


def add_snapshots(verb: argparse.ArgumentParser) -> None:
    """--snapshots."""
    verb.add_argument(
        "--snapshots",
        metavar="N",
        type=int,
        default=0,
        help="with a run's folder: keep the caches every N chunks and on Ctrl-C, to resume faster (default: never)",
    )


def add_section_files(verb: argparse.ArgumentParser) -> None:
    """--section-files, and --no-section-files."""
    verb.add_argument(
        "--section-files",
        action=argparse.BooleanOptionalAction,
        help="with a run's folder: each stretch of one prompt and one seed as a file of its own too, video.01.mp4, ...",
    )


def begin_run(
    args: argparse.Namespace, source: Source, shown: Shown, *, size: tuple[int, int], fps: float, notes: Sequence[str]
) -> tuple[dict, str]:
    """Start a run in --run-dir and take it to its end."""
    folder, plan = args.run_dir, shown.plan
    if os.path.lexists(folder / MANIFEST):
        raise FileExistsError(f"{folder} holds a run already: histream resume {folder}, or choose another folder")
    settings = Settings(
        preset=source.preset.name,
        mode=args.mode,
        size=size,
        fps=float(fps),
        format=args.format,
        output="video",
        dtype="",
        depth=args.depth,
        section_files=bool(args.section_files),
    )
    settings = with_output(settings)
    sound = read_sound(args.sound, format_of(settings)) if args.sound else None
    settings = replace(settings, sound=sound and hash_bytes(sound))
    check_room(folder, plan, settings, sound=sound)
    snapshots, speed = snapshots_of(args), speed_of(args)
    if speed.decode == "ahead":
        raise ValueError("--decode ahead is not for runs that are kept: leave it out, or leave out --run-dir")
    weights, texts = source.load()
    weights = replace(weights, kv=args.kv, speed=speed)
    check_memory(args, weights, plan, num_prompts=len(texts))
    first, *changes = shown.stretches(texts)
    given = shown.given(weights)
    manifest = describe_run(
        weights,
        plan,
        as_computed(settings, weights),
        prompt=first.prompt,
        text=first.text,
        seed=args.seed,
        source=saved_options(args),
        changes=changes,
        given=given,
    )
    texts = [part.text for part in (first, *changes)]
    with start(folder, manifest, texts, sound) as journal:
        try:
            keep_given(journal, given)
            return carry_on(journal, weights, texts, snapshots=snapshots, notes=notes)
        except KeyboardInterrupt as stop:
            if not args.discard:
                raise
            discarded = stop
    clean(folder, video=True)
    raise KeyboardInterrupt(f"the run in {folder} is removed") from discarded


def read_sound(path: Path, format: Format) -> bytes:
    """The sound of a file, to be kept with a run of that format. Raises ValueError or OSError for one without."""
    check_sound(path, format)
    return pack_sound(path)


def carry_on(
    journal: Journal, weights: Weights, texts: Sequence[Tensor], *, snapshots: Snapshots, notes: Sequence[str]
) -> tuple[dict, str]:
    """Take an open run to its end, and say what was made."""
    manifest, folder, kept = journal.manifest, journal.folder, journal.finished
    tell(notes)
    try:
        with progress_bar() as report:
            progress = go_on(weights, journal, texts, snapshots=snapshots, report=report)
    except KeyboardInterrupt as stop:
        done = f"{journal.finished} of {manifest.num_chunks} chunks are kept"
        unfinished = unfinished_path(folder, manifest)
        if unfinished.exists():
            done = f"{done} ({unfinished.name} shows them)"
        raise KeyboardInterrupt(f"{done}, go on with: histream resume {folder}") from stop
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
        "notes": list(notes),
    }
    return result, sentence(result)


def with_output(settings: Settings) -> Settings:
    """The settings with the usual name for the format's video."""
    return replace(settings, output=usual_output(format_of(settings)))


def snapshots_of(args: argparse.Namespace) -> Snapshots:
    """When to keep the caches. Raises ValueError."""
    if args.snapshots < 0:
        raise ValueError(f"a snapshot every {args.snapshots} chunks cannot be: use 20, or 0 for none")
    return Snapshots(every=args.snapshots, on_cancel=args.snapshots > 0)


def saved_options(args: argparse.Namespace) -> dict[str, str | None]:
    """Where the weights are, as it stands in the manifest."""
    model = getattr(args, "model", DEMO)
    files = {name: getattr(args, name, None) for name in FILES}
    return {
        "model": model if model == DEMO else str(Path(model).resolve()),
        **{name: str(Path(path).resolve()) if path else None for name, path in files.items()},
        "device": args.device,
    }


def options_of(manifest: Manifest, args: argparse.Namespace) -> argparse.Namespace:
    """The options that find the run's weights again; those in `args` come first."""
    saved = {name: manifest.source.get(name) for name in ("model", *FILES, "device")}
    saved |= {name: value for name, value in vars(args).items() if name in saved and value is not None}
    if saved["model"] is None:
        raise ValueError("the run does not say which weights it was made with: give --model")
    names = {dtype_name(dtype): name for name, dtype in DTYPES.items()}
    files = {name: Path(saved[name]) if saved[name] else None for name in FILES}
    return argparse.Namespace(
        model=saved["model"],
        device=saved["device"] or "auto",
        dtype=names.get(manifest.settings.dtype),
        preset=manifest.settings.preset,
        **files,
    )


def as_now(manifest: Manifest, weights: Weights) -> Manifest:
    """The run as it would be if it were begun now with these weights."""
    settings = as_computed(manifest.settings, weights)
    made_with = environment(weights.device, weights.kernels().in_use)
    fingerprint = dict(manifest.fingerprint) | fingerprints(weights)
    return replace(manifest, settings=settings, fingerprint=fingerprint, made_with=made_with)


def as_computed(settings: Settings, weights: Weights) -> Settings:
    """The settings, as far as they tell how these weights compute."""
    return replace(
        settings,
        dtype=dtype_name(weights.dtype),
        fp8_kv=weights.kv == "fp8",
        speed=weights.speed.approximations,
    )
