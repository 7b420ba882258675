# ruff: noqa: T201
"""Count the files, moves and functions of the engine that one prompt passes through on its way to the first frames.

    python tests/house/walk.py [words of the command line, default: demo --seconds 1]

A file counts when one of its functions is entered on the main thread, but not while a module is being imported. A move
is a function entered in another file than the function entered before it.
"""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, FrameType

ROOT = Path(__file__).resolve().parents[2]
CORE = f"{ROOT / 'histream_core'}/"

NETWORK, FRAMES = "first network call", "first frames"
"""Where a count is taken: at the first call of `forward_chunk`, and when the first `decode` returns [B, C, T, H, W]."""


class Walk:
    """A profile function (see sys.setprofile) that counts files, moves and calls until the first frames are there."""

    def __init__(self) -> None:
        self.functions: dict[str, list[str]] = {}
        """Names of the functions that were entered, by their file, in the order of the first call."""
        self.moves = self.calls = 0
        self.counts: dict[str, tuple[int, int, int]] = {}
        """Files, moves and calls up to NETWORK and up to FRAMES."""
        self._importing = 0
        self._last: str | None = None

    def __call__(self, frame: FrameType, event: str, result: object) -> None:
        code = frame.f_code
        if FRAMES in self.counts or not code.co_filename.startswith(CORE):
            return
        if code.co_name == "<module>":
            self._importing += {"call": 1, "return": -1}.get(event, 0)
        elif self._importing:
            return
        elif event == "call":
            self._enter(code)
        elif event == "return" and code.co_name == "decode" and getattr(result, "ndim", 0) == 5:
            self._count(FRAMES)

    def _enter(self, code: CodeType) -> None:
        file = code.co_filename.removeprefix(CORE)
        self.calls += 1
        self.moves += self._last not in (None, file)
        self._last = file
        names = self.functions.setdefault(file, [])
        if code.co_name not in names:
            names.append(code.co_name)
        if code.co_name == "forward_chunk" and NETWORK not in self.counts:
            self._count(NETWORK)

    def _count(self, what: str) -> None:
        self.counts[what] = len(self.functions), self.moves, self.calls


def walk(run: Callable[[], object]) -> Walk:
    """Run `run` and return the files and functions that it passes through on this thread."""
    counted = Walk()
    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        run()
    finally:
        sys.setprofile(before)
    return counted


def main(words: Sequence[str]) -> None:
    """Run the command line in an empty folder and print what its prompt passed through."""
    sys.path.insert(0, str(ROOT))
    from histream_core.cli import main as histream

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.chdir(folder)
        counted = walk(lambda: histream(words))
        os.chdir(ROOT)
    for file, names in counted.functions.items():
        print(f"{file}: {', '.join(names)}")
    print(f"functions: {sum(map(len, counted.functions.values()))}")
    for what, (files, moves, calls) in counted.counts.items():
        print(f"up to the {what}: {files} files, {moves} moves, {calls} calls")


if __name__ == "__main__":
    main(sys.argv[1:] or ["demo", "--seconds", "1"])
