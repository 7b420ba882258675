"""Single pictures: read from a file, fitted to the size of a video, written as PNG.

Pictures are [H, W, 3], RGB, float32 in [0, 1]; sizes are (width, height) in pixels. `av` and `kornia` are imported
where they are used.
"""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..files.disk import write_whole
from ..files.reading import open_file, read_bytes
from ..plan.sizes import FITS, generated_size
from .exif import is_cmyk_in_jp2, is_jpeg_in_tiff, orientation_in, profile_in
from .frames import aspect_of, check_aspect, colours, unit_frame
from .heif import LONGEST_HEAD, Still, find_still, is_heif
from .media import MAX_PIXELS, check_picture, check_size, check_stream, media_errors, open_media
from .pixels import Metadata
from .profiles import DISPLAY_P3, read_profile, to_srgb

Pixels = TypeVar("Pixels", Tensor, np.ndarray)

CROP, PAD, STRETCH = FITS

STILLS = ("webp", "apng", "mjpeg")
"""Containers of stills (FFmpeg's names) besides those that end in _pipe; JPEGs in a row are one of the last."""

P3 = 12
"""FFmpeg's code of the primaries of Display P3."""

PNG_OPTIONS = {"threads": "1", "pred": "mixed", "compression_level": "5"}
PNG_COLOUR = ((b"gAMA", struct.pack(">I", 45455)), (b"sRGB", b"\0"))
"""PNG chunks that tag the values as sRGB."""

MAX_BYTES = 2**28
"""Largest file of a picture."""

PNG_START = 33
"""Length in bytes of the signature and the IHDR chunk, which must come first."""


def read_picture(path: str | Path) -> Tensor:
    """Read a picture, or the first frame of a video: upright, without alpha. Raises ValueError or OSError."""
    return _read(path)[..., :3]


def read_cutout(path: str | Path) -> Tensor:
    """Read a picture with its opacity, upright, [H, W, 4]; opacity is 1 where the file has none.

    Raises ValueError or OSError.
    """
    return _read(path)


def _read(path: str | Path) -> Tensor:
    """Read a picture with its opacity."""
    said = f"{path} is no picture: give a PNG or JPEG file"
    still = _heif_still(path)
    with open_media(path, said) as container:
        if not container.streams.video:
            raise ValueError(said)
        if still is not None:
            picture, orientations = _assemble(_decode_items(container, still, path), still), still.orientations
            picture = _in_srgb(picture, still.profile, path, p3=still.primaries == P3)
        else:
            name = container.format.name
            frame = _first_frame(container, path, said)
            if not (name.endswith("_pipe") or name in STILLS):
                picture = unit_frame(frame, aspect_of(container.streams.video[0])).numpy()
                return torch.from_numpy(np.pad(picture, ((0, 0), (0, 0), (0, 1)), constant_values=1))
            data = read_bytes(path, MAX_BYTES)
            if is_jpeg_in_tiff(data):  # the library would give a black picture
                raise ValueError(f"{path} is a TIFF with JPEG in it, which is not read: convert it to PNG or JPEG")
            if is_cmyk_in_jp2(data):  # the library would give its negative
                raise ValueError(f"{path} is a JPEG 2000 in CMYK, which is not read: convert it to RGB")
            picture = _in_srgb(_with_opacity(frame), profile_in(data), path)
            orientations = (orientation_in(data),)
    for orientation in orientations:
        picture = orientation.apply(picture)
    return torch.from_numpy(np.ascontiguousarray(picture))


def _in_srgb(picture: np.ndarray, profile: bytes, path: str | Path, *, p3: bool = False) -> np.ndarray:
    """The picture [H, W, 4] in sRGB by its colour profile; `p3`: without one it is Display P3. Raises ValueError."""
    try:
        known = read_profile(profile) if profile else DISPLAY_P3 if p3 else None
    except ValueError as error:
        raise ValueError(f"{path} cannot be read, {error}: convert it to sRGB") from error
    return picture if known is None else np.concatenate([to_srgb(picture[..., :3], known), picture[..., 3:]], axis=-1)


