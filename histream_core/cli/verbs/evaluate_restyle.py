"""`histream eval --demo --v2v`: painted clips that the bundled model restyles, kept in a folder clip by clip."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ... import demo
from ...files.disk import check_folder, write_whole
from ...lab.judge.arms import untrained
from ...lab.judge.bootstrap import Estimate
from ...lab.judge.clip_score import ClipFeatures
from ...lab.judge.judge import LAG
from ...lab.judge.records import Records, preset_settings
from ...lab.judge.restyle import (
    BARS,
    MOTION_EVERY,
    NEAR,
    RESTYLED,
    Clips,
    Pair,
    RestyleArm,
    RestyleRecord,
    ablation_arms,
    below_bars,
    draw_pairs,
    record_of,
    restyle_estimates,
    restyle_groups,
    restyle_pair,
    score_restyled,
    strength_arms,
)
from ...lab.judge.scores import JUDGE
from ...lab.judge.video import MeasureSettings
from ...plan.presets import find_preset
from ...runs import fingerprint_weights
from ...runs.weights import Weights, load_demo
from ..options.weights import pick_device

FINE = {"warp_error": 5}
"""Decimals of a score in the table; of the others 3."""


def run_restyle_evaluation(args: argparse.Namespace) -> tuple[dict, str]:
    """Make the missing clips; the table of those that are there is written with each arm, at the end and on Ctrl-C."""
    pairs, arms = draw_pairs(args.prompts, args.seed), _arms(args)
    clip = ClipFeatures(args.clip) if args.clip else None
    torch.set_num_threads(1)
    weights, encoder = load_demo(pick_device(args.device)), demo.load_text_encoder()
    settings = {name: getattr(args, name) for name in ("prompts", "seed", "frames", "mode", "device")}
    settings |= {
        "evaluation": "restyled pairs",
        "size": [*arms[0].plan.size],
        "preset": preset_settings(weights.preset),
        "judge": JUDGE,
    }
    settings |= {**weights.fingerprint(), "text": fingerprint_weights(encoder)}
    settings |= {"clip": clip and fingerprint_weights(clip.model)}
    records = Records(args.out, settings)
    texts = encoder.encode([pair.asked.prompt for pair in pairs]).split(1)
    measured = MeasureSettings(MOTION_EVERY, encode=clip.picture) if clip else None
    found: tuple[dict, str] = {}, ""
    try:
        for arm in arms:
            _make(arm, weights, list(zip(texts, pairs, strict=True)), records, measured)
            found = _write(args, arms, pairs, records)
    except KeyboardInterrupt as stop:
        result, _ = _write(args, arms, pairs, records)
        raise KeyboardInterrupt(f"the table in {records.folder} has what was made; {_missing(result)}") from stop
    return found


def _make(
    arm: RestyleArm,
    weights: Weights,
    wanted: Sequence[tuple[Tensor, Pair]],
    records: Records,
    measured: MeasureSettings | None,
) -> None:
    """Make and score the clips of an arm that are missing; `wanted` has the prompt's embedding and the pair of each."""
    weights = untrained(weights) if arm.untrained else weights
    done = _read(records).get(arm.name, {})
    for number, (text, pair) in enumerate(wanted):
        if number not in done:
            frames = restyle_pair(arm, weights, text, pair)
            records.append(record_of(arm, number, *score_restyled(frames, pair, measured)))
            sys.stderr.write(f"{arm.name} {number + 1}/{len(wanted)}\n")
            sys.stderr.flush()


def _arms(args: argparse.Namespace) -> list[RestyleArm]:
    """The requested arms. Raises ValueError or OSError for options that cannot work."""
    if args.out is None:
        raise ValueError("restyled pairs need a folder: give one with --out")
    check_folder(args.out)
    if args.frames <= LAG:
        raise ValueError(f"motion cannot be read from {args.frames} frames: use --frames {LAG + 1} or more")
    clips = Clips(find_preset(demo.PRESET), args.mode, (demo.WIDTH, demo.HEIGHT), args.frames)
    if not args.tables:
        return strength_arms(clips, args.strength, controls=args.controls)
    if len(args.strength) > 1 or args.controls:
        raise ValueError("the ablation is made at one strength, without controls: give one --strength")
    return ablation_arms(clips, args.strength[0])


