"""Options of `histream farm submit`, `status`, `collect` and `cancel`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...farm.lease import LEASE_SECONDS
from ..options.common import add_overwrite, decimal, whole
from . import Later


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add the verb, with four of its own."""
    farm = verbs.add_parser("farm", description="Make a list of shots with several workers; any of them may die.")
    inner = farm.add_subparsers(title="verbs", metavar="VERB", dest="farm_verb", required=True)
    verb = inner.add_parser("submit", help="make the shots of a list, or go on with them")
    verb.add_argument(
        "shots",
        metavar="SHOTS",
        type=Path,
        help='a file with a JSON object in each line, such as {"prompt": "a red circle"}: a "name" and the options '
        "of histream demo, of render where there is a model, of v2v where there is a video; or a folder with a .json "
        "or .txt file for each shot",
    )
    verb.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="the folder of the farm: a run for each shot"
    )
    verb.add_argument(
        "--defaults", metavar="FILE", type=Path, help="a JSON object: options of all shots that do not name them"
    )
    verb.add_argument(
        "--address",
        metavar="A",
        help="local: several workers on this computer; auto: the Ray that runs on it; HOST:PORT: that of a cluster, "
        "whose computers all see DIR and the weights under the same names (default: local, for more than one worker)",
    )
    verb.add_argument(
        "--workers",
        metavar="N",
        type=whole,
        help="shots at a time; several need Ray (default: one for each GPU where Ray is installed, else one)",
    )
    verb.add_argument(
        "--lease",
        metavar="S",
        type=decimal,
        default=LEASE_SECONDS,
        help=f"seconds for which a worker that is not heard of keeps its shot (default: {LEASE_SECONDS:g})",
    )
    verb.set_defaults(run=Later("farm", "run_submit"))
    yield verb
    verb = inner.add_parser("status", help="which shots are finished, running, waiting or failed, and why")
    verb.add_argument("folder", metavar="DIR", type=Path)
    verb.set_defaults(run=Later("farm", "run_status"))
    yield verb
    verb = inner.add_parser("collect", help="copy the finished videos into one folder; say which are missing")
    verb.add_argument("folder", metavar="DIR", type=Path)
    verb.add_argument("--to", metavar="FOLDER", type=Path, required=True, help="where to copy them")
    add_overwrite(verb, "--to")
    verb.set_defaults(run=Later("farm", "run_collect"))
    yield verb
    verb = inner.add_parser("cancel", help="stop all workers within a step; finished chunks stay")
    verb.add_argument("folder", metavar="DIR", type=Path)
    verb.set_defaults(run=Later("farm", "run_cancel"))
    yield verb