def _first_frame(container: Any, path: str | Path, said: str) -> Any:
    """The first frame of a container, checked. Raises ValueError for what cannot be read."""
    decoder = container.streams.video[0].codec_context
    check_stream(container.streams.video[0], path)
    if not decoder.width:
        raise ValueError(
            f"{path} is no picture that can be read, or has more than {MAX_PIXELS} pixels: convert it to PNG or JPEG "
            "of fewer (an animated WebP is not read)"
        )
    with media_errors(said):
        frame = next(container.decode(video=0), None)
    if frame is None:
        raise ValueError(said)
    check_picture(frame, path)
    check_aspect(frame, aspect_of(container.streams.video[0]), path)
    return frame


def _with_opacity(frame: Any) -> np.ndarray:
    """The decoded frame of a still [H, W, 4], as it is stored."""
    opacity = frame.to_ndarray(format="rgba")[..., 3:] / np.float32(255)
    return np.concatenate([colours(frame, still=True), opacity], axis=-1)


def _heif_still(path: str | Path) -> Still | None:
    """The layout of the picture in a HEIF file; None for any other file. Raises ValueError for one that is not read."""
    with open_file(path) as file:
        if not is_heif(file.read(LONGEST_HEAD)):
            return None
    try:
        return find_still(read_bytes(path, MAX_BYTES))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read, {error}: convert it to PNG or JPEG") from error


