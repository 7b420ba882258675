"""Charts of what was measured: plots as SVG, contact sheets and the drift of a video as pictures.

The modules of this folder import Pillow or matplotlib (extra `lab`); import them where they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import numpy as np


def check_packages(*names: str) -> None:
    """Import packages of the extra `lab` before a long run. Raises ModuleNotFoundError for one that is missing."""
    for name in names:
        import_module(name)


def pick(frames: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """`count` frames evenly spread from the first to the last. Raises ValueError for no frames."""
    if len(frames) == 0:
        raise ValueError("a strip needs at least one frame")
    return [frames[round(i)] for i in np.linspace(0, len(frames) - 1, count)]
