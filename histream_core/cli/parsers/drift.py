"""Options of `histream drift`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..options.common import add_overwrite
from . import Later


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add the verb."""
    verb = verbs.add_parser("drift")
    verb.add_argument("video", metavar="VIDEO", type=Path)
    verb.add_argument("--plot", metavar="FILE.png", type=Path, help="draw it as a picture")
    add_overwrite(verb, "--plot")
    verb.set_defaults(run=Later("drift", "run_drift"))
    yield verb
