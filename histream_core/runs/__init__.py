"""Runs, kept in a folder or not: the one implementation under the command line and the nodes of a host.

`verbs` begins, extends and branches runs over a `Backend`, `make` finishes one, `render` makes a video without a
folder. `store` is the folder, in which every finished chunk is a file.
"""

from .session import Finished, Session, Snapshots
from .store.branching import create_branch
from .store.fingerprint import environment, fingerprint_weights, hash_bytes, hash_tensor
from .store.journal import DamagedRunError, Journal
from .store.listing import RunInfo, clean, list_runs
from .store.lock import RunInUseError
from .store.manifest import Manifest, Section, Seed, Settings
from .store.new import create_run
from .store.opening import (
    branched,
    check_same,
    environment_notes,
    lengthen_run,
    longer,
    longer_by,
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
    "longer_by",
    "resume",
    "start_or_resume",
]
