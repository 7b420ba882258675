"""Lists of shots: a file or a text with a shot in each line, or a folder with a file for each shot."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files.disk import check_portable
from ..files.reading import MEGABYTE, parse_json, read_text

MAX_LIST = 64 * MEGABYTE
"""Largest size in bytes of a list of shots."""

MAX_SHOTS = 10_000
"""Most shots in a list."""

NAME = "name"
"""The key of a shot's name; all others are names of options."""

EXAMPLE = '{"prompt": "a cat", "seed": 1}'

TIME = re.compile(r"\s*\[\d+:")
"""The beginning of a line of a timeline."""

TIMELINE = r'{"timeline": "[0:00] a cat\n[0:04, scene] a dog"}'


@dataclass(frozen=True)
class Shot:
    """One video of a list."""

    name: str
    options: Mapping[str, Any]
    """Options by their names in the command line, without the dashes."""
    place: str = field(default="", compare=False)
    """The line or file that it stands in, for messages."""
    folder: Path = field(default_factory=Path, compare=False)
    """The folder that its files are relative to."""


def read_shots(path: Path) -> list[Shot]:
    """The shots of a list or of a folder, in their order, each with a name of its own.

    Lines of a .txt may be prompts. Raises ValueError, OSError.
    """
    if path.is_dir():
        return _checked(_in_folder(path), str(path), "no file ends with .json or .txt")
    found = _in_lines(read_text(path, MAX_LIST), path.parent, prompts=path.suffix.lower() == ".txt")
    return _checked(found, str(path), "no line holds anything")


def shots_in(text: str, folder: Path) -> list[Shot]:
    """The shots of a text, whose lines are those of a list, or prompts; files are relative to `folder`.

    Raises ValueError that names the line.
    """
    return _checked(_in_lines(text, folder, prompts=True), "the text", "no line holds anything")


def _checked(found: Iterator[Shot], where: str, empty: str) -> list[Shot]:
    """Shots with names of their own. Raises ValueError, also for none and for too many."""
    shots = list(found)
    if not shots:
        raise ValueError(f"there is no shot in {where}, {empty}: write a line like {EXAMPLE} for each")
    if len(shots) > MAX_SHOTS:
        raise ValueError(f"{where} has {len(shots)} shots: split it into lists of {MAX_SHOTS} or fewer")
    places: dict[str, str] = {}
    for shot in shots:
        other = places.setdefault(shot.name.lower(), shot.place)  # some file systems know no capitals
        if other != shot.place:
            raise ValueError(f'{shot.place}: {other} has the name "{shot.name}" too: give each a name of its own')
    return shots


def check_shot_name(name: object) -> str:
    """Return the name of a shot, which is also that of its folder and its video. Raises ValueError."""
    if not isinstance(name, str) or not name.strip() or name != name.strip() or name[0] in ".-" or "/" in name:
        raise ValueError(f"{str(name)[:40]!r} cannot be the name of a shot: write one like shot-12")
    check_portable(name)
    return name


def _in_lines(text: str, folder: Path, *, prompts: bool = False) -> Iterator[Shot]:
    """Lines that hold JSON; with `prompts` one that does not begin with "{" is a prompt."""
    for number, line in enumerate(text.splitlines(), start=1):
        place, name = f"line {number}", f"shot-{number:04d}"
        if prompts and TIME.match(line):
            raise ValueError(f"{place}: it is a line of a timeline, and a line is a shot: write {TIMELINE}")
        if prompts and line.strip() and not line.lstrip().startswith("{"):
            yield Shot(name, {"prompt": line.strip()}, place, folder)
        elif line.strip():
            yield _shot(line, place, folder, name)


def _in_folder(path: Path) -> Iterator[Shot]:
    """A .txt holds a prompt, or a timeline where it begins with "["; a .json holds what a line of a list does."""
    files = (file for file in path.iterdir() if file.suffix.lower() in (".json", ".txt") and file.name[0] != ".")
    for file in sorted(files, key=lambda file: _natural(file.name)):
        text = read_text(file)
        if file.suffix.lower() == ".json":
            yield _shot(text, file.name, path, file.stem)
            continue
        if not text.strip():
            raise ValueError(f"{file.name}: it is empty: write a prompt, or remove it")
        option = "timeline" if text.lstrip().startswith("[") else "prompt"
        yield Shot(_named(file.name, file.stem), {option: text.strip()}, file.name, path)


def _shot(text: str, place: str, folder: Path, name: str) -> Shot:
    """The shot of a JSON object; `name` where it names none. Raises ValueError that begins with its place."""
    try:
        values = parse_json(text, unique=True)
    except ValueError as error:
        written = "write / or \\\\ in paths" if "escape" in str(error) else f"write it like {EXAMPLE}"
        raise ValueError(f"{place}: it is no JSON ({error}): {written}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{place}: it is no JSON object: write it like {EXAMPLE}")
    options = {key: value for key, value in values.items() if key != NAME and value is not None}
    return Shot(_named(place, values.get(NAME, name)), options, place, folder)


def _named(place: str, name: object) -> str:
    try:
        return check_shot_name(name)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _natural(name: str) -> list[tuple[int, str]]:
    """A key by which shot 2 comes before shot 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"([0-9]+)", name)]