def _decode_items(container: Any, still: Still, path: str | Path) -> dict[int, np.ndarray]:
    """The tiles of a still by their ids. Raises ValueError where one is missing, or they are too large."""
    if still.size is not None:
        check_size(*still.size, path)
    streams = [stream for stream in container.streams.video if stream.id in still.tiles]
    found: dict[int, np.ndarray] = {}
    for stream in streams:
        check_stream(stream, path)
    for packet in container.demux(streams) if streams else ():
        for frame in packet.decode():
            check_picture(frame, path)
            found.setdefault(packet.stream.id, _with_opacity(frame))
    shapes = {picture.shape for picture in found.values()}
    if len(found) < len(set(still.tiles)) or len(shapes) != 1:
        raise ValueError(f"{path} is damaged or incomplete: convert it to PNG or JPEG")
    height, width = next(iter(found.values())).shape[:2]
    check_size(width * still.columns, height * (len(still.tiles) // still.columns), path)
    return found


def _assemble(tiles: dict[int, np.ndarray], still: Still) -> np.ndarray:
    """The picture made of tiles, as it is stored."""
    rows = [still.tiles[start : start + still.columns] for start in range(0, len(still.tiles), still.columns)]
    whole = np.concatenate([np.concatenate([tiles[item] for item in row], axis=1) for row in rows])
    width, height = still.size or (whole.shape[1], whole.shape[0])
    whole = whole[:height, :width]
    if still.crop is None:
        return whole
    width, height, right, below = still.crop
    left = max(0, round((whole.shape[1] - width) / 2 + right))
    top = max(0, round((len(whole) - height) / 2 + below))
    part = whole[top : top + round(height), left : left + round(width)]
    return part if part.size else whole


def fit_picture(
    picture: Tensor, size: tuple[int, int], fit: str = CROP, shown: tuple[int, int] | None = None
) -> Tensor:
    """Fit a picture to a video of `size` in one of the ways of FITS.

    A picture of the right size is returned as it is. One of the size that is `shown` of the video, or of 1080 rows for
    1088, is extended by repeating its edges, which are cropped when the video is written. Raises ValueError for an
    unknown way, and where the picture must be scaled and kornia is not installed.
    """
    if fit not in FITS:
        raise ValueError(f'a picture cannot be fitted by "{fit}": use {", ".join(FITS)}')
    rows, columns = picture.shape[:2]
    if _fits(picture, size, shown):
        return extend_picture(picture, size)
    width, height = size
    if fit == CROP:
        part = min(columns, max(1, round(rows * width / height))), min(rows, max(1, round(columns * height / width)))
        return _scale(crop_picture(picture, part), size)
    if fit == PAD:
        inside = min(width, max(1, round(columns * height / rows))), min(height, max(1, round(rows * width / columns)))
        return extend_picture(_scale(picture, inside), size)
    return _scale(picture, size)


def _fits(picture: Tensor, size: tuple[int, int], shown: tuple[int, int] | None) -> bool:
    """Whether a picture needs no scaling."""
    rows, columns = picture.shape[:2]
    return generated_size(columns, rows) == tuple(size) or (columns, rows) == shown


def describe_fit(picture: Tensor, size: tuple[int, int], fit: str, shown: tuple[int, int] | None = None) -> list[str]:
    """Describe in a line what `fit_picture` changes; no line for a picture of the right size."""
    rows, columns = picture.shape[:2]
    if _fits(picture, size, shown):
        return []
    return [f"the first frame of {columns}x{rows} is fitted to {size[0]}x{size[1]} ({fit}): {FITS[fit]}"]


def crop_picture(picture: Pixels, size: tuple[int, int]) -> Pixels:
    """The centre of a picture [H, W, 3], or of several [F, H, W, 3]."""
    left, top = (picture.shape[-2] - size[0]) // 2, (picture.shape[-3] - size[1]) // 2
    return picture[..., top : top + size[1], left : left + size[0], :]


def extend_picture(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Extend a picture evenly to `size` by repeating its edges; the network would take bars for part of the scene."""
    height, width = picture.shape[:2]
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    edges = (left, size[0] - width - left, top, size[1] - height - top)
    return torch.nn.functional.pad(picture.movedim(-1, 0)[None], edges, mode="replicate")[0].movedim(0, -1)


def _scale(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale a picture to `size` by bicubic interpolation, with antialiasing where it gets smaller."""
    height, width = picture.shape[:2]
    if (width, height) == size:
        return picture
    try:
        from kornia.geometry.transform import resize
    except ModuleNotFoundError as error:
        raise ValueError(
            f"a picture of {width}x{height} is scaled to {size[0]}x{size[1]} by kornia, which is not installed: "
            f"run pip install kornia, or choose a picture of the video's size"
        ) from error
    scaled = resize(picture.movedim(-1, 0)[None], (size[1], size[0]), "bicubic", align_corners=False, antialias=True)
    return scaled[0].movedim(0, -1).clamp(0, 1)


def write_png(path: str | Path, picture: np.ndarray, *, overwrite: bool = True) -> None:
    """Write a picture [H, W, 3], uint8, as a PNG file, as `write_whole` does. Raises OSError."""
    write_whole(Path(path), encode_png(picture), overwrite=overwrite)


def encode_png(values: np.ndarray, metadata: Metadata | None = None) -> bytes:
    """The bytes of a PNG file of values [H, W, 3], uint8 or uint16, tagged as sRGB; `metadata` is stored as text.

    FFmpeg encodes the pixels but cannot store text, so the text chunks are inserted here.
    """
    import av

    pixels = "rgb24" if values.dtype == np.uint8 else "rgb48be"
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = values.shape[:2]
    encoder.pix_fmt, encoder.options = pixels, PNG_OPTIONS
    encoder.time_base = encoder.sample_aspect_ratio = Fraction(1)
    packets = [*encoder.encode(av.VideoFrame.from_ndarray(values, format=pixels)), *encoder.encode(None)]
    data = b"".join(map(bytes, packets))
    text = [_png_text(key, value) for key, value in (metadata or {}).items()]
    return data[:PNG_START] + b"".join(_png_chunk(*chunk) for chunk in (*PNG_COLOUR, *text)) + data[PNG_START:]


def _png_text(key: str, value: str) -> tuple[bytes, bytes]:
    try:
        return b"tEXt", key.encode("latin-1") + b"\0" + value.encode("latin-1")
    except UnicodeEncodeError:
        return b"iTXt", key.encode("latin-1", "replace") + b"\0\0\0\0\0" + value.encode()


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
