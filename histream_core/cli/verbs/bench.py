"""`histream bench`: costs of the engine, compared with their bars."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ... import __version__
from ...files.disk import write_whole
from ..options.common import check_files

if TYPE_CHECKING:
    from ...lab.bench.bars import Bar

LIVE = ("camera", "steps", "policy", "hours", "load_step")
"""Options of --live, each a field of `LiveOptions`."""

COMPUTED = "computed, on a virtual clock"


def run_bench(args: argparse.Namespace) -> tuple[dict, str]:
    """Count or measure costs: compare them with bars, or with --gpu fill the rows of the sheet."""
    if args.tiny and not args.gpu:
        raise ValueError("--tiny belongs to --gpu: give --gpu --tiny")
    chosen = {name: value for name in LIVE if (value := getattr(args, name)) is not None}
    given = [*map(_option, chosen), *(["--table"] if args.table else [])]
    if (args.sim or given) and not args.live:
        raise ValueError(f"{' and '.join(given) or '--sim'} belongs to --live: give --live --sim")
    if args.live and not args.sim:
        raise ValueError("live streams are simulated so far: give --live --sim")
    if args.table and chosen:
        raise ValueError(f"the streams of --table are always the same: leave {' and '.join(map(_option, chosen))} out")
    check_files(args.out, overwrite=args.overwrite)
    if args.plots:
        return _plots(args.plots, overwrite=args.overwrite)
    if args.gpu:
        return _sheet(args)
    if args.live:
        result, text = _table() if args.table else _live(chosen)
    elif args.limit:
        result, text = _limit()
    else:
        result, text = _bars(args)
    if args.out:
        _write(args.out, result, overwrite=args.overwrite)
    return result, text


def _write(path: Path, result: dict, *, overwrite: bool) -> None:
    write_whole(path, f"{json.dumps(result, indent=1, allow_nan=False)}\n".encode(), overwrite=overwrite)


def _plots(folder: Path, *, overwrite: bool) -> tuple[dict, str]:
    from ...lab.charts.benchmarks import plots

    if not folder.is_dir():
        raise ValueError(f"--plots {folder}: there is no such folder")
    made = {folder / name: svg for name, svg in plots()}
    check_files(*made, overwrite=overwrite)
    for path, svg in made.items():
        write_whole(path, svg, overwrite=overwrite)
    written = list(map(str, made))
    return {"written": written}, "\n".join(written)


def _bars(args: argparse.Namespace) -> tuple[dict, str]:
    from ...lab.bench.bars import report, table
    from ...lab.bench.cpu import cpu_bars
    from ...lab.bench.meta import meta_bars

    bars = _one_by_one(meta_bars() if args.meta else cpu_bars())
    return _about("meta" if args.meta else "cpu", platform.machine()) | report(bars), table(bars)


def _limit() -> tuple[dict, str]:
    from ...lab.bench.limit import limit_table, measure_limit

    limit = measure_limit()
    return _about("limit", platform.machine()) | limit.plain(), limit_table(limit)


def _live(chosen: dict[str, Any]) -> tuple[dict, str]:
    from ...lab.bench.bars import report, table
    from ...lab.bench.live import LiveBench, LiveOptions

    bench = LiveBench(LiveOptions(**chosen))
    bars = _one_by_one(bench.bars())
    return _about("live --sim", COMPUTED) | report(bars) | bench.plain(), table(bars)


def _table() -> tuple[dict, str]:
    from ...lab.bench.live_table import expected, markdown, plain

    found = list(expected())
    return _about("live --sim --table", COMPUTED) | plain(found), markdown(found)


def _one_by_one(bars: Iterable[Bar]) -> list[Bar]:
    """Compute all bars, and say the name of each as it is there."""
    found = []
    for bar in bars:
        found.append(bar)
        sys.stderr.write(f"{len(found):3} {bar.name}\n")
    return found


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _about(bench: str, chip: str) -> dict:
    """Name, date, chip and versions of a measurement."""
    versions = {"histream": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return {"bench": bench, "date": date.today().isoformat(), "chip": chip, **versions}


def _sheet(args: argparse.Namespace) -> tuple[dict, str]:
    """Measure the sheet. A run that is cut off leaves its rows: they are printed, and in the file, as they come."""
    from ...lab.bench.sheet import sheet_report, sheet_table
    from ...lab.bench.sheet_run import sheet_rows

    measured = sheet_rows(tiny=args.tiny)
    about = _about("gpu --tiny", platform.machine()) if args.tiny else _about("gpu", torch.cuda.get_device_name())
    rows = []
    for row in measured:
        rows.append(row)
        sys.stdout.write(f"{json.dumps(row.plain(), allow_nan=False)}\n")
        sys.stdout.flush()
        if args.out:
            result = about | sheet_report(rows) | {"complete": False}
            _write(args.out, result, overwrite=args.overwrite or len(rows) > 1)
    result, text = about | sheet_report(rows) | {"complete": True}, sheet_table(rows)
    if args.out:
        _write(args.out, result, overwrite=args.overwrite or bool(rows))
    if args.json:
        sys.stderr.write(f"{text}\n")
    return result, text
