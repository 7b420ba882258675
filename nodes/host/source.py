"""The video that a run restyles, from a VIDEO of the host."""

from pathlib import Path

import folder_paths

from ...histream_core.live.devices import Device
from ...histream_core.live.stage import PAGE, open_source
from ...histream_core.runs import Manifest
from ...histream_core.runs.restyle import SourceVideo, video_of_run
from ...histream_core.video.formats import Format
from ...histream_core.video.sound import pack_sound
from . import log as host_log
from .api import InputImpl


def source_video(video) -> SourceVideo:
    """The whole file of a VIDEO. Raises ValueError or OSError for one in no file, for a cut, or for HDR."""
    return SourceVideo.at(_file_of(video))


def live_source(name: str, video, *, fps: float | None, size: tuple[int, int] | None, again: bool) -> Device:
    """The source of a live stream: the file of a VIDEO, else page, camera:0, an address, or a file by its name.

    `fps` and `size` None: those of the source. Raises ValueError or OSError for one that is not there, and for a file
    outside the host's input folder.
    """
    name = name.strip()
    if video is not None:
        name = str(_file_of(video))
    elif name != PAGE and not name.startswith("camera:") and "://" not in name:
        name = str(_input_file(name))
    return open_source(name, fps=fps, size=size, again=again)


def source_of_run(manifest: Manifest, video) -> SourceVideo | None:
    """The video that a run restyles: that VIDEO, or None for the file where it was; None for a run that restyles none.

    Raises ValueError or OSError where it is not there, or is another video.
    """
    if manifest.plan.restyle is None:
        if video is not None:
            raise ValueError("the run restyles no video: disconnect source")
        return None
    path = _where_it_was(manifest) if video is None else _file_of(video)
    return video_of_run(manifest, path, how="connect it to source, from Load Video")


def sound_of_source(video: SourceVideo, format: Format) -> bytes | None:
    """The packed sound of the video, for a new one of that format; None where one of both has none."""
    path, notes = video.sound(format)
    for note in notes:
        host_log.warn(note)
    return path and pack_sound(path)


def _input_file(name: str) -> Path:
    """The file of that name in the host's input folder. Raises ValueError for one outside, or FileNotFoundError."""
    root = Path(folder_paths.get_input_directory()).resolve()
    path = (root / name).resolve()
    if not name or path == root or not path.is_relative_to(root):
        raise ValueError(
            f"{name!r} is no file inside ComfyUI's input folder: write page, camera:0, an address such as "
            "rtsp://HOST/NAME, or the name of a file there"
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no {name!r} in ComfyUI's input folder: put it there, or connect a VIDEO")
    return path


def _file_of(video) -> Path:
    if isinstance(video, InputImpl.VideoFromComponents) or not isinstance(video.get_stream_source(), str):
        raise ValueError("that VIDEO is in no file, and a run must find it again: connect Load Video or Save Video")
    if any(video.get_active_trim_window()):
        raise ValueError("that VIDEO is cut, and the whole file would be restyled: save the cut, and load it again")
    return Path(video.get_stream_source())


def _where_it_was(manifest: Manifest) -> Path | None:
    """The file that the run names, if it is in one of the host's folders; others are nobody's to open."""
    path = Path(manifest.source.get("video") or "").resolve()
    folders = (folder_paths.get_input_directory, folder_paths.get_output_directory, folder_paths.get_temp_directory)
    return path if path.is_file() and any(path.is_relative_to(Path(find()).resolve()) for find in folders) else None
