"""The command line: `histream VERB ...`.

Exit status: 0; 1 if a measurement misses its bar or a shot is missing; 2 with one line on standard error that says what
to change; 130 after Ctrl-C. With --json the last line on standard output is one JSON object; progress and notes go to
standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from .. import __version__
from ..files.reading import printable

MISSED, BAD_INPUT, INTERRUPTED = 1, 2, 130

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables by which a user says how OpenMP's threads wait."""

VERBS = {
    "demo": ("videos", "a video from the bundled model: no download, any computer"),
    "render": ("videos", "a video from your own weights"),
    "v2v": ("restyle", "a video in another look: every frame and the sound kept"),
    "live": ("live", "a camera, an address or a file in another look while it plays"),
    "resume": ("runs", "go on with a run that was stopped, killed or interrupted"),
    "extend": ("runs", "make a run longer"),
    "branch": (
        "runs",
        "a new run that shares the first chunks of another and goes its own way from there on",
    ),
    "farm": ("farm", "a list of shots, over the GPUs of a computer or of a cluster"),
    "runs": ("runs", "list the runs in a folder"),
    "clean": ("runs", "remove what a run left, but not the video"),
    "plan": ("costs", "what a video would take: network calls, operations, memory"),
    "inspect": ("files", "what a weight file holds, and which preset fits it"),
    "convert": ("files", "write a ComfyUI-ready safetensors file"),
    "sheet": ("sheet", "one prompt and seed over the settings that only real weights can decide"),
    "eval": ("evaluate", "how good videos are, or what the bundled model makes of fresh prompts"),
    "drift": ("drift", "colour, brightness and sharpness of a video over time, against its start"),
    "bench": ("bench", "what the engine costs, against its bars; exit status 1 where one is missed"),
}
"""Each verb: its module in `parsers`, and its line of help."""


EXTRAS = {
    "headless": ("torch", "tqdm"),
    "text": ("transformers", "sentencepiece"),
    "lab": ("matplotlib", "PIL"),
    "live": ("aiohttp",),
    "scale": ("ray",),
    "flow": ("cv2",),
}
"""Optional dependencies of the package, with the modules that each of them installs."""


class Parser(argparse.ArgumentParser):
    """An argument parser with errors of one line and without abbreviated options."""

    def __init__(self, *, allow_abbrev: bool = False, **settings: Any) -> None:
        super().__init__(allow_abbrev=allow_abbrev, **settings)
        self.forms: dict[str, Parser] = {}
        """Parsers by option; a parser takes over if its option is given."""
        self.late = ""
        """The optional positional path that may stand behind options too, where older Pythons give up."""

    def parse_known_args(self, args=None, namespace=None):
        """Parse the words; unknown ones are refused with the verb's own name in the message."""
        options = {word.split("=")[0] for word in args or ()}
        form = next((form for option, form in self.forms.items() if option in options), None)
        if form:
            return form.parse_known_args(args, namespace)
        found, unknown = super().parse_known_args(args, namespace)
        if self.late and len(unknown) == 1 and unknown[0][:1] != "-" and getattr(found, self.late) is None:
            setattr(found, self.late, Path(unknown.pop()))
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    let_idle_threads_sleep()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a console without emojis shows their numbers
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


def let_idle_threads_sleep() -> None:
    """Have the threads of a layer sleep while they wait for one another, unless the user has said how they wait.

    They spin otherwise, which takes the core that another program, or the thread that they wait for, needs. OpenMP
    reads it when torch is loaded: a process that has torch already, such as ComfyUI's, is left as it is.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def _run(argv: Sequence[str] | None) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    args = _parser(words[0] if words else "").parse_args(words)
    several = (getattr(args, "gpus", None) or 1) > 1
    with contextlib.redirect_stdout(sys.stderr) if several else contextlib.nullcontext():  # Ray prints what it sees
        result, text = _guarded(args)
    if text and not args.json:
        sys.stdout.write(f"{printable(text)}\n")
    if args.json:
        sys.stdout.write(f"{json.dumps(result, allow_nan=False)}\n")
    return 0 if result.get("ok", True) else MISSED


def _parser(verb: str) -> Parser:
    """The parser of all verbs; only the module of `verb` is loaded, the others have only a name and a line of help."""
    parser = Parser(prog="histream", description="Long, high-resolution video, chunk by chunk (arXiv 2512.21338).")
    parser.add_argument("--version", action="version", version=f"histream {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=True)
    module = VERBS[verb][0] if verb in VERBS else ""
    for name, (place, about) in VERBS.items():
        if place != module:
            verbs.add_parser(name, help=about)
    if module:
        for added in import_module(f".parsers.{module}", __name__).add_to(verbs):
            added.add_argument("--json", action="store_true", help="print one JSON object last")
    return parser


def _guarded(args: argparse.Namespace) -> tuple[dict, str]:
    from .options.common import check_inputs

    if getattr(args, "overwrite", False):
        check_inputs(args)
    with memory_errors():
        return args.run(args)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Say in a sentence what to do where memory does not suffice. Raises ValueError and MemoryError."""
    import torch

    from ..runs.describe import NotEnoughMemoryError

    try:
        yield
    except NotEnoughMemoryError as error:
        raise ValueError(f"{error}; or try with --ignore-memory") from error
    except torch.OutOfMemoryError as error:
        raise MemoryError("the GPU is out of memory: ask for a smaller --size, or see histream plan --vram") from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch's own words for a computer that has run out of it
            raise
        raise MemoryError("out of memory: ask for a smaller --size") from error


def _complain(message: str) -> None:
    sys.stderr.write(f"histream: {printable(' '.join(message.split()))}\n")


def _extra(module: str | None) -> str:
    package = (module or "histream").split(".")[0]
    extra = next((name for name, packages in EXTRAS.items() if package in packages), "")
    return f"histream[{extra}]" if extra else package
