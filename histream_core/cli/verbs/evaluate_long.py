"""`histream eval --demo --minutes M`: drift of long videos, with the anchor and without, kept in a folder."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from ... import demo
from ...files.disk import check_folder, write_whole
from ...lab.charts import check_packages
from ...lab.judge.ablations import BASE, Ablation, ablations
from ...lab.judge.bootstrap import estimate
from ...lab.judge.long import (
    DRIFTS,
    PARTS,
    WINDOW,
    Reading,
    course,
    drifts,
    line_of,
    read_chunk,
    readings_of,
    run_chunks,
)
from ...lab.judge.prompts import DemoPrompt, draw_prompts
from ...lab.judge.records import Records, preset_settings
from ...lab.judge.scores import JUDGE
from ...plan.presets import Preset, find_preset
from ...plan.sizes import whole_length
from ...runs import clean, fingerprint_weights
from ...runs.weights import Weights
from ...video.pictures import write_png
from ..options.weights import pick_device

SHOWN_PARTS, STRETCHES, TILE = 10, 60, 96
PLOTTED = ("colour", "sharpness", "outline")


def run_minutes(args: argparse.Namespace) -> tuple[dict, str]:
    """Make the missing videos, then tables, plot and strips of all."""
    if not 0 < args.minutes < math.inf:
        raise ValueError(f"{args.minutes:g} minutes is no length: use 10")
    if args.out is None:
        raise ValueError("long videos need a folder: give one with --out")
    check_folder(args.out)
    check_packages("PIL", "matplotlib")
    asked = draw_prompts(args.prompts, args.seed)
    preset, size = find_preset(demo.PRESET), args.size or (demo.WIDTH, demo.HEIGHT)
    rows = pick_rows(args, preset, size)
    torch.set_num_threads(1)
    device, encoder = pick_device(args.device), demo.load_text_encoder()
    weights = Weights(demo.load_transformer().to(device), demo.load_vae().to(device), preset, device, torch.float32)
    settings = {name: getattr(args, name) for name in ("prompts", "seed", "minutes", "device")}
    settings |= {"size": list(size), "preset": preset_settings(preset), "text": fingerprint_weights(encoder)}
    settings |= {"judge": JUDGE, "model": fingerprint_weights(weights.model), "vae": fingerprint_weights(weights.vae)}
    records = Records(args.out, settings)
    for row in rows:
        for number, one in enumerate(asked):
            make_video(row, number, one, weights, encoder.encode(one.told), records)
    return write_drift_report(rows, asked, records)


def pick_rows(args: argparse.Namespace, preset: Preset, size: tuple[int, int]) -> list[Ablation]:
    """The requested rows. Raises ValueError for unknown arms and impossible sizes and lengths."""
    num_pixel_frames = whole_length(math.ceil(60 * args.minutes * demo.FPS))
    every = {row.name: row for row in ablations(preset, size=size, num_pixel_frames=num_pixel_frames)}
    for name in args.arms:
        if name not in every:
            raise ValueError(f"there is no arm {name}: use some of {', '.join(every)}")
    if len(every[BASE].plan.chunks) < 2:
        raise ValueError(f"{args.minutes:g} minutes are one chunk, and nothing can drift: use --minutes 10")
    return [row for name, row in every.items() if name in args.arms]


def make_video(row: Ablation, number: int, asked: DemoPrompt, weights: Weights, text: Tensor, records: Records) -> None:
    """Make the missing chunks of a video, and measure it chunk by chunk."""
    folder = records.folder / f"run-{row.name}-{number:05d}"
    chunks = measured_chunks(row)
    done = len(readings_of(records.lines(Reading)).get(row.name, {}).get(number, ()))
    shown = {round(place): part for part, place in enumerate(np.linspace(0, len(chunks) - 1, SHOWN_PARTS))}
    if done < len(chunks):
        with closing(run_chunks(weights, folder, row.plan, text, asked, done)) as clips:
            for chunk, frames in zip(chunks[done:], clips, strict=False):  # one more, cropped, may be left
                if chunk == 0:
                    records.keep_frames(f"{row.name}-first", number, frames[:WINDOW])
                if chunk in shown:
                    records.keep_frames(row.name, number, frames[:1], shown[chunk])
                reference = records.frames(f"{row.name}-first", number)
                if reference is None:
                    raise FileNotFoundError(
                        f"{records.folder} has lost the first frames of video {number + 1}: give another --out"
                    )
                seconds = row.plan.chunks[chunk].first_pixel_frame / demo.FPS
                records.append(line_of(read_chunk(row.name, number, chunk, seconds, frames, reference, asked)))
                sys.stderr.write(f"{row.name} {number + 1}: chunk {chunk + 1}/{len(chunks)}\n")
                sys.stderr.flush()
    if folder.is_dir():
        clean(folder)


def measured_chunks(row: Ablation) -> range:
    """Indices of the chunks that are long enough to be measured; a cropped last chunk is not."""
    last = row.plan.chunks[-1]
    kept = 4 * (row.plan.num_latent_frames - last.frames.start)
    return range(len(row.plan.chunks) - (kept < WINDOW))


def write_drift_report(rows: Sequence[Ablation], asked: Sequence[DemoPrompt], records: Records) -> tuple[dict, str]:
    """Write table, plot and strips into the folder; return the figures and the table."""
    from ...lab.charts.contact_sheet import contact_sheet
    from ...lab.charts.plots import course_plot

    made, folder = readings_of(records.lines(Reading)), records.folder
    plan = rows[0].plan
    width, height = plan.size
    result = {
        "prompts": [one.prompt for one in asked],
        "frames": plan.num_pixel_frames,
        "width": width,
        "height": height,
        "arms": {row.name: figures(made[row.name]) | {"what": row.what} for row in rows},
    }
    text = "\n".join(markdown(result))
    write_whole(folder / "drift.md", f"{text}\n".encode())
    write_whole(folder / "drift.json", json.dumps(result, indent=1).encode())
    title = f"{plan.num_pixel_frames / demo.FPS / 60:.3g} minutes of {width}x{height}: change from the first tenth on"
    courses = {row.name: [course(readings, STRETCHES) for readings in made[row.name].values()] for row in rows}
    write_whole(folder / "drift.svg", course_plot(title, PLOTTED, courses))
    strips = [
        (f"{row.name}: {one.prompt}", [frame[0] for frame in frames])
        for row in rows
        for number, one in enumerate(asked)
        if (frames := [x for part in range(SHOWN_PARTS) if (x := records.frames(row.name, number, part)) is not None])
    ]
    write_png(folder / "drift.png", contact_sheet(strips, width=TILE))
    return result, text


def figures(videos: Mapping[int, Sequence[Reading]]) -> dict:
    """Drift of each video, with means and 95% intervals over the videos."""
    each = [drifts(readings) for _, readings in sorted(videos.items())]
    means = {name: estimate([one[name] for one in each]) for name in DRIFTS}
    return {
        "videos": each,
        **{name: one.mean for name, one in means.items()},
        "intervals": {name: [one.low, one.high] for name, one in means.items()},
        "parts": [course(readings, PARTS) for _, readings in sorted(videos.items())],
    }


def markdown(result: Mapping) -> Iterator[str]:
    """Yield the figures as a table, line by line."""
    seconds = result["frames"] / demo.FPS
    size = f"{result['width']}x{result['height']}"
    yield f"{len(result['prompts'])} videos an arm, {result['frames']} frames ({seconds / 60:.3g} minutes) of {size}."
    yield "From the first tenth to the last; means with 95% bootstrap intervals."
    yield ""
    yield f"| | {' | '.join(result['arms'])} |"
    yield f"|---{'|---' * len(result['arms'])}|"
    for name, what in DRIFTS.items():
        cells = (
            f"{one[name]:.3f} [{one['intervals'][name][0]:.3f}, {one['intervals'][name][1]:.3f}]"
            for one in result["arms"].values()
        )
        yield f"| {name.replace('_', ' ')}: {what} | {' | '.join(cells)} |"
