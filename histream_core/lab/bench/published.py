"""Figures that StreamDiffusionV2 publishes (arXiv 2511.07399): data, not measured here."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = (1, 2, 3, 4)
GPUS = (1, 2, 3, 4)


@dataclass(frozen=True, slots=True)
class Published:
    """Frames per second of one model at one size on one kind of GPU, with stream batch."""

    name: str
    layers: int
    fps: tuple[tuple[float, ...], ...]
    """A row for each number of GPUs, a column for each number of denoising steps."""
    unbatched: tuple[float, ...] = ()
    """On one GPU without stream batch, a figure for each number of steps."""


PUBLISHED = (
    Published(
        "1.3B 480p H100",
        30,
        (
            (20.47, 17.97, 15.68, 13.95),
            (39.77, 34.67, 30.69, 27.06),
            (43.88, 43.79, 41.13, 38.09),
            (44.38, 43.41, 43.08, 42.26),
        ),
        (20.47, 15.50, 12.82, 10.86),
    ),
    Published(
        "1.3B 512x512 H100",
        30,
        (
            (26.21, 24.02, 21.51, 19.43),
            (51.76, 46.92, 41.09, 37.49),
            (63.45, 62.76, 56.75, 54.09),
            (64.52, 63.99, 62.43, 61.57),
        ),
        (26.21, 19.15, 15.14, 12.43),
    ),
    Published(
        "1.3B 480p 4090",
        30,
        (
            (8.58, 7.37, 6.27, 5.59),
            (16.59, 14.75, 13.06, 7.76),
            (16.66, 16.49, 16.17, 15.74),
            (16.64, 16.42, 15.97, 15.73),
        ),
    ),
    Published(
        "1.3B 512x512 4090",
        30,
        (
            (12.87, 11.76, 10.42, 7.87),
            (24.68, 22.13, 19.33, 17.98),
            (25.64, 25.03, 24.58, 24.22),
            (25.04, 24.77, 24.3, 23.97),
        ),
    ),
    Published(
        "14B 480p H100",
        40,
        (
            (12.68, 8.64, 6.49, 5.28),
            (25.39, 17.31, 13.23, 10.69),
            (37.55, 25.02, 19.12, 15.42),
            (39.24, 33.36, 25.02, 20.05),
        ),
    ),
    Published(
        "14B 512x512 H100",
        40,
        (
            (18.71, 13.01, 10.09, 8.26),
            (37.12, 25.72, 20.11, 16.65),
            (53.84, 37.47, 29.34, 24.35),
            (58.28, 51.09, 38.41, 31.62),
        ),
    ),
)
"""Figures 9 and 11; `unbatched` is figure 15. Two cells look like slips: 7.76 and 7.87."""

TTFF = {30: 0.36, 16: 0.47}
"""Figure 10: seconds to the first frame by frames per second of the source; 1.3B, 480p, H100, two steps."""

COMM = 3.0
"""Milliseconds from one GPU to the next: 40 to 120 for sequence parallelism, which is 20 to 40 times as much."""
