"""The error of a weight file that cannot be used."""

from collections.abc import Iterable
from pathlib import Path

from ..files.reading import printable

_LONGEST_NAME = 80


class CheckpointError(ValueError):
    """A file cannot be used; the message is one sentence that says why and what to do."""


def damaged(path: Path, size: int, why: object = "") -> CheckpointError:
    """The error for a file that is not whole."""
    said = " ".join(str(why).split())[:200]
    return CheckpointError(
        f"{path} is truncated or damaged at {size} bytes{f' ({said})' if said else ''}: get it again"
    )


def first_five(names: Iterable[object]) -> str:
    """The first five names of a file's tensors, as they can be printed."""
    names = [printable_name(name) for name in names]
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def printable_name(name: object) -> str:
    """The name of a tensor as it can be printed, cut where it is long."""
    return printable(str(name)[:_LONGEST_NAME])
