"""`histream farm submit`, `status`, `collect` and `cancel`: a list of shots, made by several workers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...farm.collect import collect
from ...farm.drive import Drive, InProcess, Tell, Workers
from ...farm.lease import lease_of
from ...farm.ray_workers import LOCAL, open_workers
from ...farm.shots import Shot, read_shots
from ...farm.status import FarmState, look
from ...farm.store import (
    LEASE_SECONDS,
    Farm,
    check_place,
    lock_farm,
    open_place,
    read_farm,
    unchanged,
    write_farm,
)
from ...farm.work import FAILED, FINISHED, GONE, Outcome
from ...files.disk import nearest_existing
from ...files.reading import parse_json, printable, read_text
from ...runs import RunInUseError, clean
from ...runs.make import Watch
from ...runs.store.journal import chunk_indices, read_manifest
from ...video.space import check_bytes
from ..options.common import add_overwrite, decimal, whole
from ..options.shots import Needs, ShotOptions
from ..progress import print_notes

SHOT_OPTIONS = ShotOptions()


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add the verb, with four of its own."""
    farm = verbs.add_parser("farm", description="Make a list of shots with several workers; any of them may die.")
    inner = farm.add_subparsers(title="verbs", metavar="VERB", dest="farm_verb", required=True)
    verb = inner.add_parser("submit", help="make the shots of a list, or go on with them")
    verb.add_argument(
        "shots",
        metavar="SHOTS",
        type=Path,
        help='a file with a JSON object in each line, such as {"prompt": "a cat", "seed": 1}: a "name" and the options '
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
        "--workers", metavar="N", type=whole, help="shots at a time (default: one for each GPU; without a GPU one)"
    )
    verb.add_argument(
        "--lease",
        metavar="S",
        type=decimal,
        default=LEASE_SECONDS,
        help=f"seconds for which a worker that is not heard of keeps its shot (default: {LEASE_SECONDS:g})",
    )
    verb.set_defaults(run=run_submit)
    yield verb
    verb = inner.add_parser("status", help="which shots are finished, running, waiting or failed, and why")
    verb.add_argument("folder", metavar="DIR", type=Path)
    verb.set_defaults(run=run_status)
    yield verb
    verb = inner.add_parser("collect", help="copy the finished videos into one folder; say which are missing")
    verb.add_argument("folder", metavar="DIR", type=Path)
    verb.add_argument("--to", metavar="FOLDER", type=Path, required=True, help="where to copy them")
    add_overwrite(verb, "--to")
    verb.set_defaults(run=run_collect)
    yield verb
    verb = inner.add_parser("cancel", help="stop all workers within a step; finished chunks stay")
    verb.add_argument("folder", metavar="DIR", type=Path)
    verb.set_defaults(run=run_cancel)
    yield verb


def run_submit(args: argparse.Namespace) -> tuple[dict, str]:
    """Check every shot of a list, then make those that are not finished."""
    _check_workers(args)
    folder = Path(args.out).absolute()
    check_place(folder)
    shots = _read(args)
    needs = [_check(shot, folder) for shot in shots]
    check_bytes(nearest_existing(folder), sum(need.num_bytes for need in needs), f"the {len(shots)} shots")
    farm = Farm(folder, tuple(shots), tuple((need.chunks, need.pixels) for need in needs), args.lease)
    open_place(folder)
    held = lock_farm(folder)
    try:
        left = _merge(farm)
        write_farm(farm)
        todo = [shot.name for shot in shots if not _is_finished(farm, shot.name)]
        print_notes([*left, *_plans(farm, todo)])
        if todo:
            with _workers(args, farm) as workers:
                Drive(farm, workers, _teller(len(todo))).run(todo)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(look(farm).summary()) from stop
    finally:
        held.release()
    return _result(farm, look(farm))


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
    running = [shot.name for shot in farm.shots if lease_of(farm.leases, shot.name, farm.lease_seconds).is_live]
    farm.cancel()
    told = f"{', '.join(running)} stop at the next step" if running else "no shot is running"
    return {"running": running}, f"cancelled: {told}; finished chunks stay, submit the list again to go on"


def make_shot(shot: Shot, folder: Path, watch: Watch) -> None:
    """Make the run of a shot in `folder`, or resume it. Raises as the verbs of the command line do."""
    from .. import memory_errors
    from .runs import resume_run
    from .videos import keep

    with memory_errors():
        if _can_resume(folder):
            resume_run(SHOT_OPTIONS.resume_args(shot, folder), watch)
        else:
            args = SHOT_OPTIONS.args(shot, folder)
            keep(args, args.check(args), watch)


