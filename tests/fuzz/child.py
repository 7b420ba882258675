"""A child that works on one hostile input: forked from a warm process, bounded, watched; and the verdict on it.

Its place is a folder of three: `scratch`, where it works, `dear` with files that nobody may touch, and `notes`, where
it and its watch write down what happened.
"""

from __future__ import annotations

import hashlib
import os
import re
import resource
import select
import signal
import stat
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

CPU_SECONDS, BLOCKED_SECONDS = 20, 30
"""More than any case takes: the checksum of a segment of 3 GB took more than 5 on a slow processor."""
MEMORY = 2 * 2**30
ADDRESSES = 4 * 2**30
"""Address space beyond the parent's: more than MEMORY, so that it is seen to be used and not refused."""
LARGEST_FILE = 2**29
HASHED = 2**25
"""Largest size in bytes of a file whose content is compared; of larger ones, which are sparse, size and blocks are."""

ENDS = {0: "accepted", 2: "refused", 130: "stopped"}
RAISED = 70
_COMMAND = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that command a terminal; a progress bar needs the carriage return."""

Work = Callable[[], int]
"""The work of a child; gives an exit status."""

Tree = dict[str, tuple]
"""Everything below a folder by its relative path: kind, permissions, and content or the target of a link."""


@dataclass(frozen=True)
class Outcome:
    """How a child ended."""

    status: int
    """Exit status, or the negative number of the signal."""
    said: str
    printed: str
    reports: tuple[str, ...]
    """The findings of the watch: reads of dear files, writes outside, programs, connections."""
    cpu: float
    peak: int
    """Bytes of memory beyond the parent's."""
    blocked: bool

    @property
    def end(self) -> str:
        return ENDS.get(self.status, "failed")


