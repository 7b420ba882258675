"""A copy of the pack with one piece of text broken on purpose, and a table of who notices."""

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]

Break = tuple[str, str, str, str, str]
"""File, what stands there, what it is broken to, test file, part of the test's name."""


@contextmanager
def broken_pack(file: str, old: str, new: str) -> Iterator[Path]:
    """Yield the folder of the copy. Ends the program where `old` does not stand in the file exactly once."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "pack"
        shutil.copytree(
            ROOT, root, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "training")
        )
        path = root / file
        source = path.read_text(encoding="utf-8")
        if source.count(old) != 1:
            sys.exit(f"{file} does not hold this text exactly once any more: {old!r}")
        path.write_text(source.replace(old, new), encoding="utf-8")
        yield root


def chosen(breaks: Sequence[Break], about: str) -> list[Break]:
    """The breaks that the user asks for: some by a word, of these as many as wanted, drawn by a seed."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--only", default="", metavar="WORD", help="breaks whose text, test or file name contains this")
    parser.add_argument("--sample", type=int, metavar="N", help="that many of them, drawn at random")
    parser.add_argument("--seed", default="", help="any text; the same one draws the same sample")
    words = parser.parse_args()
    found = [entry for entry in breaks if words.only in " ".join(entry)]
    if words.sample is None or words.sample >= len(found):
        return found
    sys.stdout.write(f"{words.sample} of {len(found)} breaks, drawn by the seed {words.seed!r}\n")
    return random.Random(words.seed).sample(found, words.sample)


def run_in_fork(root: Path, *words: str) -> int:
    """Run pytest with these words in a folder, in a fork of this process, and return its exit status.

    What this process has imported need not be imported again.
    """
    child = os.fork()
    if not child:
        _run_and_exit(root, words)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _run_and_exit(root: Path, words: Sequence[str]) -> NoReturn:
    os.chdir(root)
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    slow_ones_too = ("-m", "")
    code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", *slow_ones_too, *words])
    os._exit(code)


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
