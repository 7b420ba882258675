"""Removal of a run, after a confirmation that no workflow file can carry.

The code of a removal is made from a secret of this server, which ends with it, and from the files of the run: so it is
of no use in another session, for another run, for another choice, or for the same run when it has changed. It is shown
under the node, and never handed on to other nodes.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...histream_core.runs import clean, list_runs
from ...histream_core.runs.store.folder import LOCK
from .graph import is_link
from .run_folders import exact_run, name_of

_SECRET = secrets.token_bytes(32)
CODE_DIGITS = 12


@dataclass(frozen=True)
class Cleaned:
    """The files that were removed, or would be."""

    text: str
    code: str = ""
    """The word to write to remove it; empty when it is removed."""

    @property
    def shown(self) -> str:
        """The text under the node, for the artist alone."""
        return f"{self.text}\nTo remove it, write {self.code} into confirm and run again." if self.code else self.text


def clean_run(name: str, *, video: bool, confirm: str) -> Cleaned:
    """Remove the files of a run where `confirm` is the code of that removal, else say what would be removed.

    Raises ValueError or OSError for a name that is no run's, and for a run that is in use.
    """
    folder = exact_run(name)
    code = code_of(folder, video=video)
    if hmac.compare_digest(confirm.strip().lower().encode("utf-8", "replace"), code.encode()):
        freed = clean(folder, video=video)
        return Cleaned(f"{name_of(folder)}: {freed / 1e6:.1f} MB are free again")
    lines = [f"Nothing is removed yet: {list_runs(folder)[0].line(name_of(folder))}"]
    if confirm.strip():
        lines.insert(0, "The code in confirm is not the one for this: run, video and session must be the same.")
    lines.append(
        "What it keeps to go on would be removed, and its video and cut list too, for good."
        if video
        else "What it keeps to go on would be removed; its video stays."
    )
    return Cleaned("\n".join(lines), code)


def code_of(folder: Path, *, video: bool) -> str:
    """The code that confirms the removal of a run as it is now."""
    removal = b"\0".join([os.fsencode(folder), b"video" if video else b"state", *_files(folder)])
    return hmac.new(_SECRET, removal, hashlib.sha256).hexdigest()[:CODE_DIGITS]


def _files(folder: Path) -> Iterator[bytes]:
    """Yield name, size and time of each file of a run, but not of its lock, which a look at the run touches."""
    for path in sorted(folder.rglob("*")):
        if path.name != LOCK:
            about = path.lstat()
            yield os.fsencode(f"{path.relative_to(folder)} {about.st_size} {about.st_mtime_ns}")


def check_written(hidden, name: str) -> None:
    """Refuse an input that another node gives: a person must write it. Raises ValueError."""
    graph = getattr(hidden, "prompt", None)
    if graph is None:
        return
    node = graph.get(hidden.unique_id)
    if node is None:
        raise ValueError(
            f"{name} is written by hand and takes no connection, so not in a loop either: put the node outside of it"
        )
    if is_link(node.get("inputs", {}).get(name)):
        raise ValueError(f"{name} is written by hand and takes no connection: remove the link, and write the code")
