"""The folder of a farm: its list, and for each shot a run, a lease and a log.

    farm.json               the list: names and options of the shots
    shots/shot-0001/        the run of a shot, as every run that is kept; its video is in it
    parts/shot-0001/2/      the run of a part of a shot, while its scenes are made apart
    leases/                 which worker holds which shot or part (`lease`)
    logs/shot-0001.jsonl    what happened to a shot: a line for each start, each chunk that was made, and each end
    logs/shot-0001.2.part   what happened to a part of it
    cancel                  there while the farm is to stop
    lock                    held by the process that hands out the shots

The list is written whole or not at all, a log only grows. A run is finished if its own files say so.

A task is what a worker is handed: a shot, by its name, or a part of it, by name and number ("shot-0001/2").
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files.disk import append_line, make_folder, write_whole
from ..files.reading import MEGABYTE, parse_json, read_text
from ..files.values import parse, plain
from ..plan.parts import Parts
from ..runs import DamagedRunError, Journal, RunInUseError, clean, resume
from ..runs.store.fingerprint import hash_file
from ..runs.store.folder import MANIFEST
from ..runs.store.joining import join_parts
from ..runs.store.journal import chunk_indices
from ..runs.store.lock import Lock, take
from ..runs.store.video import format_of, join_video, video_path
from ..runs.verbs import check_whole
from .lease import LEASE_SECONDS
from .shots import MAX_LIST, Shot, check_shot_name

FARM, LOCK, CANCEL = "farm.json", "lock", "cancel"
SHOTS, PARTS, LEASES, LOGS = "shots", "parts", "leases", "logs"

FORMAT = "histream-farm-1"

MAX_LOG = 16 * MEGABYTE

SLASH = "/"
"""Stands between name and number of a part; no name has it."""

BEGUN, CHUNK, ENDED, DIED = "begun", "chunk", "ended", "died"
"""Events in the log of a shot."""


@dataclass(frozen=True)
class Farm:
    """A farm's folder and its list."""

    folder: Path
    shots: tuple[Shot, ...]
    work: tuple[tuple[int, int], ...]
    """For each shot the number of its chunks and that of its pixels, from which the time left is predicted."""
    lease_seconds: float = LEASE_SECONDS
    parts: Mapping[str, Parts] = field(default_factory=dict)
    """The parts of the shots by their names, where they are known."""

    def shot(self, name: str) -> Shot:
        return next(shot for shot in self.shots if shot.name == name)

    def run_of(self, task: str) -> Path:
        """The folder of the run of a shot or a part."""
        return self.folder / (PARTS if is_part(task) else SHOTS) / task

    def chunks_of(self, task: str) -> range | None:
        """The chunks of a part; None for a shot, which has all."""
        name, _, number = task.partition(SLASH)
        return self.parts[name].chunks[int(number) - 1] if number else None

    def parts_of(self, name: str) -> list[str]:
        """The parts of a shot as tasks; none where it cannot be made in several."""
        count = len(self.parts[name].chunks) if name in self.parts else 1
        return [f"{name}{SLASH}{number}" for number in range(1, count + 1)] if count > 1 else []

    def is_split(self, name: str) -> bool:
        """Whether a shot is made in parts that are still to be put together."""
        parts = self.parts_of(name)
        return bool(parts) and os.path.lexists(self.folder / PARTS / name) and not self._is_whole(name)

    def split(self, name: str) -> None:
        """Let the parts of a shot be made apart."""
        for place in (PARTS, LEASES):
            make_folder(self.folder / place / name)

    def parts_left(self, name: str) -> list[str]:
        """The parts of a shot that lack chunks."""
        return [part for part in self.parts_of(name) if self._num_chunks(part) < len(self.chunks_of(part) or ())]

    def join(self, name: str) -> None:
        """Put the parts of a shot together, if it has some; they are removed then. Raises as `join_parts` does."""
        parts = self.parts_of(name)
        if self.is_split(name):
            if self.has_run(name):  # begun by a worker that was late, and had not seen that the shot was split
                clean(self.run_of(name), video=True)
            join_parts([self.run_of(part) for part in parts], self.run_of(name)).close()
        if not os.path.lexists(self.folder / PARTS / name):
            return
        for part in parts:
            if self.has_run(part):
                clean(self.run_of(part), video=True)
        with suppress(OSError):  # somebody keeps something there
            (self.folder / PARTS / name).rmdir()

    def _is_whole(self, name: str) -> bool:
        """Whether the run of a shot has all its chunks."""
        return self._num_chunks(name) == self.parts[name].chunks[-1].stop

    def _num_chunks(self, task: str) -> int:
        return len(chunk_indices(self.run_of(task))) if self.has_run(task) else 0

    @property
    def leases(self) -> Path:
        return self.folder / LEASES

    def is_cancelled(self) -> bool:
        return os.path.lexists(self.folder / CANCEL)

    def cancel(self) -> None:
        """Let all workers stop at their next network call."""
        write_whole(self.folder / CANCEL, b"")

    def note(self, task: str, event: str, **about: Any) -> None:
        """Write an event into the log of a shot or a part."""
        line = {"event": event, "time": round(time.time(), 3), **about}
        append_line(self._log(task), json.dumps(line))

    def events(self, task: str) -> list[dict[str, Any]]:
        """The log of a shot or a part; a line that a kill has cut off is left out."""
        path = self._log(task)
        if not os.path.lexists(path):
            return []
        return [event for line in read_text(path, MAX_LOG).splitlines() if (event := _event(line))]

    def _log(self, task: str) -> Path:
        name, _, number = task.partition(SLASH)
        return self.folder / LOGS / (f"{name}.{number}.part" if number else f"{name}.jsonl")

    def has_run(self, task: str) -> bool:
        """Whether a shot or a part has a run."""
        return os.path.lexists(self.run_of(task) / MANIFEST)

    def is_begun(self, name: str) -> bool:
        """Whether a shot has a run, or a part of it has one."""
        return any(map(self.has_run, (name, *self.parts_of(name))))

    def is_finished(self, name: str) -> bool:
        """Whether a shot's run is finished and its video as it was then; every file is checked.

        Raises ValueError for a damaged run, and RunInUseError.
        """
        if not self.has_run(name):
            return False
        with resume(self.run_of(name)) as journal:
            try:
                check_whole(journal)
            except DamagedRunError:
                raise
            except ValueError:
                return False
            ends = [event for event in self.events(name) if event.get("video")]
            return hash_video(journal) == (ends[-1]["video"] if ends else "")


