"""A copy of the pack with one piece of text broken on purpose, and a table of who notices."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]

Break = tuple[str, str, str, str, str]
"""File, what stands there, what it is broken to, test file, part of the test's name."""


@contextmanager
def broken_pack(file: str, old: str, new: str) -> Iterator[Path]:
    """Yield the folder of the copy. Ends the program where `old` does not stand in the file exactly once."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "pack"
        shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".git", "__pycache__", "training"))
        path = root / file
        source = path.read_text(encoding="utf-8")
        if source.count(old) != 1:
            sys.exit(f"{file} does not hold this text exactly once any more: {old!r}")
        path.write_text(source.replace(old, new), encoding="utf-8")
        yield root


def chosen(breaks: Sequence[Break], about: str) -> list[Break]:
    """The breaks that the user asks for."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--only", default="", help="breaks whose text, test or file name contains this")
    only = parser.parse_args().only
    return [entry for entry in breaks if only in " ".join(entry)]


def report(breaks: Sequence[Break], run_tests: Callable[[Path, str, str], int]) -> int:
    """Say of each break whether it is noticed; 1 comes back where one is not.

    `run_tests` gets the copy's folder, a test file and part of a test's name, and returns pytest's exit status.
    """
    survivors = 0
    for file, old, new, test_file, name in breaks:
        with broken_pack(file, old, new) as root:
            noticed = run_tests(root, test_file, name) == 1
        survivors += not noticed
        sys.stdout.write(
            f"{'noticed' if noticed else 'NOT NOTICED':12}{file}: {old.strip()!r} -> {new.strip()!r} ({name})\n"
        )
        sys.stdout.flush()
    return int(survivors > 0)
