"""Options of `histream inspect` and `histream convert`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...plan.storage import DTYPES
from . import Later


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add both verbs."""
    verb = verbs.add_parser("inspect")
    verb.add_argument("file", metavar="FILE", type=Path)
    verb.set_defaults(run=Later("files", "run_inspect"))
    yield verb
    verb = verbs.add_parser("convert")
    verb.add_argument("source", metavar="IN", type=Path)
    verb.add_argument("target", metavar="OUT", type=Path)
    verb.add_argument("--dtype", choices=sorted(DTYPES), help="store the weights in this type (default: as they are)")
    verb.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")
    verb.set_defaults(run=Later("files", "run_convert"))
    yield verb