def is_part(task: str) -> bool:
    """Whether a task is a part of a shot."""
    return SLASH in task


def shot_of(task: str) -> str:
    """The name of the shot that a task is, or is a part of."""
    return task.partition(SLASH)[0]


def hash_video(journal: Journal) -> str:
    """The SHA-256 of a finished run's video; for a folder of pictures, which are checked here, that of their run."""
    video = video_path(journal.folder, journal.manifest)
    if format_of(journal.manifest.settings).is_sequence:
        join_video(journal)
        return journal.recipe(journal.finished - 1)
    return hash_file(video) if video.is_file() else ""


def lock_farm(folder: Path) -> Lock:
    """Lock a farm for this process, which hands out its shots. Raises RunInUseError in a sentence."""
    try:
        return take(folder / LOCK)
    except RunInUseError as error:
        held = str(error).removeprefix(f"the run in {folder} ")
        raise RunInUseError(
            f"the farm in {folder} {held.split(':')[0]}: wait for it, or histream farm cancel {folder}"
        ) from error


def check_place(folder: Path) -> None:
    """Refuse a folder that holds something else than a farm. Raises OSError."""
    if os.path.lexists(folder / FARM) or not os.path.lexists(folder):
        return
    if (
        folder.is_symlink()
        or not folder.is_dir()
        or {path.name for path in folder.iterdir()} - {LOCK, SHOTS, PARTS, LEASES, LOGS}
    ):
        raise FileExistsError(f"{folder} is not empty and holds no farm: choose another folder")


def open_place(folder: Path) -> None:
    """Make the folders of a farm, unless they are there. Raises OSError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for path in (folder, *(folder / name for name in (SHOTS, PARTS, LEASES, LOGS))):
        make_folder(path)


def write_farm(farm: Farm) -> None:
    """Write the list of a farm, and let it begin: what cancelled it before is over."""
    shots = [
        {
            "name": shot.name,
            "place": shot.place,
            "options": dict(shot.options),
            "chunks": chunks,
            "pixels": pixels,
            **({"parts": plain(farm.parts[shot.name])} if shot.name in farm.parts else {}),
        }
        for shot, (chunks, pixels) in zip(farm.shots, farm.work, strict=True)
    ]
    values = {"format": FORMAT, "lease_seconds": farm.lease_seconds, "shots": shots}
    write_whole(farm.folder / FARM, json.dumps(values, indent=1).encode())
    (farm.folder / CANCEL).unlink(missing_ok=True)


def read_farm(folder: Path) -> Farm:
    """The farm in a folder. Raises FileNotFoundError, and ValueError for a list that no farm wrote."""
    path = folder / FARM
    if not os.path.lexists(path):
        raise FileNotFoundError(f"{folder} holds no farm: give a folder that histream farm submit was given as --out")
    try:
        values = parse_json(read_text(path, MAX_LIST))
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {str(values['format'])[:20]!r}, and this version reads {FORMAT!r}")
        shots = tuple(_shot(value) for value in values["shots"])
        work = tuple((_count(value["chunks"]), _count(value["pixels"])) for value in values["shots"])
        parts = {str(value["name"]): _parts(value) for value in values["shots"] if "parts" in value}
        return Farm(folder, shots, work, float(values["lease_seconds"]), parts)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{path} is not as a farm writes it ({error}): submit the list again into a new folder"
        ) from error


def unchanged(old: Sequence[Shot], new: Sequence[Shot], begun: Sequence[str]) -> None:
    """Refuse a list in which a shot that has begun has other options than before. Raises ValueError that names it."""
    before = {shot.name: shot.options for shot in old if shot.name in begun}
    for shot in new:
        then = before.get(shot.name, shot.options)
        other = [name for name in {**then, **shot.options} if then.get(name) != shot.options.get(name)]
        if other:
            raise ValueError(
                f'{shot.place}: the shot "{shot.name}" was begun with another {" and another ".join(other)}: '
                "give it another name, submit into another folder, or put it back; new lines go below the others"
            )


def _shot(value: dict[str, Any]) -> Shot:
    options = {str(name): option for name, option in value["options"].items()}
    return Shot(check_shot_name(value["name"]), options, str(value["place"]))


def _parts(value: dict[str, Any]) -> Parts:
    """The parts of a shot. Raises ValueError unless each begins where the one before it ends."""
    found = parse(Parts, value["parts"], "parts")
    ends = [0, *(chunks.stop for chunks in found.chunks)]
    if [chunks.start for chunks in found.chunks] != ends[:-1] or ends[-1] != _count(value["chunks"]):
        raise ValueError(f"the parts of {str(value['name'])[:40]!r} are not all of its chunks")
    return found


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 < value < 2**63:
        raise ValueError(f"{str(value)[:20]} is no count")
    return value


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = parse_json(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
