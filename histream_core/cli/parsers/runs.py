"""Options of `histream resume`, `extend`, `branch`, `runs` and `clean`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...video.formats import NAMES
from ..options.adding import (
    add_engine_options,
    add_review,
    add_section_files,
    add_snapshots,
    add_timeline,
    add_upsampler,
)
from ..options.common import decimal, prompt_text, whole
from ..options.memory import add_kv_option, add_memory_option
from ..options.speed import add_speed_options
from . import Later


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add the five verbs."""
    verb = verbs.add_parser("resume")
    verb.add_argument("folder", metavar="DIR", type=Path, help="the folder that was given as --run-dir")
    _add_places(verb)
    verb.set_defaults(run=Later("runs", "run_resume"))
    yield verb
    verb = verbs.add_parser("extend")
    verb.add_argument("folder", metavar="DIR", type=Path)
    verb.add_argument("--seconds", metavar="S", type=decimal, required=True, help="how much longer")
    _add_prompt(verb)
    _add_places(verb)
    verb.set_defaults(run=Later("runs", "run_extend"))
    yield verb
    verb = verbs.add_parser(
        "branch",
        description="Retry from a chunk with another --seed, go another way with another --prompt, or write what is "
        "finished in another --format.",
    )
    verb.add_argument("folder", metavar="DIR", type=Path)
    verb.add_argument("new", metavar="NEW", type=Path, help="a folder that does not exist yet")
    verb.add_argument("--from", metavar="K", dest="chunk", type=whole, help="chunks to share (default: all finished)")
    verb.add_argument("--seed", metavar="N", type=whole, help="of the chunks from K on (default: as it was)")
    verb.add_argument("--seconds", metavar="S", type=decimal, help="how much longer (default: as long as it was)")
    verb.add_argument("--format", metavar="F", help=f"{', '.join(NAMES)} (default: as it was)")
    verb.add_argument("--depth", metavar="BITS", type=whole, help="bits for each channel (default: what is usual)")
    sound = verb.add_mutually_exclusive_group()
    sound.add_argument("--sound", metavar="FILE", type=Path, help="another sound (default: as it was)")
    sound.add_argument("--no-sound", action="store_true", help="leave the sound out")
    add_section_files(verb)
    _add_prompt(verb)
    _add_places(verb)
    verb.set_defaults(run=Later("runs", "run_branch"))
    yield verb
    verb = verbs.add_parser("runs")
    verb.add_argument("folder", metavar="DIR", type=Path, nargs="?", default=Path(), help="default: this folder")
    verb.set_defaults(run=Later("runs", "run_runs"))
    yield verb
    verb = verbs.add_parser("clean")
    verb.add_argument("folder", metavar="DIR", type=Path)
    verb.add_argument("--video", action="store_true", help="remove the video too")
    verb.set_defaults(run=Later("runs", "run_clean"))
    yield verb


def _add_places(verb: argparse.ArgumentParser) -> None:
    add_snapshots(verb)
    add_review(verb)
    add_kv_option(verb, default=None)
    add_memory_option(verb)
    add_engine_options(verb)
    add_speed_options(verb, kept=True)
    verb.add_argument("--model", metavar="F", help="where the transformer is now (default: where it was)")
    verb.add_argument("--vae", metavar="F", help="where the VAE is now")
    add_upsampler(verb, kept=True)
    verb.add_argument("--device", metavar="D", help="cuda, cuda:1, mps, cpu (default: as it was)")
    verb.add_argument("--source", metavar="F", type=Path, help="where the video that is restyled is now")


def _add_prompt(verb: argparse.ArgumentParser) -> None:
    text = verb.add_mutually_exclusive_group()
    text.add_argument(
        "--prompt", metavar="P", type=prompt_text, help="what the video shows from there on (default: as it was)"
    )
    add_timeline(text)
    verb.add_argument("--text-encoder", metavar="F", help="where the text encoder is now")
