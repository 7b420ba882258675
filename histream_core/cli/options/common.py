"""Options of most verbs: finite numbers, and files that are replaced only with --overwrite."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator
from pathlib import Path

from ...files.disk import check_folder, check_new, check_not_read

READ = ("model", "vae", "text_encoder", "embeds", "timeline", "source")
"""Options with the name of a file that is read, where it is no Path."""

WRITTEN = ("out", "plot", "plots", "csv", "sheet", "target")
"""Options with the name of a file that is written."""

MAX_DIGITS = 20
"""Digits of the largest seed."""


def whole(text: str) -> int:
    """A whole number, for argparse."""
    if not re.fullmatch(r"[+-]?[0-9]+", text.strip()):
        raise argparse.ArgumentTypeError(f"{_quoted(text)} is no whole number: write it like 81")
    if len(text.strip().lstrip("+-0")) > MAX_DIGITS:
        raise argparse.ArgumentTypeError(f"{_quoted(text)} has more than {MAX_DIGITS} digits: write a smaller number")
    return int(text)


def decimal(text: str) -> float:
    """A finite number, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{_quoted(text)} is no number: write it like 2.5")
    return value


def _quoted(text: str) -> str:
    return f'"{text}"' if len(text) <= 2 * MAX_DIGITS else f'"{text[:MAX_DIGITS]}..."'


def prompt_text(text: str) -> str:
    """A prompt or a timeline, for argparse."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty: write words, or leave the option out")
    return text


def check_inputs(args: argparse.Namespace) -> None:
    """Refuse an option that would write over a file that another option reads. Raises ValueError."""
    given = {name: value for name, value in vars(args).items() if value}
    inputs = [path for name, value in given.items() if name not in WRITTEN for path in _files(name, value)]
    for name in WRITTEN:
        if isinstance(given.get(name), Path):
            check_not_read(given[name], inputs)


def _files(name: str, value: object) -> Iterator[Path]:
    """The values of an option that are names of files."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, Path) or (isinstance(one, str) and name in READ):
            yield Path(one)


def add_overwrite(verb: argparse.ArgumentParser, what: str) -> None:
    """Add --overwrite; `what` is the option that names the file."""
    verb.add_argument(
        "--overwrite", action="store_true", help=f"let {what} replace a file (default: a file is never replaced)"
    )


def check_files(*paths: Path | None, overwrite: bool) -> None:
    """Refuse files that could not be written, before anything is computed. Raises OSError; None is no file."""
    for path in paths:
        if path:
            check_folder(path)
            check_new(path, overwrite=overwrite)
