"""Time, size and quality of encoders by preset, at 1920x1080.

    python benchmarks/encoders.py --frames 12 --repeats 3

A clip of a disc that moves over a gradient, with film grain (2 % of full scale) and without, is written as each format
with each preset of its encoder. Lines of JSON: process time of all threads relative to the preset in use (medians of
repeats, taken in turns), bytes relative to it, and PSNR in dB of luma. It makes the table of docs/performance.md.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from histream_core.video.formats import Format, find_format
from histream_core.video.pixels import Leaving
from histream_core.video.writers import form_of, open_writer

SIZE = (1920, 1080)

PRESETS = {
    ("h264-mp4", 8): ("medium", "faster", "veryfast", "superfast", "ultrafast"),
    ("h265-mkv", 10): ("fast", "veryfast", "superfast", "ultrafast"),
    ("av1-mkv", 10): ("8", "10", "12"),
}
"""Presets by format and depth; the first one is in use."""


def clip(num_frames: int, *, grain: float) -> Tensor:
    """Frames [F, H, W, 3] of a disc that moves over a gradient."""
    (width, height), noise = SIZE, torch.Generator().manual_seed(0)
    x, y = torch.linspace(0, 1, width), torch.linspace(0, 1, height)[:, None]
    ground = torch.stack([0.2 + 0.5 * x + 0 * y, 0.3 + 0.4 * y + 0 * x, 0.6 - 0.3 * x * y], dim=-1)
    frames = []
    for index in range(num_frames):
        inside = (x - 0.3 - 0.01 * index) ** 2 + ((y - 0.5) * height / width) ** 2 < 0.02
        frame = torch.where(inside[..., None], torch.tensor([0.8, 0.3, 0.2]), ground)
        frames.append(frame + grain * torch.randn(frame.shape, generator=noise))
    return torch.stack(frames).clamp_(0, 1)


def written(path: Path, format: Format, frames: Leaving) -> float:
    """Seconds of process time that a file takes, from planes that are there."""
    start = time.process_time()
    with open_writer(path, format, size=SIZE) as writer:
        writer.write(frames)
    return time.process_time() - start


def luma_psnr(path: Path, frames: Leaving, depth: int) -> float:
    """PSNR in dB of the luma of a file against the planes that it was written from."""
    import av

    squares = []
    with av.open(str(path)) as container:
        for picture, planes in zip(container.decode(video=0), frames, strict=True):
            values = np.frombuffer(picture.planes[0], np.uint8 if depth == 8 else np.uint16)
            luma = values.reshape(picture.height, -1)[:, : picture.width]
            squares.append(((luma.astype(float) - planes[0]) ** 2).mean())
    return 10 * np.log10(((1 << depth) - 1) ** 2 / np.mean(squares))


def rows(name: str, depth: int, frames: Tensor, repeats: int):
    """Yield a row for each preset of a format."""
    base, presets = find_format(name, depth), PRESETS[name, depth]
    formats = {p: replace(base, options=tuple({**dict(base.options), "preset": p}.items())) for p in presets}
    form = form_of(base, SIZE)
    assert form is not None
    leaving, seconds = Leaving(frames, form), {p: [] for p in presets}
    with tempfile.TemporaryDirectory() as folder:
        paths = {preset: Path(folder) / f"{preset}{base.suffix}" for preset in presets}
        for _ in range(repeats):
            for preset, format in formats.items():
                seconds[preset].append(written(paths[preset], format, leaving))
        first = presets[0]
        for preset in presets:
            yield {
                "preset": preset,
                "time": round(statistics.median(seconds[preset]) / statistics.median(seconds[first]), 2),
                "size": round(paths[preset].stat().st_size / paths[first].stat().st_size, 2),
                "psnr": round(luma_psnr(paths[preset], leaving, depth), 2),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    for grain in (0.02, 0.0):
        frames = clip(args.frames, grain=grain)
        for name, depth in PRESETS:
            for row in rows(name, depth, frames, args.repeats):
                sys.stdout.write(json.dumps({"format": name, "depth": depth, "grain": grain, **row}) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
