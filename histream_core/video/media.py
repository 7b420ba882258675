"""Media files opened: for reading one ordinary file and nothing that it refers to, with bounds and clear errors.

`av` is imported where it is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..files.reading import open_file
from .colour import check_colours

Source = str | Path | BinaryIO
"""A file, or a seekable file object."""

CONTAINERS = (
    # FFmpeg's names. None of these opens a second file; playlists, patterns, devices and addresses are left out.
    *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "m4v", "h264", "hevc", "vvc", "av1", "obu", "ivf"),
    *("flv", "asf", "mxf", "gxf", "ogg", "nut", "dv", "yuv4mpegpipe", "mjpeg", "gif", "apng", "dnxhd", "vc1", "rm"),
    *("wav", "w64", "aiff", "caf", "au", "flac", "mp3", "aac", "ac3", "eac3", "dts", "truehd", "amr", "ape", "wv"),
    *("tta", "voc", "tak", "loas", "png_pipe", "jpeg_pipe", "jpegls_pipe", "jpegxl_pipe", "jpegxl_anim", "j2k_pipe"),
    *("webp_pipe", "webp", "bmp_pipe", "tiff_pipe", "exr_pipe", "hdr_pipe", "dpx_pipe", "psd_pipe", "qoi_pipe"),
    *("ppm_pipe", "pgm_pipe", "pbm_pipe", "pam_pipe", "pfm_pipe", "sgi_pipe", "ico"),
)

PROTOCOLS = ("rtsp", "rtsps", "rtp", "srt", "udp", "tcp", "tls", "http", "https")
"""Protocols of live addresses, by FFmpeg's names."""

STREAMED = ("rtsp", "mpjpeg")
"""Containers of live addresses besides those of files."""

WAIT_SECONDS = 10.0, 5.0
"""Longest wait for a device to open, and for its next picture."""

MAX_SIDE = 16384
"""Largest width and height of a picture."""

MAX_PIXELS = 2**26
"""Most pixels of a picture: 67 megapixels, 800 MB when it is decoded."""

LATEST = 2**62
"""Times of frames and packets are smaller, in units of their stream, so that sums of two are 64 bits."""

_OPTIONS = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "", "max_pixels": str(MAX_PIXELS)}


class _Unnamed:
    """A file for FFmpeg, which is told the ending of its name alone: a name can be a pattern or an address."""

    def __init__(self, file: BinaryIO, name: object) -> None:
        self.name = f"media{Path(name).suffix}" if isinstance(name, (str, Path)) else "media"
        self.read, self.tell, self._seek = file.read, file.tell, file.seek

    def seek(self, offset: int, whence: int = 0) -> int:
        """Seek as the file does; -1 for where no file can be, which a damaged file asks for."""
        try:
            return self._seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1


def name_of(source: Source) -> str:
    """The name of a video for messages."""
    return str(source) if isinstance(source, (str, Path)) else "the video in memory"


@contextlib.contextmanager
def media_errors(said: str) -> Iterator[None]:
    """Raise an error of FFmpeg as ValueError with a sentence."""
    import av.error

    try:
        yield
    except (av.error.FFmpegError, MemoryError) as error:
        raise ValueError(said) from error


def damaged(source: Source) -> contextlib.AbstractContextManager[None]:
    """Raise an error of FFmpeg while `source` is read as ValueError that names it."""
    return media_errors(f"{name_of(source)} is damaged or incomplete: convert it, or choose another file")


@contextlib.contextmanager
def open_media(source: Source, said: str) -> Iterator[Any]:
    """Open a media file. Raises OSError for what is no file, and ValueError: `said` for what cannot be opened.

    Errors of FFmpeg in the block become those of `damaged`.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(source, (str, Path)):
            file, name = stack.enter_context(open_file(source)), source
        else:
            file, name = source, getattr(source, "name", None)
            file.seek(0)
        with media_errors(said):
            container = stack.enter_context(_opened(file, name))
        with damaged(source):
            yield container


def _opened(file: BinaryIO, name: object) -> Any:
    """The container in an open file, found by its content and its ending, else by its content alone.

    FFmpeg would open a file named as a picture as one of a numbered sequence, which is not allowed here.
    """
    import av
    import av.error

    named, unnamed = _Unnamed(file, name), _Unnamed(file, None)
    try:
        return av.open(cast("Any", named), options=_OPTIONS, metadata_errors="replace")
    except av.error.FFmpegError:
        file.seek(0)
        return av.open(cast("Any", unnamed), options=_OPTIONS, metadata_errors="replace")


@contextlib.contextmanager
def open_device(device: str, format: str | None, options: dict[str, str]) -> Iterator[Any]:
    """Open a camera by the name and the format that FFmpeg has for it, or an address (`format` None).

    Only protocols that carry a picture are spoken, and nothing that an address refers to is opened. Raises ValueError
    for what cannot be opened, and for errors of FFmpeg in the block.
    """
    import av
    import av.error

    allowed = {"protocol_whitelist": ",".join(PROTOCOLS), "format_whitelist": ",".join((*CONTAINERS, *STREAMED))}
    settings = {"max_pixels": str(MAX_PIXELS), **options, **({} if format else allowed)}
    with contextlib.ExitStack() as stack:
        stack.enter_context(media_errors(f"{device} gives no picture: is it there, switched on, and free?"))
        try:
            opened = av.open(device, format=format, options=settings, timeout=WAIT_SECONDS)
        except av.error.ProtocolNotFoundError as error:
            scheme = device.partition(":")[0]
            raise ValueError(f"PyAV was built without {scheme} here: use rtsp, udp or http, or another PyAV") from error
        container = stack.enter_context(opened)
        video_stream(container, device)
        yield container


def open_muxer(file: Any, muxer: str, options: dict[str, str] | None = None) -> Any:
    """A container written into an open file, without a creation time: the same packets give the same bytes."""
    import av

    return av.open(file, "w", format=muxer, options={"fflags": "+bitexact", **(options or {})})


def open_output(where: str, muxer: str) -> Any:
    """A container that goes to an address or a device, which is opened when the first packet is written."""
    import av

    return av.open(where, "w", format=muxer)


def video_stream(container: Any, source: Source) -> Any:
    """The first video stream that is no cover picture. Raises ValueError where there is none that can be decoded."""
    from av.stream import Disposition

    found = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not found:
        raise ValueError(f"{name_of(source)} has no picture in it")
    check_stream(found[0], source)
    return found[0]


def check_stream(stream: Any, source: Source) -> None:
    """Check what a stream says of its pictures before one is decoded, and bound its decoder. Raises ValueError."""
    context = stream.codec_context
    if context is None:
        raise ValueError(f"{name_of(source)} has pictures of an unknown kind: convert it to H.264 in MP4")
    check_picture(context, source)
    context.options = {**context.options, "max_pixels": str(MAX_PIXELS)}
    if not stream.time_base or abs(stream.start_time or 0) >= LATEST:
        raise ValueError(f"{name_of(source)} does not say when its frames are shown: convert it to MP4")


def check_picture(picture: Any, source: Source) -> None:
    """Check size and colours of a decoder's pictures or of a decoded frame. Raises ValueError for what is not read."""
    check_size(picture.width, picture.height, source)
    check_colours(picture, name_of(source))


def check_size(width: int, height: int, source: Source) -> None:
    """Check the size of a picture. Raises ValueError for one that is too large."""
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ValueError(
            f"{name_of(source)} has pictures of {width}x{height}: make them smaller, at most {MAX_SIDE} pixels wide "
            f"and high and {MAX_PIXELS} in all"
        )
