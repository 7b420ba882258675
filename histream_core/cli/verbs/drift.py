"""`histream drift`: colour, brightness and sharpness of a video over time."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ...lab.charts import check_packages
from ...lab.judge.drift_meter import describe_drift, meter
from ...video.pictures import write_png
from ...video.reading import frames_of, index_video
from ..options.common import check_files
from ..progress import follow


def run_drift(args: argparse.Namespace) -> tuple[dict, str]:
    """Measure the drift of every second."""
    if args.plot and args.plot.suffix.lower() != ".png":
        raise ValueError(f'"{args.plot.name}" is not a name for a PNG file: use {args.plot.stem or "drift"}.png')
    if args.plot:
        check_packages("PIL")
    check_files(args.plot, overwrite=args.overwrite)
    fps = float(index_video(args.video).rate)
    seconds = meter(follow(frames_of(args.video), f"{args.video.name} "), fps)
    said = describe_drift(seconds)
    if args.plot:
        from ...lab.charts.drift import drift_plot

        write_png(args.plot, drift_plot(seconds, args.video.name), overwrite=args.overwrite)
    lines = [
        f"{second.start:4} s  colour {second.colour:6.1%}  brightness {second.brightness:+6.1%}  "
        f"sharpness {second.sharpness:4.0%}"
        for second in seconds
    ]
    result = {"file": str(args.video), "fps": fps, "seconds": [asdict(second) for second in seconds], "summary": said}
    return result, "\n".join([*lines, said])
