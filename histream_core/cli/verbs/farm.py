"""`histream farm submit`, `status`, `collect` and `cancel`: a list of shots, made by several workers."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...farm.collect import collect
from ...farm.lease import lease_of
from ...farm.shots import Shot, read_shots
from ...farm.status import FarmState, look
from ...farm.store import Farm, read_farm
from ...farm.submit import Front, Submission, completed, placed, submit
from ...farm.work import FAILED, FINISHED, GONE, Outcome
from ...files.reading import parse_json, printable, read_text
from ...runs import clean
from ...runs.make import Watch
from ...runs.store.journal import chunk_indices, read_manifest
from ..options.shots import ShotOptions
from ..progress import print_notes


def run_submit(args: argparse.Namespace) -> tuple[dict, str]:
    """Check every shot of a list, then make those that are not finished."""
    order = Submission(
        shots=completed(shot_verbs, read_shots(args.shots), _defaults(args.defaults)),
        folder=args.out,
        workers=args.workers,
        address=args.address,
        lease_seconds=args.lease,
    )
    teller = Teller()
    front = Front(note=lambda note: print_notes([note]), tell=teller.tell, begin=teller.begin)
    return _result(*submit(shot_verbs, order, front))


def run_status(args: argparse.Namespace) -> tuple[dict, str]:
    """Tell the state of a farm."""
    farm = read_farm(args.folder)
    result, text = _result(farm, look(farm))
    return result | {"ok": True}, text


def run_collect(args: argparse.Namespace) -> tuple[dict, str]:
    """Copy the finished videos of a farm."""
    farm = read_farm(args.folder)
    found = collect(farm, args.to, overwrite=args.overwrite)
    lines = [*(str(path) for path in found.files.values())]
    lines += [f"missing: {name}, {why}" for name, why in found.missing.items()]
    files = {name: str(path.resolve()) for name, path in found.files.items()}
    result = {"ok": not found.missing, "files": files, "missing": found.missing}
    return result, "\n".join([*lines, f"{len(files)} of {len(farm.shots)} shots are in {args.to}"])


def run_cancel(args: argparse.Namespace) -> tuple[dict, str]:
    """Stop a farm."""
    farm = read_farm(args.folder)
    tasks = (task for shot in farm.shots for task in (shot.name, *farm.parts_of(shot.name)))
    running = [task for task in tasks if lease_of(farm.leases, task, farm.lease_seconds).is_live]
    farm.cancel()
    told = f"{', '.join(running)} stop at the next step" if running else "no shot is running"
    return {"running": running}, f"cancelled: {told}; finished chunks stay, submit the list again to go on"


def make_shot(shot: Shot, folder: Path, watch: Watch, part: range | None = None) -> None:
    """Make the run of a shot in `folder`, or resume it; of a `part` only its chunks, and no video.

    Raises as the verbs of the command line do.
    """
    from .. import memory_errors
    from .runs import resume_run
    from .videos import keep

    with memory_errors():
        if _can_resume(folder):
            resume_run(shot_verbs.resume_args(shot, folder), watch)
        else:
            args = shot_verbs.args(shot, folder)
            keep(args, args.check(args), watch, part)


class FarmVerbs(ShotOptions):
    """The verbs of this command line, for shots of any program."""

    make = staticmethod(make_shot)


shot_verbs = FarmVerbs()


def _can_resume(folder: Path) -> bool:
    """Whether a shot has a run; one that was killed before all that it begins with was stored is removed."""
    if not (folder / "manifest.json").exists():
        return False
    manifest = read_manifest(folder)
    if manifest.kept.start + len(chunk_indices(folder)) >= manifest.plan.given_chunks:
        return True
    clean(folder)
    return False


def _defaults(path: Path | None) -> dict[str, Any]:
    """The options of --defaults, with files by absolute paths. Raises ValueError and OSError."""
    if path is None:
        return {}
    values = parse_json(read_text(path), unique=True)
    if not isinstance(values, dict):
        raise ValueError(f'{path} is no JSON object: write it like {{"seconds": 5}}')
    with placed(str(path)):
        return dict(shot_verbs.resolved(Shot("", values, folder=path.parent)).options)


class Teller:
    """Prints a line for each shot that ends, and for each worker that dies."""

    def __init__(self) -> None:
        self._ended = self._total = 0

    def begin(self, num_shots: int) -> None:
        self._total = num_shots

    def tell(self, name: str, outcome: Outcome) -> None:
        if outcome.state in (FINISHED, FAILED):
            self._ended += 1
            left = f"{self._ended} of {self._total}"
        else:
            left = "tried again" if outcome.state == GONE else ""
        told = ", ".join(filter(None, [f"{name}: {outcome.state}", left, outcome.why]))
        sys.stderr.write(f"{printable(' '.join(told.split()))}\n")
        sys.stderr.flush()


def _result(farm: Farm, state: FarmState) -> tuple[dict, str]:
    counted = state.count()
    result = {
        "ok": counted[FINISHED] == len(state.shots),
        "farm": str(farm.folder.resolve()),
        "shots": [asdict(shot) for shot in state.shots],
        "counts": dict(counted),
        "seconds_left": state.left,
        "cancelled": state.cancelled,
    }
    return result, state.table()
