"""Drift of a VIDEO of the host, and its plot on the host's disk."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from torch import Tensor

from ...histream_core.files.disk import under_new_name
from ...histream_core.lab.charts.drift import drift_plot
from ...histream_core.lab.judge.drift_meter import describe_drift, meter
from ...histream_core.video.pictures import write_png
from .frames import Clip, clip_of
from .run_folders import new_file


def measure_drift(video) -> tuple[np.ndarray, str]:
    """Plot [H, W, 3] uint8 and one-line description of a VIDEO's drift. Raises ValueError or OSError."""
    clip = clip_of(video)
    seconds = meter(_frames(clip), clip.fps)
    return drift_plot(seconds, clip.source), describe_drift(seconds)


def _frames(clip: Clip) -> Iterator[Tensor]:
    progress = comfy.utils.ProgressBar(clip.num_frames)
    for frame in clip.read(range(clip.num_frames)):
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield frame
        progress.update(1)


def write_plot(plot: np.ndarray, prefix: str) -> tuple[Path, str]:
    """Write a plot to a new file in the host's output folder; return its path and its subfolder there."""
    folder, name, counter, subfolder = new_file(prefix, (plot.shape[1], plot.shape[0]))

    def write(path: Path) -> Path:
        write_png(path, plot, overwrite=False)
        return path

    return under_new_name((folder / f"{name}_{number:05}_.png" for number in count(counter)), write), subfolder


def to_image(plot: np.ndarray) -> Tensor:
    """A plot as an IMAGE [1, H, W, 3]."""
    return torch.from_numpy(plot.astype(np.float32) / 255)[None]
