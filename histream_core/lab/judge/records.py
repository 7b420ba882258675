"""Records of an evaluation in a folder, one line for each scored clip, so that a killed evaluation can go on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...files.disk import write_whole

SETTINGS, LINES, STRIPS = "settings.json", "clips.jsonl", "strips"


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


class Records:
    """The folder of an evaluation."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        """Open a folder, or create it. Settings may be added to those that it was created with; none may differ.

        Raises ValueError that names what differs, OSError where the folder cannot be made.
        """
        self.folder = folder
        folder.mkdir(exist_ok=True)
        path = folder / SETTINGS
        now = json.loads(json.dumps(settings))
        then = json.loads(path.read_text("utf-8")) if path.exists() else {}
        for key in sorted(then.keys() & now.keys()):
            if then[key] != now[key]:
                raise ValueError(
                    f"{folder} was made with {key} {then[key]}, asked for is {now[key]}: give the same to go on, or "
                    "another --out"
                )
        write_whole(path, json.dumps(then | now, indent=1).encode())
        self._lines = folder / LINES
        self._trim()

    def lines(self) -> list[dict]:
        """All lines as plain values, in the order in which they were written."""
        text = self._lines.read_text("utf-8") if self._lines.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def append(self, values: Mapping[str, object]) -> None:
        """Append plain values as a line."""
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def read(self) -> dict[str, dict[int, Record]]:
        """All records, by arm and number."""
        found: dict[str, dict[int, Record]] = {}
        for record in (Record(**line) for line in self.lines()):
            found.setdefault(record.arm, {})[record.number] = record
        return found

    def add(self, record: Record, strip: Sequence[np.ndarray] | None = None) -> None:
        """Append a record, and keep `strip`, frames [H, W, 3], uint8, for the contact sheet."""
        if strip is not None:
            self.keep_frames(record.arm, record.number, strip)
        self.append(asdict(record))

    def keep_frames(self, arm: str, number: int, frames: Sequence[np.ndarray] | np.ndarray, part: int = 0) -> None:
        """Write frames [H, W, 3], uint8, of a part of a clip."""
        path = self._frames(arm, number, part)
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.stack(list(frames)), allow_pickle=False)

    def frames(self, arm: str, number: int, part: int = 0) -> np.ndarray | None:
        """Frames [F, H, W, 3], uint8, of a part of a clip; None where they were not kept."""
        path = self._frames(arm, number, part)
        return np.load(path, allow_pickle=False) if path.exists() else None

    def _frames(self, arm: str, number: int, part: int) -> Path:
        return self.folder / STRIPS / f"{arm}-{number:05d}-{part:05d}.npy"

    def _trim(self) -> None:
        """Remove an incomplete last line, which a kill may leave."""
        if not self._lines.exists():
            return
        text = self._lines.read_bytes()
        if not text.endswith(b"\n"):
            write_whole(self._lines, text[: text.rfind(b"\n") + 1])
