"""`histream bench`: costs of the engine, compared with their bars."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import torch

from ... import __version__
from ...files.disk import write_whole
from ..options.common import add_overwrite, check_files


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add the verb."""
    verb = verbs.add_parser("bench")
    what = verb.add_mutually_exclusive_group(required=True)
    what.add_argument("--meta", action="store_true", help="count operations, bytes and waits at 1920x1088; no GPU used")
    what.add_argument("--cpu", action="store_true", help="ratios of times on one thread, in a minute or two")
    what.add_argument("--gpu", action="store_true", help="the ten-minute sheet: random weights of the real size")
    what.add_argument("--plots", metavar="FOLDER", type=Path, help="draw what a frame costs, as SVG files")
    verb.add_argument("--tiny", action="store_true", help="with --gpu: the same sheet at tiny sizes, on the CPU")
    verb.add_argument("--out", metavar="F.json", type=Path, help="write the result there too")
    add_overwrite(verb, "--out and --plots")
    verb.set_defaults(run=run_bench)
    yield verb


def run_bench(args: argparse.Namespace) -> tuple[dict, str]:
    """Count or measure costs: compare them with bars, or with --gpu fill the rows of the sheet."""
    if args.tiny and not args.gpu:
        raise ValueError("--tiny belongs to --gpu: give --gpu --tiny")
    check_files(args.out, overwrite=args.overwrite)
    if args.plots:
        return _plots(args.plots, overwrite=args.overwrite)
    result, text = _sheet(args) if args.gpu else _bars(args)
    if args.out:
        write_whole(args.out, f"{json.dumps(result, indent=1, allow_nan=False)}\n".encode(), overwrite=args.overwrite)
    return result, text


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

    bars = []
    for bar in meta_bars() if args.meta else cpu_bars():
        bars.append(bar)
        sys.stderr.write(f"{len(bars):3} {bar.name}\n")
    return _about("meta" if args.meta else "cpu", platform.machine()) | report(bars), table(bars)


def _about(bench: str, chip: str) -> dict:
    """Name, date, chip and versions of a measurement."""
    versions = {"histream": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return {"bench": bench, "date": date.today().isoformat(), "chip": chip, **versions}


def _sheet(args: argparse.Namespace) -> tuple[dict, str]:
    from ...lab.bench.sheet import sheet_report, sheet_rows, sheet_table

    rows = []
    for row in sheet_rows(tiny=args.tiny):
        rows.append(row)
        sys.stdout.write(f"{json.dumps(row.plain(), allow_nan=False)}\n")
        sys.stdout.flush()  # a run that is cut off leaves its rows
    text = sheet_table(rows)
    if args.json:
        sys.stderr.write(f"{text}\n")
    about = _about("gpu --tiny", platform.machine()) if args.tiny else _about("gpu", torch.cuda.get_device_name())
    return about | sheet_report(rows), text