class Place:
    """The folder of a case."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.scratch, self.dear, self.notes = (self.root / name for name in ("scratch", "dear", "notes"))
        for folder in (self.scratch, self.dear / "album", self.notes):
            folder.mkdir(parents=True)
        for name in (".bashrc", "letter.txt", "photo.png", "video.mp4", "manifest.json", "album/page.txt"):
            (self.dear / name).write_text(f"dear {name}\n")

    def guarded(self) -> Tree:
        """Everything in the place but the scratch folder and the notes."""
        return {name: about for name, about in tree(self.root).items() if not name.startswith(("scratch", "notes"))}


def tree(folder: Path) -> Tree:
    """Everything below a folder, no link followed."""
    found = {}
    for here, folders, files in os.walk(folder):
        for path in (Path(here, name) for name in (*folders, *files)):
            found[str(path.relative_to(folder))] = _about(path)
    return found


def _about(path: Path) -> tuple:
    there = path.lstat()
    kind, mode = stat.S_IFMT(there.st_mode), stat.S_IMODE(there.st_mode)
    if kind == stat.S_IFLNK:
        return kind, str(path.readlink())
    if kind != stat.S_IFREG:
        return kind, mode
    if there.st_size > HASHED:
        return kind, mode, there.st_size, there.st_blocks
    return kind, mode, hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def run(work: Work, place: Place, *, blocked_seconds: float = BLOCKED_SECONDS) -> Outcome:
    """Let a child work in the scratch folder of a place, and wait for its end."""
    memory = _memory()
    pid = os.fork()
    if not pid:
        _work_and_exit(work, place, memory)
    blocked = _is_blocked(pid, blocked_seconds)
    if blocked:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    said, printed, reports = (
        (place.notes / name).read_text(encoding="utf-8", errors="surrogateescape") for name in ("err", "out", "reports")
    )
    return Outcome(
        os.waitstatus_to_exitcode(status),
        said,
        printed,
        tuple(dict.fromkeys(reports.splitlines())),
        usage.ru_utime + usage.ru_stime,
        max(0, usage.ru_maxrss * 1024 - memory[1]),
        blocked,
    )


def _memory() -> tuple[int, int]:
    """Bytes of address space and of memory that this process has."""
    pages = Path("/proc/self/statm").read_text().split()
    return int(pages[0]) * resource.getpagesize(), int(pages[1]) * resource.getpagesize()


def _is_blocked(pid: int, seconds: float) -> bool:
    """Wait for the end of a child; True where it has used no CPU for so many seconds."""
    ended = os.pidfd_open(pid)
    try:
        used, since = -1.0, time.monotonic()
        while not select.select([ended], [], [], min(1.0, seconds / 2))[0]:
            now = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
            if now != used:
                used, since = now, time.monotonic()
            elif time.monotonic() - since > seconds:
                return True
        return False
    finally:
        os.close(ended)


def _work_and_exit(work: Work, place: Place, memory: tuple[int, int]) -> NoReturn:
    status = RAISED
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(place.notes / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", encoding="utf-8", errors="surrogateescape") for n in (1, 2))
        reports = os.open(place.notes / "reports", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.chdir(place.scratch)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(place.scratch / ".torch")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 2))
        resource.setrlimit(resource.RLIMIT_AS, (memory[0] + ADDRESSES, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, resource.RLIM_INFINITY))
        sys.addaudithook(Watch(place, reports))
        status = work()
    except SystemExit as end:  # of --help
        status = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else RAISED)


_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NAMES = {
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.chmod": ((0, 2),),
    "os.truncate": ((0, None),),
}
"""Audited calls that change names, with the positions of each path and of the folder it is relative to."""
_PROGRAMS = {
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn", "ctypes.dlopen",
    "socket.connect", "socket.bind", "socket.getaddrinfo", "pickle.find_class", "webbrowser.open", "shutil.rmtree",
}  # fmt: skip


class Watch:
    """An audit hook (see sys.addaudithook) that writes down what no input may bring about."""

    def __init__(self, place: Place, reports: int) -> None:
        self._scratch, self._dear, self._reports = f"{place.scratch}/", f"{place.dear}/", reports

    def __call__(self, event: str, args: tuple) -> None:
        if event == "open":
            self._opened(args[0], args[2] or 0)
        elif event in _NAMES:
            for path, folder in _NAMES[event]:
                self._changed(event, args[path], args[folder] if folder else -1)
        elif event in _PROGRAMS:
            self._tell(f"{event} {args!r:.200}")
        elif event == "exec" and getattr(args[0], "co_filename", "").startswith(self._scratch):
            self._tell(f"executed {args[0].co_filename}")

    def _opened(self, path: object, flags: int) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        unnamed = flags & os.O_TMPFILE == os.O_TMPFILE
        if flags & _WRITES and flags & os.O_EXCL and not unnamed:
            self._changed("open", path, -1)
            return
        real = os.path.realpath(os.fsdecode(path))
        if flags & _WRITES and not f"{real}/".startswith(self._scratch) and real != os.devnull:
            self._tell(f"written outside: {real}")
        elif real.startswith(self._dear):
            self._tell(f"read outside: {real}")

    def _changed(self, event: str, path: object, folder: int) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        name = os.fsdecode(path)
        if folder != -1:
            name = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)  # noqa: PTH118, PTH115
        inside = os.path.realpath(os.path.dirname(os.path.abspath(name)))  # noqa: PTH100, PTH120
        if not f"{inside}/".startswith(self._scratch):
            self._tell(f"written outside: {event} {inside}/{os.path.basename(name)}")  # noqa: PTH119

    def _tell(self, text: str) -> None:
        os.write(self._reports, f"{text!a}\n".encode())


def faults(outcome: Outcome, before: Tree, after: Tree) -> Iterator[str]:
    """The faults in how a child ended, a line for each: a kind and a detail. `before` and `after` are guarded."""
    last = outcome.said.strip().splitlines()[-1:] or [""]
    if outcome.blocked or outcome.cpu > CPU_SECONDS or outcome.status == -signal.SIGXCPU:
        yield f"time: {'blocked' if outcome.blocked else f'{outcome.cpu:.1f} s of CPU'}"
    elif "Traceback (most recent" in outcome.said:
        yield f"traceback: {last[0]}"
    elif outcome.status not in ENDS:
        yield f"status: {outcome.status}"
    elif outcome.status == 2 and not re.match(r"histream: \S", last[0]):
        yield f"words: {outcome.said[-300:]!r}"
    if outcome.peak > MEMORY or "out of memory" in outcome.said or "File too large" in outcome.said:
        yield f"memory: {outcome.peak / 2**30:.1f} GB, {last[0]}"
    if found := _COMMAND.search(outcome.said + outcome.printed):
        yield f"escape: {found[0]!a} is printed"
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield f"outside: {name} was {before.get(name)} and is {after.get(name)}"
    for report in outcome.reports:
        yield f"outside: {report}"
