"""The papers' tables from records: means, paired differences and costs as plain values, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from ...network.model import WanConfig
from ...plan.sizes import pixel_frames
from .ablations import BASE, PAPER_SECONDS, PAPER_TOTAL, Ablation
from .bootstrap import Estimate, difference, estimate
from .prompts import DemoPrompt
from .records import Record
from .scores import SCORES
from .throughout import WORDS

ALL_WORDS = "words"
"""Name of the mean of a clip's four word scores."""

SHOWN = (ALL_WORDS, *WORDS, "held", "last_second", "outline", "size", "speed", "drift", "flicker")
FIRST = (ALL_WORDS, *WORDS, "size", "speed")
"""Scores that are also given for the first chunk alone."""

POINTS = 100

Made = Mapping[str, Mapping[int, Record]]
"""Records by arm and number."""


def values(clips: Mapping[int, Record], name: str, *, first: bool = False) -> dict[int, float]:
    """One score of every clip, by number; `first` takes that of the first chunk alone."""
    every = {number: clip.first if first else clip.scores for number, clip in clips.items()}
    if name == ALL_WORDS:
        return {number: float(np.mean([scores[word] for word in WORDS])) for number, scores in every.items()}
    return {number: scores[name] for number, scores in every.items()}


def means(clips: Mapping[int, Record], *, first: bool = False) -> dict[str, Estimate]:
    """Mean and interval of every score."""
    names = FIRST if first else (ALL_WORDS, *SCORES)
    return {name: estimate(list(values(clips, name, first=first).values())) for name in names}


def paired(ours: Mapping[int, Record], theirs: Mapping[int, Record], *, first: bool = False) -> dict[str, Estimate]:
    """Mean and interval of our scores minus theirs, over clips that both have. Raises ValueError for none."""
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        raise ValueError("there is no clip that both arms have made: let both be finished")
    names = FIRST if first else (ALL_WORDS, *SCORES)
    sides = {name: [values(side, name, first=first) for side in (ours, theirs)] for name in names}
    return {name: difference(*([side[n] for n in common] for side in both)) for name, both in sides.items()}


def seconds_per_frame(row: Ablation, clips: Mapping[int, Record]) -> dict[str, float]:
    """Median CPU seconds per pixel frame of network and VAE."""
    frames = row.plan.num_pixel_frames
    return {
        part: float(np.median([getattr(clip, f"{part}_s") for clip in clips.values()])) / frames
        for part in ("denoise", "decode")
    }


def summary(
    rows: Sequence[Ablation], made: Made, same: Mapping[str, str], configs: Mapping[str, WanConfig], against: str
) -> dict:
    """All figures as plain values. `same` is the result of `twins`; `configs` are by kind of weights."""
    found = {}
    for row in rows:
        clips = made[same.get(row.name, row.name)]
        mean, first = means(clips), means(clips, first=True)
        found[row.name] = {
            "what": row.what,
            "clips": len(clips),
            "same_as": same.get(row.name),
            **_plain(mean),
            "first_chunk": _plain(first),
            "ratios": {part: float(np.mean([getattr(c, part) for c in clips.values()])) for part in ("area", "speed")},
            "gflops_per_frame": row.flops_per_frame(configs[row.weights]) / 1e9,
            "seconds_per_frame": seconds_per_frame(row, clips),
            "paper_seconds_per_frame": PAPER_SECONDS.get(row.name),
            "paper_vbench_total": PAPER_TOTAL.get(row.name),
        }
    names = {row.name: same.get(row.name, row.name) for row in rows}
    less = {
        name: {
            **_plain(paired(made[source], made[names[against]])),
            "first_chunk": _plain(paired(made[source], made[names[against]], first=True)),
        }
        for name, source in names.items()
        if source != names[against]
    }
    return {"arms": found, "against": against, "difference": less}


