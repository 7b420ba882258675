"""Folders of runs, under the host's output folder, by name."""

import glob
import os
import re
from pathlib import Path

import folder_paths

from ...histream_core.files.disk import check_portable
from ...histream_core.runs import list_runs
from ...histream_core.runs.store.folder import CHUNKS, MANIFEST
from ..settings import VideoChoice

MARKS = re.compile(r"%(date(:[^%/]*)?|[^%/]+\.[^%/]+)%")
"""Marks in a name that the host's page replaces before it sends a workflow, and its server does not."""


def output_folder() -> Path:
    return Path(folder_paths.get_output_directory()).resolve()


def name_of(folder: Path) -> str:
    """The name of a run in nodes: its folder, relative to the host's output folder."""
    return folder.resolve().relative_to(output_folder()).as_posix()


def run_path(name: str) -> Path:
    """The folder of that name under the host's output folder. Raises ValueError for one outside."""
    root = output_folder()
    folder = (root / name.strip()).resolve()
    if not name.strip() or folder == root or not folder.is_relative_to(root):
        raise ValueError(
            f"{name!r} is no folder inside ComfyUI's output folder: write a name like histream/run, or connect a run"
        )
    return folder


def next_run(choice: VideoChoice, size: tuple[int, int]) -> tuple[Path, str]:
    """The folder of the next run of that name, and the name with what the host puts for %year% and the like."""
    run_path(choice.folder)
    check_written(choice.folder)
    folder, name, counter, _, _ = folder_paths.get_save_image_path(choice.folder, str(output_folder()), *size)
    return Path(folder, f"{name}_{counter:05}"), name_of(Path(folder, name))


def numbered_runs(name: str) -> list[Path]:
    """The runs with that name and a number behind it, oldest first."""
    folder = run_path(name)
    runs = (path for path in folder.parent.glob(f"{glob.escape(folder.name)}_*") if os.path.lexists(path / MANIFEST))
    return sorted(path for path in runs if path.name.removeprefix(f"{folder.name}_").isdecimal())


def new_file(prefix: str, size: tuple[int, int]) -> tuple[Path, str, int, str]:
    """The folder, name, number and subfolder of a new file that the artist calls `prefix`.

    Under the host's output folder, with the host's marks for date and `size` replaced. Raises ValueError for a place
    outside.
    """
    root = check_inside(prefix)
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, str(root), *size)
    return Path(folder), name, counter, subfolder


def check_inside(prefix: str, *, portable: bool = True) -> Path:
    """The host's output folder. Raises ValueError where a file that the artist calls `prefix` would be outside.

    `portable`: refuse names too that not every system can have.
    """
    root = Path(folder_paths.get_output_directory()).resolve()
    if not (root / prefix).resolve().is_relative_to(root):
        raise ValueError(f"the name {prefix!r} is outside ComfyUI's output folder: write a name like video/HiStream")
    if portable:
        check_written(prefix)
    return root


def check_written(name: str) -> None:
    """Refuse a name of a new file or folder that not every system can have, and marks that nobody replaces.

    Raises ValueError.
    """
    if found := MARKS.search(name):
        raise ValueError(
            f"the name {name[:80]!r} has {found[0][:40]} in it, which ComfyUI's page replaces and its server does not: "
            "use %year%, %month%, %day%, %hour%, %minute%, %second%, %width% or %height%, or write it out"
        )
    check_portable(name)


def as_shown(name: str) -> str:
    """The name of a run, also where the output folder is in it, as the host shows paths: output/histream/run_00001."""
    shown = name.strip().replace(os.sep, "/").removeprefix("./")
    inner = shown.removeprefix(f"{output_folder().name}/")
    return name if inner == shown or os.path.lexists(run_path(name)) else inner


def find_run(name: str) -> Path:
    """The run of that name, or the newest one with a number behind it. Raises ValueError or FileNotFoundError."""
    name = as_shown(name)
    numbered = numbered_runs(name)
    if numbered and not os.path.lexists(run_path(name) / MANIFEST):
        return numbered[-1]
    return exact_run(name)


def exact_run(name: str) -> Path:
    """The run of exactly that name. Raises ValueError or FileNotFoundError that names some there are."""
    folder = run_path(as_shown(name))
    if not os.path.lexists(folder / MANIFEST):
        known = sorted(name_of(path.parent) for path in output_folder().glob(f"*/*/{MANIFEST}"))
        there = f"there are {', '.join(known[-5:])}" if known else "there is none yet, make one with Video Output"
        raise FileNotFoundError(f'there is no run "{name}" in ComfyUI\'s output folder: {there}')
    return folder


def list_text(name: str) -> str:
    """A line for each run in a folder. Raises ValueError for one outside the output folder."""
    folder = run_path(as_shown(name))
    lines = [info.line(name_of(info.folder)) for info in list_runs(folder)] if folder.is_dir() else []
    return "\n".join(lines) or f"no run is in {name}"


def run_state(name: str | None) -> str:
    """A text that changes when the run of that name changes; for the host's cache."""
    try:
        folder = find_run(name or "")
    except (ValueError, OSError):
        return ""
    there = (folder / MANIFEST, folder / CHUNKS, folder)
    return " ".join(str(path.stat().st_mtime_ns) for path in there if path.exists())