def _can_resume(folder: Path) -> bool:
    """Whether a shot has a run; one that was killed before all that it begins with was stored is removed."""
    if not (folder / "manifest.json").exists():
        return False
    if len(chunk_indices(folder)) >= read_manifest(folder).plan.given_chunks:
        return True
    clean(folder)
    return False


def _check_workers(args: argparse.Namespace) -> None:
    """Complete --workers and --address. Raises ValueError."""
    import torch

    if args.workers is not None and args.workers < 1:
        raise ValueError(f"{args.workers} workers make nothing: use 1 or more")
    if args.lease < 1:
        raise ValueError(f"a lease of {args.lease:g} seconds is too short to be renewed: use 5 or more")
    if args.workers is None and args.address is None:
        args.workers = max(1, torch.cuda.device_count()) if find_spec("ray") else 1
    if args.address is None and (args.workers or 1) > 1:
        args.address = LOCAL
    host, _, port = (args.address or "").rpartition(":")
    if args.address not in (None, LOCAL, "auto") and not (host and port.isdecimal()):
        raise ValueError(
            f"{args.address!r} is no address of a Ray: write auto, local or HOST:PORT, such as 10.0.0.1:6379"
        )
    if args.address and not find_spec("ray"):
        raise ValueError(
            "Ray is not installed, and without it there is one worker: pip install 'histream[scale]', or leave "
            "--address and --workers out"
        )


def _read(args: argparse.Namespace) -> list[Shot]:
    """The shots of the list, with the defaults, and with files by absolute paths. Raises ValueError and OSError."""
    defaults: dict[str, Any] = {}
    if args.defaults:
        values = parse_json(read_text(args.defaults), unique=True)
        if not isinstance(values, dict):
            raise ValueError(f'{args.defaults} is no JSON object: write it like {{"seconds": 5}}')
        with _placed(str(args.defaults)):
            defaults = dict(SHOT_OPTIONS.resolved(Shot("", values, folder=args.defaults.parent)).options)
    shots = []
    for shot in read_shots(args.shots):
        with _placed(shot.place):
            found = SHOT_OPTIONS.resolved(shot)
            shots.append(replace(found, options=defaults | dict(found.options)))
    return shots


@contextmanager
def _placed(place: str) -> Iterator[None]:
    """Put the place of a shot in front of an error."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    except OSError as error:
        raise OSError(f"{place}: {error}") from error


def _check(shot: Shot, folder: Path) -> Needs:
    run = Farm(folder, (), ()).run_of(shot.name)
    with _placed(shot.place):
        return SHOT_OPTIONS.check(shot, run, begun=(run / "manifest.json").exists())


def _merge(farm: Farm) -> list[str]:
    """Check that the list goes on with what the folder holds, and return notes. Raises ValueError."""
    try:
        old = read_farm(farm.folder)
    except FileNotFoundError:
        return []
    unchanged(old.shots, farm.shots, [shot.name for shot in old.shots if old.is_begun(shot.name)])
    gone = {shot.name for shot in old.shots if old.is_begun(shot.name)} - {shot.name for shot in farm.shots}
    return [f"{', '.join(sorted(gone))}: no more in the list, and left as they are"] if gone else []


def _is_finished(farm: Farm, name: str) -> bool:
    """Whether nothing is left to do for a shot; one that is damaged says so when it is tried."""
    try:
        return farm.is_finished(name)
    except (RunInUseError, ValueError):
        return False


def _plans(farm: Farm, todo: Sequence[str]) -> Iterator[str]:
    done = len(farm.shots) - len(todo)
    if done:
        yield f"{done} of {len(farm.shots)} shots are finished already"


@contextmanager
def _workers(args: argparse.Namespace, farm: Farm) -> Iterator[Workers]:
    """The workers that the options ask for, which are told."""
    if args.address is None:
        why = "" if find_spec("ray") else "; Ray is not installed, several need it: pip install 'histream[scale]'"
        print_notes([f"one shot after the other, in this process{why}"])
        yield InProcess(farm.folder, make_shot)
        return
    with open_workers(farm.folder, make_shot, address=args.address, workers=args.workers) as workers:
        print_notes([f"{workers.size} shots at a time, by Ray ({args.address})"])
        yield workers


def _teller(total: int) -> Tell:
    """A function that prints a line for each shot that ends, and for each worker that dies."""
    ended = 0

    def tell(name: str, outcome: Outcome) -> None:
        nonlocal ended
        if outcome.state in (FINISHED, FAILED):
            ended += 1
            left = f"{ended} of {total}"
        else:
            left = "tried again" if outcome.state == GONE else ""
        told = ", ".join(filter(None, [f"{name}: {outcome.state}", left, outcome.why]))
        sys.stderr.write(f"{printable(' '.join(told.split()))}\n")
        sys.stderr.flush()

    return tell


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
