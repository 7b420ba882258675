"""Clips to write: smooth pictures with moving shapes, as the demo makes them; and what is really in a file."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from histream_core.video.formats import find_format
from histream_core.video.frames import unit_frame
from histream_core.video.pixels import to_uint8
from histream_core.video.reading import open_video
from histream_core.video.writers import open_writer

EDGE = 6.0  # pixels from one colour to the next


def shapes(num_frames: int, height: int, width: int) -> torch.Tensor:
    """A disc and a box that move over a gradient, [F, H, W, 3] in [0, 1]."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    frames = np.empty((num_frames, height, width, 3), np.float32)
    for index in range(num_frames):
        way = index / num_frames
        picture = np.stack([0.2 + 0.6 * x / width, 0.3 + 0.5 * y / height, 0.5 - 0.3 * x / width], axis=-1)
        disc = np.hypot(x - width * (0.2 + 0.6 * way), y - height / 2) - height * 0.2
        box = np.maximum(abs(x - width * 0.7) - width * 0.1, abs(y - height * (0.2 + 0.4 * way)) - height * 0.12)
        for distance, colour in ((disc, (0.85, 0.2, 0.15)), (box, (0.1, 0.3, 0.8))):
            cover = np.clip(0.5 - distance / EDGE, 0, 1)[..., None]
            picture = picture * (1 - cover) + cover * np.array(colour, np.float32)
        frames[index] = picture
    return torch.from_numpy(frames)


def psnr(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Decibels for pictures in [0, 1]."""
    return float(-10 * torch.log10(torch.mean((got.double() - expected.double()) ** 2)))


@dataclass(frozen=True)
class VideoInfo:
    """Content of a video file; frames are counted by decoding them."""

    num_frames: int
    width: int
    height: int
    fps: float
    codec: str
    pix_fmt: str

    @property
    def seconds(self) -> float:
        return self.num_frames / self.fps


def probe(path: str | Path) -> VideoInfo:
    """Decode a video and say what it holds. Raises OSError or ValueError where it is not one."""
    with open_video(path) as container:
        stream = container.streams.video[0]
        count = sum(1 for _ in container.decode(stream))
        context = stream.codec_context
        return VideoInfo(
            count, context.width, context.height, float(stream.guessed_rate or 0), context.name, context.pix_fmt
        )


def read_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Yield the frames [H, W, 3] of a video, uint8. Raises OSError or ValueError where it is not one."""
    with open_video(path) as container:
        for frame in container.decode(container.streams.video[0]):
            yield to_uint8(unit_frame(frame)[None])[0]


def clip(folder, count, *, size=(32, 32), fps=16.0, format="h264-mp4", depth=None, sound=None):
    """A clip of moving shapes."""
    kind = find_format(format, depth)
    path = folder / f"clip{kind.suffix}"
    with open_writer(path, kind, size=size, fps=fps, sound=sound) as writer:
        writer.write(shapes(count, size[1], size[0]))
    return path


def encoded(path, times, **context):
    """A clip of grey frames at these times, in 24ths of a second, as other programs write it."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 99, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
