"""Inputs and outputs that all nodes that write videos share."""

from collections.abc import Sequence
from pathlib import Path

from ..histream_core.video.formats import Format
from .host import graph as host_graph
from .host import kept as host_kept
from .host.api import InputImpl, Speed, VideoOutput, blocked, io, ui
from .host.decode import SavedVideo
from .host.runs import OpenRun
from .settings import VideoChoice

HIDDEN = [io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id]
"""Hidden inputs with the graph, which is stored in the video."""

PLAYED_BY_BROWSERS = ("h264-mp4", 8)


def run_input(what: str, default: str = ""):
    """The name of a run, linked or written."""
    return io.String.Input(
        "run",
        default=default,
        tooltip=f"The run {what}: its folder under ComfyUI's output folder, such as histream/run_00003, or without the "
        "number for the newest. Connect the run of another node, or write it.",
    )


def output_input():
    return VideoOutput.Input(
        "output",
        optional=True,
        tooltip="From Video Output, for another folder or format. Without it: as the run that it comes from.",
    )


def source_input():
    return io.Video.Input(
        "source",
        optional=True,
        tooltip="From Load Video: the video that the run restyles, if it does. Without it: the file where it was.",
    )


def speed_input(without: str):
    return Speed.Input(
        "speed", optional=True, tooltip=f"From HiStream Speed: which kernels compute. Without it: {without}."
    )


def snapshots_input(tooltip: str):
    return io.Int.Input("snapshots", default=0, min=0, max=10000, optional=True, advanced=True, tooltip=tooltip)


def crop_input():
    return io.Boolean.Input(
        "crop_1088",
        default=True,
        optional=True,
        advanced=True,
        tooltip="1080 is no multiple of 32, so 1088 rows or columns are generated: cut 4 off on both sides. "
        "Other sizes are left as they were asked for.",
    )


def image_limit_input(tooltip: str):
    return io.Float.Input(
        "image_limit_gib", default=8.0, min=0.1, max=1024, step=0.1, optional=True, advanced=True, tooltip=tooltip
    )


def outputs():
    """LATENT, VIDEO, the run's name and its summary."""
    return [
        io.Latent.Output(tooltip="The video as a LATENT; with a run it lies on the disk and takes no memory."),
        io.Video.Output(tooltip="The file on disk, for Save Video and other nodes. For pictures: see their folder."),
        io.String.Output(
            display_name="run", tooltip="The run's folder, for Resume, Extend and Branch Run, and to read where it is."
        ),
        io.String.Output(
            display_name="summary", tooltip="What was made, with which settings, and what it took: for Preview as Text."
        ),
    ]


def finish_and_show(node, run: OpenRun, choice: VideoChoice | None) -> io.NodeOutput:
    """Finish an open run and return its outputs; browsers that can play the file show a player under the node."""
    tags = host_graph.tags_of(node.hidden)
    kept = host_kept.make_kept_video(run, choice or VideoChoice(), tags=tags)
    video = video_socket(kept.path, kept.format)
    shown = player([SavedVideo(kept.path, kept.run, kept.format)])
    return io.NodeOutput(kept.latent, video, kept.run, kept.summary, ui=shown)


def video_socket(path: Path, format: Format):
    """A VIDEO of that file; for a folder of pictures, a blocked output with a message."""
    if format.is_sequence:
        return blocked(f"{format.name} is a folder of pictures, {path}, and no video: choose a video format for one")
    return InputImpl.VideoFromFile(str(path))


def player(videos: Sequence[SavedVideo]) -> ui.PreviewVideo | None:
    """Shows videos under a node, where browsers can play them."""
    played = [video for video in videos if (video.format.name, video.format.depth) == PLAYED_BY_BROWSERS]
    results = [ui.SavedResult(video.path.name, video.subfolder, io.FolderType.output) for video in played]
    return ui.PreviewVideo(results) if results else None