def markdown(result: Mapping, title: str) -> Iterator[str]:
    """Yield the figures of `summary` as tables, line by line."""
    arms, against = result["arms"], result["against"]
    least, most = (pick(one["clips"] for one in arms.values()) for pick in (min, max))
    clips = f"{most} clips an arm" if least == most else f"{least} to {most} clips an arm"
    yield from (f"## {title}", "", f"{clips}. Means with 95% bootstrap intervals over prompts.", "")
    yield from _head("arm", *SHOWN)
    for name, one in arms.items():
        yield _line(name, *(_cell(one, score) for score in SHOWN))
    yield ""
    yield from (f"- **{name}**: {one['what']}{_shared(one)}" for name, one in arms.items())
    yield from ("", f"### Each arm less {against}, prompt by prompt, in points", "")
    yield from _head("arm", *SHOWN)
    for name, one in result["difference"].items():
        yield _line(name, *(_cell(one, score, points=True) for score in SHOWN))
    yield from ("", f"### The same of the first {pixel_frames(3)} frames alone", "")
    yield from _head("arm", *FIRST)
    for name, one in result["difference"].items():
        yield _line(name, *(_cell(one["first_chunk"], score, points=True) for score in FIRST))
    yield from _costs(arms)


def _costs(arms: Mapping) -> Iterator[str]:
    base = arms.get(BASE)
    yield from ("", "### What a frame costs", "")
    yield from _head("arm", "GFLOP", "of histream's", "network, s", "VAE, s", "of histream's network",
                     "paper, s at 1080p", "of HiStream's", "paper, VBench")  # fmt: skip
    for name, one in arms.items():
        seconds, paper = one["seconds_per_frame"], one["paper_seconds_per_frame"]
        yield _line(
            name,
            f"{one['gflops_per_frame']:.3g}",
            _ratio(one["gflops_per_frame"], base and base["gflops_per_frame"]),
            f"{seconds['denoise']:.3g}",
            f"{seconds['decode']:.3g}",
            _ratio(seconds["denoise"], base and base["seconds_per_frame"]["denoise"]),
            f"{paper:g}" if paper else "",
            _ratio(paper, PAPER_SECONDS[BASE]) if paper else "",
            f"{one['paper_vbench_total']:.2f}" if one["paper_vbench_total"] else "",
        )


def clips_csv(rows: Sequence[Ablation], made: Made, asked: Sequence[DemoPrompt]) -> str:
    """Comma-separated values, a line for each clip."""
    out = io.StringIO()
    firsts = [name for name in FIRST if name != ALL_WORDS]
    names = [
        "arm",
        "number",
        "prompt",
        *WORDS,
        *(f"seen_{word}" for word in WORDS),
        "held_out",
        "seed",
        "area",
        "speed",
    ]
    names += [*(f"score_{name}" for name in SCORES), *(f"first_{name}" for name in firsts), "denoise_s", "decode_s"]
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(names)
    for row in rows:
        for number, clip in sorted(made.get(row.name, {}).items()):
            one = asked[number]
            words = asdict(one.combination)
            cells = [row.name, number, one.prompt, *(words[word] for word in WORDS)]
            cells += [*(clip.seen[word] for word in WORDS), int(one.held_out), one.seed]
            figures = [clip.area, clip.speed, *(clip.scores[name] for name in SCORES)]
            figures += [*(clip.first[name] for name in firsts), clip.denoise_s, clip.decode_s]
            lines.writerow([*cells, *(f"{figure:.6f}" for figure in figures)])
    return out.getvalue()


def _plain(found: Mapping[str, Estimate]) -> dict:
    return {
        **{name: round(one.mean, 6) for name, one in found.items()},
        "intervals": {name: [round(one.low, 6), round(one.high, 6)] for name, one in found.items()},
    }


def _head(*names: str) -> Iterator[str]:
    yield _line(*names)
    yield _line(*["---"] * len(names))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(one: Mapping, name: str, *, points: bool = False) -> str:
    low, high = one["intervals"][name]
    if points:
        return f"{POINTS * one[name]:+.1f} [{POINTS * low:+.1f}, {POINTS * high:+.1f}]"
    return f"{one[name]:.3f} [{low:.3f}, {high:.3f}]"


def _ratio(value: float, base: float | None) -> str:
    return f"{value / base:.2f}" if base else ""


def _shared(one: Mapping) -> str:
    return f" (the same network calls as {one['same_as']} at this length)" if one["same_as"] else ""
