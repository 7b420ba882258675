"""Runs, kept in a folder or not: the one road that the command line and the nodes of a host walk.

`verbs` begins, extends and branches runs over a `Backend`, `make` takes one to its end, `render` makes a video without
a folder. `store` is the folder: every finished chunk is a file in it.
"""

from .session import Finished, Session, Snapshots
from .store.branching import create_branch, retry
from .store.fingerprint import environment, fingerprint_weights, hash_bytes, hash_tensor
from .store.journal import DamagedRunError, Journal
from .store.listing import RunInfo, clean, list_runs
from .store.lock import RunInUseError
from .store.manifest import Manifest, Section, Seed, Settings
from .store.opening import (
    branched,
    check_same,
    create_run,
    environment_notes,
    lengthen_run,
    longer,
    resume,
    start_or_resume,
)

__all__ = [
    "DamagedRunError",
    "Finished",
    "Journal",
    "Manifest",
    "RunInUseError",
    "RunInfo",
    "Section",
    "Seed",
    "Session",
    "Settings",
    "Snapshots",
    "branched",
    "check_same",
    "clean",
    "create_branch",
    "create_run",
    "environment",
    "environment_notes",
    "fingerprint_weights",
    "hash_bytes",
    "hash_tensor",
    "lengthen_run",
    "list_runs",
    "longer",
    "resume",
    "retry",
    "start_or_resume",
]
