"""`histream inspect` and `histream convert`: describe a weight file, and rewrite it for ComfyUI."""

from __future__ import annotations

import argparse

from ...weights.convert import convert
from ...weights.inspection import describe_wan, inspect
from ...weights.loading import DTYPES


def run_inspect(args: argparse.Namespace) -> tuple[dict, str]:
    """Describe a file, one line per property."""
    found = inspect(args.file)
    return found, "\n".join(
        f"{name:14} {_plain(value)}" for name, value in found.items() if value not in (None, [], {})
    )


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def run_convert(args: argparse.Namespace) -> tuple[dict, str]:
    """Write the converted file, and return its path."""
    dtype = DTYPES[args.dtype] if args.dtype else None
    source = convert(args.source, args.target, dtype=dtype, overwrite=args.overwrite)
    result = {
        "file": str(args.target.resolve()),
        "kind": source.kind,
        "tensors": len(source.state_dict),
        "bytes": args.target.stat().st_size,
    }
    lines = [f"{result['file']}: {source.kind}, {result['tensors']} tensors, {result['bytes']} bytes"]
    return result, "\n".join([*lines, *describe_wan(source)])
