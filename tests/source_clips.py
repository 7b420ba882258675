"""Clips as cameras, telephones and editors write them, and a VAE without weights that keeps what they show.

Pictures are four fields of one colour: red above left, green, blue below left, and a grey that tells the frame.
"""

import struct
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch.nn.functional import interpolate

from histream_core.video.reading import frames_of

COLOURS = {(0, 0): (0.8, 0.15, 0.1), (0, 1): (0.15, 0.7, 0.2), (1, 0): (0.1, 0.2, 0.75)}
"""The colour of each field by its row and column."""

NEAR = 0.035
"""How far a colour may be from its field's: the codec's error, and one or two of 256 levels for each rounding."""


@dataclass(frozen=True)
class Kind:
    """One way in which a clip is stored."""

    codec: str
    pixels: str
    suffix: str = ".mp4"
    matrix: str = "ITU709"
    """The matrix that its colours are converted with: ITU709 or ITU601."""
    code: int = 1
    """FFmpeg's code of that matrix, as tagged; 2 says nothing of it."""
    full: bool = False
    """Whether luma has all 256 levels, and not the 16 to 235 of video."""
    options: tuple[tuple[str, str], ...] = ()


SLIM = (("crf", "12"),)
KINDS = {
    "h264": Kind("libx264", "yuv420p", options=SLIM),
    "h264-bt601": Kind("libx264", "yuv420p", matrix="ITU601", code=6, options=SLIM),
    "h264-bt470bg": Kind("libx264", "yuv420p", matrix="ITU601", code=5, options=SLIM),
    "h264-full": Kind("libx264", "yuv420p", full=True, options=SLIM),
    "h264-bt601-full": Kind("libx264", "yuv420p", matrix="ITU601", code=6, full=True, options=SLIM),
    "h264-untagged": Kind("libx264", "yuv420p", matrix="ITU601", code=2, options=SLIM),
    "h264-10": Kind("libx264", "yuv420p10le", options=SLIM),
    "h265": Kind(
        "libx265", "yuv420p", options=(("crf", "12"), ("x265-params", "log-level=none:bframes=0:frame-threads=1"))
    ),
    "h265-10": Kind(
        "libx265", "yuv420p10le", options=(("crf", "12"), ("x265-params", "log-level=none:bframes=0:frame-threads=1"))
    ),
    "prores": Kind("prores_ks", "yuv422p10le", ".mov", options=(("profile", "hq"),)),
    "mjpeg": Kind("mjpeg", "yuvj420p", ".mov", matrix="ITU601", code=5, full=True, options=(("qmin", "1"), ("q", "1"))),
}


def grey(index: int, num_frames: int) -> float:
    """The grey of the fourth field in frame `index`."""
    return 0.2 + 0.6 * index / max(1, num_frames)


def fields(index: int, num_frames: int, height: int, width: int) -> np.ndarray:
    """A picture [H, W, 3] in [0, 1]."""
    picture = np.full((height, width, 3), grey(index, num_frames), np.float32)
    for (row, column), colour in COLOURS.items():
        rows, columns = slice(row * height // 2, (row + 1) * height // 2), slice(column * width // 2, None)
        picture[rows, columns if column else slice(0, width // 2)] = colour
    return picture


def write_clip(folder, kind, count, *, size=(64, 32), fps=Fraction(16), turned=False, sound=None):
    """A clip of fields in the file clip.SUFFIX; `turned` stores it lying, with a quarter turn in the header."""
    import av
    from av.video.reformatter import ColorRange, Colorspace

    path, rate = folder / f"clip{kind.suffix}", Fraction(fps).limit_denominator(1001)
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(kind.codec, rate=rate, options=dict(kind.options))
        stream.width, stream.height = size if not turned else (height, width)
        stream.pix_fmt = kind.pixels
        context = stream.codec_context
        context.color_range = 2 if kind.full else 1
        context.colorspace = context.color_primaries = context.color_trc = kind.code
        track = av.open(str(sound)) if sound else None
        copied = container.add_stream_from_template(track.streams.audio[0]) if track else None
        for index in range(count):
            picture = fields(index, count, height, width)
            picture = np.rot90(picture, 1) if turned else picture
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray((picture * 255).round().astype(np.uint8)))
            frame = frame.reformat(
                format=kind.pixels,
                src_color_range=ColorRange.JPEG,
                dst_colorspace=Colorspace[kind.matrix],
                dst_color_range=ColorRange.JPEG if kind.full else ColorRange.MPEG,
            )
            frame.colorspace, frame.color_range = kind.code, 2 if kind.full else 1
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track:
            for packet in track.demux(track.streams.audio[0]):
                if packet.size:
                    packet.stream = copied
                    container.mux(packet)
            track.close()
    if turned:
        turn(path)
    return path


def turn(path):
    """Put a quarter turn into the header of an MP4 or MOV, as telephones write it."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd", data.index(b"moov")) + 4 + 40
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def check_fields(path, count, near=NEAR):
    """Each frame of a video shows the fields, upright, in their colours and in order."""
    found = 0
    for index, frame in enumerate(frames_of(path)):
        height, width = frame.shape[:2]
        for row in range(2):
            for column in range(2):
                y, x = height * (1 + 2 * row) // 4, width * (1 + 2 * column) // 4
                seen = frame[y - 4 : y + 4, x - 4 : x + 4].mean((0, 1))
                wanted = COLOURS.get((row, column), (grey(index, count),) * 3)
                assert (seen - torch.tensor(wanted)).abs().max() < near, (index, row, column, seen, wanted)
        found += 1
    assert found == count


class BlockEncoder:
    """Keeps the averages of 8x8 pixels of four frames in 12 of 16 channels; in the place of `StreamingEncoder`."""

    def __init__(self, vae, *, normalised=True):
        self.begun = False

    def encode(self, pixels):
        small = interpolate(pixels[0].transpose(0, 1), scale_factor=1 / 8, mode="area")  # [F, 3, h, w]
        if not self.begun:
            small = torch.cat([small[:1].expand(3, -1, -1, -1), small])
            self.begun = True
        groups = small.reshape(-1, 12, *small.shape[2:]).transpose(0, 1)[None]
        return torch.cat([groups, groups.new_zeros(1, 4, *groups.shape[2:])], dim=1)


class BlockDecoder:
    """Makes pictures of what `BlockEncoder` kept; in the place of a decoder."""

    memory_frames = cache_bytes = 0

    def __init__(self, vae, **_):
        self.vae = vae
        self.reset()

    def reset(self):
        self.begun = False

    def warm_up(self, latents, *, start):
        self.begun = True

    def decode(self, latents):
        frames = latents[0, :12].transpose(0, 1).reshape(-1, 3, *latents.shape[-2:])
        if not self.begun:
            frames = frames[3:]
            self.begun = True
        return interpolate(frames, scale_factor=8, mode="nearest").transpose(0, 1)[None]

    def snapshot(self):
        return {}

    def restore(self, snapshot, latents):
        self.begun = True


def keep_blocks(monkeypatch):
    """Let every run encode and decode with the two above."""
    monkeypatch.setattr("histream_core.runs.restyle.StreamingEncoder", BlockEncoder)
    monkeypatch.setattr("histream_core.vae.decoders.open_decoder", BlockDecoder)
