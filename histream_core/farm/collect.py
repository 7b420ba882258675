"""Checks the videos of a farm, and copies them into one folder under the names of their shots."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..files.disk import check_new, copy_whole, make_folder
from ..runs import RunInUseError
from ..runs.store.fingerprint import hash_file
from ..runs.store.journal import read_manifest
from ..runs.store.video import format_of, picture_files, video_path
from .drive import Turn
from .store import Farm


@dataclass(frozen=True)
class Collected:
    """The shots of a farm, after their runs were checked."""

    files: dict[str, Path]
    """The videos, by the names of the shots; folders for single pictures."""
    missing: dict[str, str]
    """Why there is none, by the names of the others."""


def check_videos(farm: Farm, turn: Turn = lambda: None) -> Collected:
    """Check the runs of all shots; the videos where they were made. `turn` is called before each: it may raise."""
    files, missing = {}, {}
    for shot in farm.shots:
        turn()
        try:
            if farm.is_finished(shot.name):
                run = farm.run_of(shot.name)
                files[shot.name] = video_path(run, read_manifest(run))
            else:
                missing[shot.name] = "not finished, or its video was changed since: submit the list again"
        except RunInUseError:
            missing[shot.name] = "not finished, a worker is at it"
        except (ValueError, OSError) as error:
            missing[shot.name] = str(error)
    return Collected(files, missing)


def collect(farm: Farm, folder: Path, *, overwrite: bool = False) -> Collected:
    """Copy the video of each finished shot to `folder`, after all of its run was checked.

    A copy that is there already stays. Raises OSError for another file of its name, unless `overwrite`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    make_folder(folder)
    found = check_videos(farm)
    copies = {name: _copy(farm, name, folder, overwrite=overwrite) for name in found.files}
    return Collected(copies, found.missing)


def _copy(farm: Farm, name: str, folder: Path, *, overwrite: bool) -> Path:
    """Copy the video of a finished shot; return the copy."""
    run = farm.run_of(name)
    manifest = read_manifest(run)
    video = video_path(run, manifest)
    target = folder / f"{name}{'' if format_of(manifest.settings).is_sequence else video.suffix}"
    if format_of(manifest.settings).is_sequence:
        make_folder(target)
        pictures = (picture for picture in picture_files(run, manifest) if ".partial" not in picture.name)
        pairs = [(picture, target / picture.name) for picture in pictures]
    else:
        pairs = [(video, target)]
    for old, new in pairs:
        if os.path.lexists(new) and new.is_file() and hash_file(old) == hash_file(new):
            continue
        check_new(new, overwrite=overwrite)
        copy_whole(old, new, overwrite=overwrite)
    return target
