"""`histream eval --demo --tables`: the papers' tables on the bundled model, kept in a folder clip by clip."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ... import demo
from ...files.disk import check_folder, write_whole
from ...lab.charts import check_packages, pick
from ...lab.judge.ablations import STUDENT, TEACHER, UNTUNED, Ablation, ablations, twins
from ...lab.judge.batches import make_records
from ...lab.judge.judge import LAG
from ...lab.judge.prompts import DemoPrompt, draw_prompts
from ...lab.judge.records import Records, preset_settings
from ...lab.judge.scores import JUDGE
from ...lab.judge.tables import clips_csv, markdown, means, summary
from ...lab.judge.teacher import Solver
from ...plan.presets import Preset, find_preset
from ...runs import fingerprint_weights
from ...runs.weights import Weights
from ...video.pictures import write_png
from ..options.weights import pick_device

SHEET_CLIPS, MOMENTS, TILE = 4, 4, 96
PLOTTED = ("shape", "direction", "size", "speed")


@dataclass(frozen=True)
class Network:
    """Weights of one kind, with the text embeddings [N, tokens, channels] of all prompts."""

    weights: Weights
    texts: Tensor
    fingerprints: dict[str, str]


def run_tables(args: argparse.Namespace) -> tuple[dict, str]:
    """Make the missing clips, then the tables of all."""
    check_packages("PIL", "matplotlib")
    asked = draw_prompts(args.prompts, args.seed)
    preset, size = find_preset(demo.PRESET), args.size or (demo.WIDTH, demo.HEIGHT)
    rows = pick_rows(args, preset, size)
    same = twins(rows)
    against = args.against or args.mode
    if against not in [row.name for row in rows]:
        names = ", ".join(row.name for row in rows)
        raise ValueError(f"{against} is not among the arms: give --against one of {names}")
    torch.set_num_threads(1)
    networks = load_networks(args, preset, [one.told for one in asked])
    records = Records(args.out, settings_of(args, preset, size, networks))
    for row in rows:
        if row.name not in same:
            make_row(row, networks[row.weights], asked, records, args.batch)
    return write_tables(rows, same, asked, records, networks, against)


def pick_rows(args: argparse.Namespace, preset: Preset, size: tuple[int, int]) -> list[Ablation]:
    """The requested rows. Raises ValueError or OSError for options that cannot work."""
    if args.out is None:
        raise ValueError("the tables need a folder: give one with --out")
    check_folder(args.out)
    if args.frames <= LAG:
        raise ValueError(f"motion cannot be read from {args.frames} frames: use --frames {LAG + 1} or more")
    if args.batch < 1:
        raise ValueError(f"{args.batch} clips at once are none: use --batch 1")
    solver = None
    if args.teacher:
        solver = Solver(args.teacher_steps, args.teacher_low, args.guidance, args.teacher_shift)
    for path in (args.teacher, args.untuned):
        if path:
            text_beside(path)
    every = list(
        ablations(
            preset,
            size=size,
            num_pixel_frames=args.frames,
            base=args.mode,
            solver=solver,
            untuned=bool(args.untuned),
        )
    )
    names = [row.name for row in every]
    for name in args.arms or ():
        if name not in names:
            hint = f", and {name} with --{name} FILE" if name in (TEACHER, UNTUNED) else ""
            raise ValueError(f"there is no arm {name}: use some of {', '.join(names)}{hint}")
    return [row for row in every if not args.arms or row.name in args.arms]


def text_beside(path: Path) -> Path:
    """Path of the text encoder beside a transformer. Raises FileNotFoundError where either file is missing."""
    text = path.with_name(demo.TEXT_PATH.name)
    for file in (path, text):
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist: give a transformer with its {text.name} beside it")
    return text


def load_networks(args: argparse.Namespace, preset: Preset, prompts: Sequence[str]) -> dict[str, Network]:
    """Networks by kind of weights; all share the bundled VAE."""
    device, vae = pick_device(args.device), demo.load_vae()
    vae.to(device)
    files = {STUDENT: None, TEACHER: args.teacher, UNTUNED: args.untuned}
    found = {}
    for kind, path in files.items():
        if path or kind == STUDENT:
            model, encoder = demo.load_transformer(path), demo.load_text_encoder(path and text_beside(path))
            fingerprints = {kind: fingerprint_weights(model), f"{kind} text": fingerprint_weights(encoder)}
            texts = encoder.encode(prompts)
            found[kind] = Network(Weights(model.to(device), vae, preset, device, torch.float32), texts, fingerprints)
    return found


def settings_of(
    args: argparse.Namespace, preset: Preset, size: tuple[int, int], networks: Mapping[str, Network]
) -> dict[str, object]:
    """Settings that must be equal to go on with a folder; arms and weights may be added later."""
    settings = {name: getattr(args, name) for name in ("prompts", "seed", "frames", "batch", "device")}
    settings |= {"size": list(size), "preset": preset_settings(preset), "judge": JUDGE}
    settings["vae"] = fingerprint_weights(networks[STUDENT].weights.vae)
    if args.teacher:
        solver = (args.teacher_steps, args.teacher_low, args.guidance, args.teacher_shift)
        settings["teacher's steps, of them low, guidance, shift"] = list(solver)
    for network in networks.values():
        settings |= network.fingerprints
    return settings


def make_row(row: Ablation, network: Network, asked: Sequence[DemoPrompt], records: Records, batch: int) -> None:
    """Make the missing clips of a row; the limits of batches do not depend on which are missing."""
    done = records.read().get(row.name, {})
    for start in range(0, len(asked), batch):
        numbers = range(start, min(start + batch, len(asked)))
        if all(number in done for number in numbers):
            continue
        texts = network.texts[numbers.start : numbers.stop]
        for record, pictures in make_records(row, network.weights, texts, [(n, asked[n]) for n in numbers]):
            if record.number not in done:
                strip = pick(pictures, MOMENTS) if record.number in sheet_prompts(len(asked)) else None
                records.add(record, strip)
        sys.stderr.write(f"{row.name} {numbers.stop}/{len(asked)}\n")
        sys.stderr.flush()


def sheet_prompts(count: int) -> list[int]:
    """Numbers of the prompts on the contact sheet: as many seen as held-out ones."""
    half = SHEET_CLIPS // 2
    held_out = count - count // 2
    return [n for n in (*range(half), *range(held_out, held_out + half)) if n < count]


def write_tables(
    rows: Sequence[Ablation],
    same: Mapping[str, str],
    asked: Sequence[DemoPrompt],
    records: Records,
    networks: Mapping[str, Network],
    against: str,
) -> tuple[dict, str]:
    """Write tables, CSV, plot and contact sheet into the folder; return the figures and the tables."""
    from ...lab.charts.contact_sheet import contact_sheet
    from ...lab.charts.plots import interval_plot

    made, folder = records.read(), records.folder
    configs = {kind: network.weights.model.config for kind, network in networks.items()}
    width, height = rows[0].plan.size
    about = {"prompts": len(asked), "frames": rows[0].plan.num_pixel_frames, "width": width, "height": height}
    result = about | summary(rows, made, same, configs, against)
    title = f"{len(asked)} prompts, {about['frames']} frames of {width}x{height}"
    text = "\n".join(markdown(result, title))
    write_whole(folder / "tables.md", f"{text}\n".encode())
    write_whole(folder / "tables.json", json.dumps(result, indent=1).encode())
    write_whole(folder / "clips.csv", clips_csv(rows, made, asked).encode())
    own = {row.name: means(made[row.name]) for row in rows if row.name not in same}
    plotted = {score: {name: found[score] for name, found in own.items()} for score in PLOTTED}
    write_whole(folder / "plot.svg", interval_plot(f"{title}: means and 95% intervals", plotted))
    strips = [
        (f"{name}: {asked[number].prompt}", list(strip))
        for name in own
        for number in sheet_prompts(len(asked))
        if (strip := records.frames(name, number)) is not None
    ]
    write_png(folder / "sheet.png", contact_sheet(strips, columns=len(sheet_prompts(len(asked))), width=TILE))
    return result, text
