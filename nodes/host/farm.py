"""A list of shots under the host: read from the artist's text, made with Cancel and progress, and checked."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths

from ...histream_core import shot_verbs
from ...histream_core.farm.collect import check_videos
from ...histream_core.farm.shots import Shot, read_shots, shots_in
from ...histream_core.farm.status import RUNNING, FarmState, look
from ...histream_core.farm.store import FARM, Farm, read_farm
from ...histream_core.farm.submit import Front, Submission, completed, submit
from ...histream_core.farm.work import FAILED, GONE, Outcome, Stopped
from ...histream_core.parallel.workers import release_gang
from ...histream_core.runs.store.journal import read_manifest
from ...histream_core.runs.store.video import format_of
from ..settings import MAX_SEED, ShotChoice
from . import log as host_log
from .decode import SavedVideo
from .load import FOLDER
from .run_folders import as_shown, check_written, name_of, run_path

PATH = re.compile(r"(/|\.\.?[/\\]|[a-z]:[/\\])|.*(\\(?![()])|\.(jsonl|json|txt)$)", re.IGNORECASE)
"""A line that is a path by how it begins, by a backslash in it (none of a prompt's \\( and \\)), or by its ending."""

MARK = re.compile(r"%[^%/]+%")
"""A mark that the host replaces in names of new files, such as %year%."""

FOLDERS = {"model": FOLDER, "vae": "vae", "text_encoder": "text_encoders"}
"""The host's folder of the files that an option may name."""

LOOKS = 0.05
"""Share of the time that is spent on looking at the farm's files while it works."""

MOST_LINES = 8
"""Lines of single shots that are shown under the node; *summary* has all."""


def shots_of(text: str, choice: ShotChoice) -> list[Shot]:
    """The shots of the artist's text, or of the list in the host's input folder that it names, with all options.

    Raises ValueError and OSError that name the line.
    """
    found = _listed(text)
    for shot in found:
        _check_files(shot)
    return completed(shot_verbs, (_with_choice(shot, number, choice) for number, shot in enumerate(found)))


def make_shots(shots: Sequence[Shot], name: str, workers: int) -> tuple[str, str]:
    """Make the shots of a list in a folder under the host's output folder; its name, and what became of each as text.

    `workers` 0: one for each GPU. The host's own models make room first. Raises ValueError and OSError before anything
    is made, and the host's exception for Cancel.
    """
    if mark := MARK.search(name):
        raise ValueError(
            f"the name {name[:80]!r} has {mark[0][:40]} in it, which nobody replaces here, because the same name has "
            "to find the same shots again: write it out"
        )
    check_written(name)
    order = Submission(shots, run_path(name), workers or None)
    watched = Watched(order.folder, len(shots))
    front = Front(note=watched.note, tell=watched.tell, begin=watched.begin, turn=watched.turn)
    try:
        farm, state = submit(shot_verbs, order, front)
    except Stopped as stop:
        host_log.warn(str(stop).replace("submit the list again", "press Run again"))
        comfy.model_management.throw_exception_if_processing_interrupted()
        raise comfy.model_management.InterruptProcessingException from stop
    finally:
        comfy.model_management.soft_empty_cache()
    failed = state.count()[FAILED]
    again = [f"{failed} of {len(shots)} shots failed: Run tries them again"] if failed else []
    for line in again:
        host_log.say(line)
    ended = sorted(state.shots, key=lambda shot: shot.state != FAILED)
    host_log.tell("\n".join([state.summary(), *again, *(shot.line(0) for shot in ended[:MOST_LINES]), *watched.notes]))
    return name_of(farm.folder), "\n".join([state.table(), *watched.notes])


@dataclass(frozen=True)
class FarmVideos:
    """The videos of a farm that are whole."""

    videos: Sequence[SavedVideo]
    names: Sequence[str]
    """The names of their shots."""
    summary: str


def videos_of(name: str, *, leave_out: bool) -> FarmVideos:
    """The videos of the farm of that name under the host's output folder, after every file was checked.

    Raises ValueError that names the missing ones, unless they are left out and there is one at least; and OSError.
    """
    folder = run_path(as_shown(name))
    if not os.path.lexists(folder / FARM):
        raise FileNotFoundError(
            f"output/{name_of(folder)} holds no shots: write the name that Farm Submit has, or connect it"
        )
    farm = read_farm(folder)
    bar = comfy.utils.ProgressBar(len(farm.shots))

    def turn() -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update(1)

    found = check_videos(farm, turn)
    missing = [f"missing: {shot}, {why}" for shot, why in found.missing.items()]
    counted = f"{len(found.files)} of {len(farm.shots)} shots are in output/{name_of(folder)}"
    if missing and not (leave_out and found.files):
        wanted = "set missing to leave out" if found.files else "wait for one at least"
        raise ValueError(f"{counted}; {'; '.join(missing)}: run Farm Submit again, or {wanted}")
    runs = [farm.run_of(shot) for shot in found.files]
    videos = [
        SavedVideo(path, name_of(run), format_of(read_manifest(run).settings))
        for run, path in zip(runs, found.files.values(), strict=True)
    ]
    lines = [f"{shot}: output/{name_of(path)}" for shot, path in found.files.items()]
    return FarmVideos(videos, [*found.files], "\n".join([*lines, *missing, counted]))


@dataclass
class Watched:
    """The display of a farm in its node: how far it is checked, then a bar over all chunks, and lines of its shots."""

    folder: Path
    num_shots: int
    notes: list[str] = field(default_factory=list)
    _turns: int = 0
    _farm: Farm | None = None
    _bar: comfy.utils.ProgressBar | None = None
    _next: float = 0.0
    """When it is looked at again."""

    def note(self, note: str) -> None:
        self.notes.append(note)
        host_log.say(note)
        host_log.tell("\n".join(self.notes))

    def tell(self, name: str, outcome: Outcome) -> None:
        if outcome.state in (FAILED, GONE):
            host_log.say(f"{name}: {outcome.state}, {outcome.why}")
        self._next = 0.0

    def begin(self, num_shots: int) -> None:
        make_room()
        self._farm = read_farm(self.folder)
        self._bar = comfy.utils.ProgressBar(sum(chunks for chunks, _ in self._farm.work))
        host_log.say(f"{num_shots} shots are made now, in output/{name_of(self.folder)}")
        self._next = 0.0

    def turn(self) -> None:
        """Stop for Cancel; show the state, so seldom that looking at a long list costs little."""
        if comfy.model_management.processing_interrupted():
            raise Stopped("cancelled before the first shot")
        self._turns += 1
        began = time.monotonic()
        if began >= self._next:
            self._show()
            now = time.monotonic()
            self._next = now + max(0.5, (now - began) / LOOKS)

    def _show(self) -> None:
        if not (self._farm and self._bar):
            host_log.tell(f"checking the shots: {100 * self._turns // (2 * self.num_shots)}%")  # each has two turns
            return
        state = look(self._farm)
        self._bar.update_absolute(sum(shot.chunks for shot in state.shots))
        host_log.tell("\n".join(self._lines(state)))

    def _lines(self, state: FarmState) -> Iterator[str]:
        told = [shot for shot in state.shots if shot.state in (RUNNING, FAILED)]
        yield state.summary()
        yield from (shot.line(0) for shot in told[:MOST_LINES])
        yield from self.notes


def make_room() -> None:
    """Free the memory of models that the host and an engine's processes hold: workers load their own."""
    release_gang()
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


def _listed(text: str) -> list[Shot]:
    root = Path(folder_paths.get_input_directory()).resolve()
    line = text.strip().strip("\"'")  # a system that copies a path puts it in quotes
    if "\n" in line or line.startswith("{"):
        return shots_in(text, root)
    path = (root / line).resolve()
    is_there = path != root and os.path.lexists(path)
    if not is_there and not PATH.match(line):
        return shots_in(text, root)
    if not is_there or not path.is_relative_to(root):
        raise ValueError(
            f'there is no list or folder "{line}" inside ComfyUI\'s input folder: put it there and write its name, or '
            "write a prompt in each line"
        )
    return read_shots(path)


def _with_choice(shot: Shot, number: int, choice: ShotChoice) -> Shot:
    """A shot with the artist's choices, and with models by the names that the host has for them."""
    options = dict(shot.options)
    for key, value in shot.options.items():
        folder = FOLDERS.get(key.replace("-", "_"))
        if folder and isinstance(value, str) and (path := folder_paths.get_full_path(folder, value)):
            options[key] = path
    files = {"vae": choice.vae, "text_encoder": choice.text_encoder}
    usual = {
        "model": choice.model,
        **{name: path for name, path in files.items() if path},
        "frames": choice.frames,
        "size": "x".join(map(str, choice.size)),
        "fps": choice.fps,
        "seed": (choice.seed + number) % (MAX_SEED + 1),
    }
    return shot_verbs.with_usual(replace(shot, options=options), usual)


def _check_files(shot: Shot) -> None:
    """Refuse a file of a shot outside the host's folders: whoever wrote the workflow chose it. Raises ValueError."""
    own = (folder_paths.get_input_directory(), folder_paths.get_output_directory(), folder_paths.get_temp_directory())
    models = (path for folder in FOLDERS.values() for path in folder_paths.get_folder_paths(folder))
    roots = [Path(path).resolve() for path in (*own, *models)]
    for key, path in shot_verbs.files_of(shot):
        if not any(path.resolve().is_relative_to(root) for root in roots):
            raise ValueError(
                f"{shot.place}: the file of {key!r} is outside ComfyUI's folders: put it into its input folder, or a "
                "model into its models folder"
            )
