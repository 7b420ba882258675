"""Options of kept runs, and the weight options that are stored in a run's folder."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ...runs import Manifest, Settings, Snapshots
from ...runs.store.video import format_of, usual_output
from ...video.formats import Format
from ...video.sound import check_sound, pack_sound
from ...weights.checkpoint import dtype_name
from ...weights.loading import DTYPES
from .common import whole
from .weights import DEMO

FILES = ("vae", "text_encoder", "embeds")


def add_snapshots(verb: argparse.ArgumentParser) -> None:
    """Add --snapshots."""
    verb.add_argument(
        "--snapshots",
        metavar="N",
        type=whole,
        default=0,
        help="with a run's folder: keep the caches every N chunks and on Ctrl-C, to resume faster (default: never)",
    )


def add_section_files(verb: argparse.ArgumentParser) -> None:
    """Add --section-files and --no-section-files."""
    verb.add_argument(
        "--section-files",
        action=argparse.BooleanOptionalAction,
        help="with a run's folder: each stretch of one prompt and one seed as a file of its own too, video.01.mp4, ...",
    )


def read_sound(path: Path, format: Format) -> bytes:
    """The packed sound of a file, for a run of `format`. Raises ValueError or OSError for a file without sound."""
    check_sound(path, format)
    return pack_sound(path)


def with_output(settings: Settings) -> Settings:
    """The settings with the default name for a video of their format."""
    return replace(settings, output=usual_output(format_of(settings)))


def snapshots_of(args: argparse.Namespace) -> Snapshots:
    """The `Snapshots` of --snapshots. Raises ValueError."""
    if args.snapshots < 0:
        raise ValueError(f"a snapshot every {args.snapshots} chunks cannot be: use 20, or 0 for none")
    return Snapshots(every=args.snapshots, on_cancel=args.snapshots > 0)


def saved_options(args: argparse.Namespace) -> dict[str, str | None]:
    """The weight options, in the form in which the manifest stores them."""
    model = getattr(args, "model", DEMO)
    files = {name: getattr(args, name, None) for name in FILES}
    return {
        "model": model if model == DEMO else str(Path(model).resolve()),
        **{name: str(Path(path).resolve()) if path else None for name, path in files.items()},
        "device": args.device,
    }


def options_of(manifest: Manifest, args: argparse.Namespace) -> argparse.Namespace:
    """The weight options of a run; those given in `args` take precedence."""
    saved = {name: manifest.source.get(name) for name in ("model", *FILES, "device")}
    saved |= {name: value for name, value in vars(args).items() if name in saved and value is not None}
    if saved["model"] is None:
        raise ValueError("the run does not say which weights it was made with: give --model")
    names = {dtype_name(dtype): name for name, dtype in DTYPES.items()}
    files = {name: Path(path) if (path := saved[name]) else None for name in FILES}
    return argparse.Namespace(
        model=saved["model"],
        device=saved["device"] or "auto",
        dtype=names.get(manifest.settings.dtype),
        preset=manifest.settings.preset,
        **files,
    )
