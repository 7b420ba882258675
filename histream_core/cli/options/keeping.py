"""Options of kept runs, and the weight options that are stored in a run's folder."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...runs import Manifest, Settings, Snapshots
from ...runs.store.manifest import usual_output
from ...runs.store.video import format_of
from ...video.formats import Format
from ...video.sound import check_sound, pack_sound
from ...weights.checkpoint import dtype_name
from ...weights.loading import DTYPES
from ...weights.shards import INDEX, SUFFIXES
from ..progress import print_notes
from .adding import DEMO

FILES = ("vae", "text_encoder", "embeds", "upsampler")


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
    if files["upsampler"] is None:  # as it was before there was one
        del files["upsampler"]
    return {
        "model": model if model == DEMO else str(Path(model).resolve()),
        **{name: str(Path(path).resolve()) if path else None for name, path in files.items()},
        "device": args.device,
    }


VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".mxf", ".flv", ".ogv")


WEIGHT_SUFFIXES = (*SUFFIXES, INDEX)


def check_taken_over(option: str, path: str, what: str = "weights", suffixes: Sequence[str] = WEIGHT_SUFFIXES) -> None:
    """Raise ValueError for a path in a manifest that is not that of an ordinary file of its kind on this computer."""
    local = Path(path).is_absolute() and not path.startswith(("\\\\", "//"))
    if not local or not path.lower().endswith(tuple(suffixes)) or (os.path.lexists(path) and not Path(path).is_file()):
        raise ValueError(
            f"the run names {path!r}, and only ordinary files of {what} are opened for it "
            f"({', '.join(suffixes)}): give {option}"
        )


def source_video_of(manifest: Manifest, args: argparse.Namespace) -> Path | None:
    """The video that a run restyles, from --source or the manifest; None if it restyles none. As in `options_of`, a
    path of the manifest is checked and named before it is opened. Raises ValueError.
    """
    if manifest.plan.restyle is None or args.source:
        return args.source
    path = manifest.source.get("video")
    if path is None:
        raise ValueError("the run does not say which video it restyles: give --source")
    check_taken_over("--source", path, "video", VIDEO_SUFFIXES)
    print_notes([f"the source is taken from where the run had it: {path}"])
    return Path(path)


def options_of(
    manifest: Manifest, args: argparse.Namespace, opened: Sequence[str] = ("model", "vae", "upsampler")
) -> argparse.Namespace:
    """The weight options of a run; those given in `args` take precedence. `opened` are those whose files are opened.

    Whoever made the run chose the paths in its manifest, and so which files of this computer are opened. That must do
    no harm: only ordinary files with a suffix of weights are opened, which are then read as tensors and nothing else;
    a path to a server or a device is refused, because opening it alone tells somebody or waits; and each file that is
    taken over from the manifest is named before it is opened. Raises ValueError with the option that replaces it.
    """
    given = {name: value for name, value in vars(args).items() if value is not None}
    saved = {name: manifest.source.get(name) for name in ("model", *FILES, "device")}
    found = {name: saved[name] for name in opened if name not in given}
    taken = {name: path for name, path in found.items() if path not in (None, DEMO)}
    for name, path in taken.items():
        check_taken_over(f"--{name.replace('_', '-')}", str(path))
    if taken:
        print_notes([f"weights are taken from where the run had them: {', '.join(map(str, taken.values()))}"])
    saved |= {name: value for name, value in given.items() if name in saved}
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