def _read(records: Records) -> dict[str, dict[int, RestyleRecord]]:
    """All records, by arm and number."""
    found: dict[str, dict[int, RestyleRecord]] = {}
    for record in records.lines(RestyleRecord):
        found.setdefault(record.arm, {})[record.number] = record
    return found


def _write(
    args: argparse.Namespace, arms: Sequence[RestyleArm], pairs: Sequence[Pair], records: Records
) -> tuple[dict, str]:
    """Write the table of the clips that are there into the folder; return its figures and its text."""
    made = _read(records)
    found = {
        arm.name: {
            kind: restyle_estimates(clips) for kind, clips in restyle_groups(made.get(arm.name, {}), pairs).items()
        }
        for arm in arms
    }
    lacking = {arm.name: len(pairs) - len(made.get(arm.name, {})) for arm in arms}
    about = {"prompts": args.prompts, "seed": args.seed, "mode": args.mode, "frames": arms[0].plan.num_pixel_frames}
    about |= {"missing": {name: count for name, count in lacking.items() if count}}
    result = about | {
        "arms": {
            arm.name: {"what": arm.what, **{kind: _values(one) for kind, one in found[arm.name].items()}}
            for arm in arms
        }
    }
    text = "\n".join(_lines(arms, found, about))
    write_whole(records.folder / "restyle.md", f"{text}\n".encode())
    write_whole(records.folder / "restyle.json", json.dumps(result, indent=1).encode())
    return result, text


def _missing(about: Mapping) -> str:
    """The words that say which clips are missing, and how they are made."""
    lacking = [f"{count} of {about['prompts']} clips of {name}" for name, count in about["missing"].items()]
    return f"missing: {', '.join(lacking)}; the same command makes them" if lacking else "no clip is missing"


def _values(found: Mapping[str, Estimate]) -> dict:
    return {
        **{name: round(one.mean, 6) for name, one in found.items()},
        **({"missed": below_bars(found)} if found else {}),
        "intervals": {name: [round(one.low, 6), round(one.high, 6)] for name, one in found.items()},
    }


def _lines(arms: Sequence[RestyleArm], found: Mapping, about: Mapping) -> Iterator[str]:
    """Yield the table in Markdown, line by line."""
    shown = [name for name in RESTYLED if any(name in found[arm.name]["all"] for arm in arms)]
    yield f"{about['prompts']} pairs, {about['frames']} frames, mode {about['mode']}, seed {about['seed']}:"
    yield "means with 95% bootstrap intervals over pairs"
    if about["missing"]:
        yield _missing(about)
    for kind in ("all", "seen", "held_out"):
        yield from ("", f"| {kind.replace('_', ' ')} | {' | '.join(shown)} |", f"|{' --- |' * (len(shown) + 1)}")
        for arm in arms:
            cells = (_cell(found[arm.name][kind].get(name), FINE.get(name, 3)) for name in shown)
            yield f"| {arm.name} | {' | '.join(cells)} |"
    bars = ", ".join((*(f"{name} {least:.2f} or more" for name, least in BARS.items()), f"distance {NEAR} or less"))
    yield from ("", f"Bars: {bars}.")
    yield from (f"- **{arm.name}**: {arm.what}; {_reached(found[arm.name]['all'])}" for arm in arms)
    yield from (f"- {name}: {RESTYLED[name]}" for name in shown)
    if "clip_reference" not in shown:
        yield "- CLIP score: not measured, give the folder of a CLIP with --clip"


def _reached(found: Mapping[str, Estimate]) -> str:
    if not found:
        return "no clip yet"
    missed = below_bars(found)
    return f"misses the bars of {', '.join(missed)}" if missed else "reaches all bars"


def _cell(one: Estimate | None, digits: int) -> str:
    if one is None:
        return "none"
    return f"{one.mean:.{digits}f} [{one.low:.{digits}f}, {one.high:.{digits}f}]"
