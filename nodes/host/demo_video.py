"""A clip of the demo model's painter as a video file in the host's temp folder, which the host empties by itself."""

from itertools import count
from pathlib import Path

import comfy.model_management
import folder_paths
import torch

from ...histream_core import demo
from ...histream_core.demo.painter import DIRECTIONS, Combination, paint
from ...histream_core.files.disk import NewName, make_folder, under_new_name
from ...histream_core.video.formats import find_format
from ...histream_core.video.writers import open_writer
from .decode import SavedVideo

BEHIND = 0.2
"""Share of the frame by which the object begins behind the middle, where those of generated videos begin."""

PAINTED_AT_ONCE = 16
NAME = "histream_demo_video"


def write_demo_video(combination: Combination, seconds: float, fps: float) -> SavedVideo:
    """Paint a clip into a new file. Raises ValueError for a rate that no video has, and OSError."""
    format, size = find_format("h264-mp4"), (demo.WIDTH, demo.HEIGHT)
    folder = Path(folder_paths.get_temp_directory()).resolve()
    make_folder(folder)

    def open_new(path: Path):
        return path, open_writer(NewName(path), format, size=size, fps=fps)

    names = (folder / f"{NAME}_{number:05}_{format.suffix}" for number in count(1))
    path, writer = under_new_name(names, open_new)
    dx, dy = DIRECTIONS[combination.direction]
    begin = 0.5 - BEHIND * dx, 0.5 - BEHIND * dy
    num_frames = max(round(seconds * fps), 1)
    with writer:
        for start in range(0, num_frames, PAINTED_AT_ONCE):
            comfy.model_management.throw_exception_if_processing_interrupted()
            frames = range(start, min(start + PAINTED_AT_ONCE, num_frames))
            times = [frame * demo.FPS / fps for frame in frames]
            writer.write(torch.from_numpy(paint(combination, times, size=demo.WIDTH, start=begin, training=False)))
    return SavedVideo(path, "", format)
