"""Options that several evaluations of the bundled model share."""

from __future__ import annotations

from pathlib import Path

from ...lab.judge.pictures import read_pictures
from ...lab.judge.things import SceneJudge


def scene_judge(folder: Path) -> SceneJudge:
    """The judge of scenes, with the pictures of a folder. Raises ValueError or OSError."""
    return SceneJudge(read_pictures(folder))
