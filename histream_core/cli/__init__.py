"""The command line: `histream VERB ...`.

Exit status 0, or 1 where a measurement misses its bar, or 2 with one line on standard error that says what to change,
or 130 after Ctrl-C. With --json the last line on standard output is one JSON object; progress and notes go to standard
error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__

MISSED, BAD_INPUT, INTERRUPTED = 1, 2, 130

EXTRAS = {
    "headless": ("torch", "tqdm"),
    "text": ("transformers", "sentencepiece"),
    "lab": ("matplotlib", "PIL"),
}
"""Optional dependencies of the package, and what each of them brings."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and to which `--mode` is never short for `--model`."""

    def __init__(self, **settings) -> None:
        super().__init__(**{"allow_abbrev": False} | settings)
        self.forms: dict[str, Parser] = {}
        """Parsers that take over where their option is among the words."""

    def parse_known_args(self, args=None, namespace=None):
        """Parse the words; a verb refuses those that it does not know, by its own name."""
        options = {word.split("=")[0] for word in args or ()}
        form = next((form for option, form in self.forms.items() if option in options), None)
        if form:
            return form.parse_known_args(args, namespace)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status comes back."""
    try:
        return _run(argv)
    except KeyboardInterrupt as stop:
        _complain(f"stopped: {stop}" if str(stop) else "stopped")
        return INTERRUPTED
    except (ValueError, OSError, MemoryError) as error:
        _complain(str(error) or "out of memory: ask for a smaller size")
    except ModuleNotFoundError as error:
        _complain(f"{error.name} is not installed: pip install '{_extra(error.name)}'")
    return BAD_INPUT


def _run(argv: Sequence[str] | None) -> int:
    parser = Parser(prog="histream", description="Long, high-resolution video, chunk by chunk (arXiv 2512.21338).")
    parser.add_argument("--version", action="version", version=f"histream {__version__}")
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["--version"]:  # answered without loading anything
        parser.parse_args(words[:1])
    _add_verbs(parser)
    args = parser.parse_args(words)
    result, text = _guarded(args)
    if text and not args.json:
        sys.stdout.write(f"{text}\n")
    if args.json:
        sys.stdout.write(f"{json.dumps(result, allow_nan=False)}\n")
    return 0 if result.get("ok", True) else MISSED


def _add_verbs(parser: Parser) -> None:
    from .verbs import bench, costs, drift, evaluate, files, runs, sheet, videos

    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=True)
    for module in (videos, runs, costs, files, sheet, evaluate, drift, bench):
        for verb in module.add_to(verbs):
            verb.add_argument("--json", action="store_true", help="print one JSON object last")


def _guarded(args: argparse.Namespace) -> tuple[dict, str]:
    import torch

    try:
        return args.run(args)
    except torch.OutOfMemoryError as error:
        raise MemoryError("the GPU is out of memory: ask for a smaller --size, or see histream plan --vram") from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch's own words for a computer that has run out of it
            raise
        raise MemoryError("out of memory: ask for a smaller --size") from error


def _complain(message: str) -> None:
    sys.stderr.write(f"histream: {' '.join(message.split())}\n")


def _extra(module: str | None) -> str:
    package = (module or "histream").split(".")[0]
    extra = next((name for name, packages in EXTRAS.items() if package in packages), "")
    return f"histream[{extra}]" if extra else package
