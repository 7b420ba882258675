"""Runs that survive: every finished chunk is a file, and a run can be resumed, extended, retried and branched.

A journal is the folder of a run, a session goes on with it from wherever it stands, verbs are what a user does.
"""

from .session import Finished, Session, Snapshots
from .store.fingerprint import environment, fingerprint_weights, hash_bytes, hash_tensor
from .store.journal import DamagedRunError, Journal
from .store.lock import RunInUseError
from .store.manifest import Manifest, Section, Seed, Settings
from .verbs import (
    RunInfo,
    branch,
    branched,
    check_same,
    clean,
    extend,
    list_runs,
    longer,
    notes,
    resume,
    retry,
    start,
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
    "branch",
    "branched",
    "check_same",
    "clean",
    "environment",
    "extend",
    "fingerprint_weights",
    "hash_bytes",
    "hash_tensor",
    "list_runs",
    "longer",
    "notes",
    "resume",
    "retry",
    "start",
    "start_or_resume",
]
