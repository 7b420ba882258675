"""Records of an evaluation in a folder, one line for each scored clip, so that a killed evaluation can go on."""

from __future__ import annotations

import io
import json
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ...files.disk import append_line, write_whole
from ...files.reading import MEGABYTE, parse_json, read_bytes, read_text
from ...plan.presets import Preset

SETTINGS, LINES, STRIPS = "settings.json", "clips.jsonl", "strips"
REPORTS = (
    "drift.md",
    "drift.json",
    "drift.svg",
    "drift.png",
    "tables.md",
    "tables.json",
    "clips.csv",
    "plot.svg",
    "restyle.md",
    "restyle.json",
)
WRITTEN = (LINES, STRIPS, *REPORTS, "sheet.png")
"""Names in the folder of an evaluation, besides its settings; a folder without settings must not have them."""
SIGNS = {"prompts", "seed", "size", "preset", "vae"}
"""Settings that every evaluation has: a file without them is somebody else's."""

ADDED: dict[str, object] = {
    "one_grid": False,
    "restyle": None,
    "listed_timesteps": (),
    "second_weights": False,
    "ntk_rule": "untuned",
    "ntk_of_base": False,
    "resize": "bilinear",
}
"""Fields of a preset that came after the first evaluations, with what was so before: settings are without that."""

MAX_LINES, MAX_STRIP = 256 * MEGABYTE, 256 * MEGABYTE

HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..(\{'descr': '\|u1', 'fortran_order': False, "
    rb"'shape': \(([0-9]{1,9}(?:, [0-9]{1,9}){2}, 3)\), \})",
    re.DOTALL,
)
"""The beginning of a file of numpy with frames."""

Line = TypeVar("Line")


@dataclass(frozen=True)
class Record:
    """Scores and times of one clip of one arm."""

    arm: str
    number: int
    """Number of the prompt, from 0."""
    seen: dict[str, str | None]
    """The word that the clip shows, for each kind of word in a prompt."""
    area: float
    """Size of the object, relative to the painter's."""
    speed: float
    """Speed of the object, relative to the painter's."""
    scores: dict[str, float]
    first: dict[str, float]
    """Scores of prompt adherence for the first chunk alone."""
    denoise_s: float
    """CPU seconds of the network, for the whole clip."""
    decode_s: float
    """CPU seconds of the VAE, for the whole clip."""


def preset_settings(preset: Preset) -> dict[str, object]:
    """The fields of a preset, as settings have them."""
    return {name: value for name, value in asdict(preset).items() if name not in ADDED or value != ADDED[name]}


class Records:
    """The folder of an evaluation."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        """Open a folder, or create it. Settings may be added to those that it was created with; none may differ.

        Raises ValueError that names what differs, OSError where the folder cannot be made, is not that of an
        evaluation, or is damaged.
        """
        self.folder = folder
        folder.mkdir(exist_ok=True)
        path = folder / SETTINGS
        now = parse_json(json.dumps(settings))
        then = _settings_in(folder)
        for key in sorted(then.keys() & now.keys()):
            if then[key] != now[key]:
                raise ValueError(
                    f"{folder} was made with {key} {str(then[key])[:99]}, asked for is {now[key]}: give the same to go "
                    "on, or another --out"
                )
        if then and "judge" in now.keys() - then.keys():
            raise ValueError(f"{folder} was scored by an earlier judge, by other rules: give another --out")
        write_whole(path, json.dumps(then | now, indent=1).encode())
        self._lines = folder / LINES
        self._trim()

    def lines(self, kind: type[Line]) -> list[Line]:
        """All lines as values of a dataclass, in the order in which they were written. Raises ValueError for others."""
        text = read_text(self._lines, MAX_LINES) if os.path.lexists(self._lines) else ""
        return [self._line(kind, number, line) for number, line in enumerate(text.splitlines(), 1)]

    def _line(self, kind: type[Line], number: int, line: str) -> Line:
        try:
            values = parse_json(line)
            if not isinstance(values, dict):
                raise ValueError("it is no object")
            check_values(kind, values)
        except ValueError as error:
            raise ValueError(f"line {number} of {self._lines} is damaged ({error}): give another --out") from error
        return kind(**values)

    def append(self, values: Mapping[str, object]) -> None:
        """Append plain values as a line, which is on the disk on return."""
        append_line(self._lines, json.dumps(values))

    def read(self) -> dict[str, dict[int, Record]]:
        """All records, by arm and number."""
        found: dict[str, dict[int, Record]] = {}
        for record in self.lines(Record):
            found.setdefault(record.arm, {})[record.number] = record
        return found

    def add(self, record: Record, strip: Sequence[np.ndarray] | None = None) -> None:
        """Append a record, and keep `strip`, frames [H, W, 3], uint8, for the contact sheet."""
        if strip is not None:
            self.keep_frames(record.arm, record.number, strip)
        self.append(asdict(record))

    def keep_frames(self, arm: str, number: int, frames: Sequence[np.ndarray] | np.ndarray, part: int = 0) -> None:
        """Write frames [H, W, 3], uint8, of a part of a clip."""
        path, data = self._frames(arm, number, part), io.BytesIO()
        path.parent.mkdir(exist_ok=True)
        np.lib.format.write_array(data, np.stack(list(frames)), version=(1, 0), allow_pickle=False)
        write_whole(path, data.getvalue())

    def frames(self, arm: str, number: int, part: int = 0) -> np.ndarray | None:
        """Frames [F, H, W, 3], uint8, of a part of a clip; None where they were not kept. Raises ValueError."""
        path = self._frames(arm, number, part)
        if not os.path.lexists(path):
            return None
        try:
            return _frames_in(read_bytes(path, MAX_STRIP))
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}): give another --out") from error

    def _frames(self, arm: str, number: int, part: int) -> Path:
        folder = self.folder / STRIPS
        if folder.is_symlink():
            raise OSError(f"{folder} is a link: nothing is written through it, give another --out")
        return folder / f"{arm}-{number:05d}-{part:05d}.npy"

    def _trim(self) -> None:
        """Remove an incomplete last line, which a kill may leave."""
        if not os.path.lexists(self._lines):
            return
        text = read_bytes(self._lines, MAX_LINES)
        if not text.endswith(b"\n"):
            write_whole(self._lines, text[: text.rfind(b"\n") + 1])


def _settings_in(folder: Path) -> dict[str, Any]:
    """The settings of an evaluation's folder; empty for a new one. Raises OSError for a folder of something else."""
    path = folder / SETTINGS
    if not os.path.lexists(path):
        for name in WRITTEN:
            if os.path.lexists(folder / name):
                raise FileExistsError(f"{folder / name} is there, and not of an evaluation: give another --out")
        return {}
    try:
        found = parse_json(read_text(path))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found.keys() >= SIGNS:
        raise FileExistsError(f"{path} holds no settings of an evaluation: give another --out")
    return found


def check_values(kind: type, values: Mapping[str, object]) -> None:
    """Refuse values that are not those of the fields of a dataclass. Raises ValueError."""
    hints = typing.get_type_hints(kind)
    if values.keys() != {field.name for field in fields(kind)}:
        raise ValueError("its names are others")
    for name, value in values.items():
        if not _fits(value, hints[name]):
            raise ValueError(f"{name} is {str(value)[:40]}")


def _fits(value: object, hint: Any) -> bool:
    """Whether a value of a JSON text is one of a type: a name, a number that is finite, a list or dict of these."""
    kind, inside = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (types.UnionType, typing.Union):
        return any(_fits(value, one) for one in inside)
    if kind is float:
        return type(value) in (int, float) and abs(typing.cast(float, value)) < 1e300
    if type(value) is not kind:
        return False
    if isinstance(value, dict):
        return all(_fits(key, inside[0]) and _fits(one, inside[1]) for key, one in value.items())
    return all(_fits(one, inside[0]) for one in value) if isinstance(value, list) else True


def _frames_in(data: bytes) -> np.ndarray:
    """The frames [F, H, W, 3], uint8, in the bytes of a file of numpy. Raises ValueError.

    numpy's own reader takes memory by the header, and fails in many ways where it is damaged.
    """
    found = HEADER.match(data)
    if not found:
        raise ValueError("it holds no frames")
    shape = tuple(map(int, found[2].split(b",")))
    start = found.start(1) + int.from_bytes(data[8:10], "little")
    return np.frombuffer(data[start:], np.uint8).reshape(shape)
