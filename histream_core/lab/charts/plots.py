"""Plots as SVG files, drawn with matplotlib: means with intervals, values over time, lines and bars.

Every function returns the bytes of a file. Text stays text, equal values give equal bytes, and the
marks of an arm have its name as their id.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..judge.bootstrap import Estimate

WIDTH = 7.0
"""In inches, as all heights here."""
ARM_HEIGHT, ROW_GAP = 0.14, 0.12
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "histream",
    "font.family": "sans-serif",
    "font.size": 9,
}
OURS, THEIRS = "#2563eb", "#6b7280"
COLOURS = (OURS, "#dc2626", THEIRS, "#16a34a", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f", "#1e293b")
GRID = "#e5e7eb"


def interval_plot(title: str, arms: Mapping[str, Mapping[str, Estimate]]) -> bytes:
    """Means and 95% intervals of scores in [0, 1]; all arms have the same scores, in the same order."""
    names = list(next(iter(arms.values())))
    row = ARM_HEIGHT * len(arms) + ROW_GAP
    figure, (axes,) = _figure(title, height=1.2 + row * len(names))
    for place, (arm, scores) in enumerate(arms.items()):
        shift = (place + 0.5 - len(arms) / 2) * ARM_HEIGHT / row
        rows = [number + shift for number in range(len(names))]
        lows, means, highs = ([getattr(scores[name], part) for name in names] for part in ("low", "mean", "high"))
        axes.hlines(rows, lows, highs, color=colour(place), linewidth=1)
        axes.plot(means, rows, "o", markersize=3.5, color=colour(place), label=arm, gid=_id(arm))
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.grid(axis="x", color=GRID)
    _legend(figure, axes)
    return _svg(figure)


def course_plot(title: str, names: Sequence[str], arms: Mapping[str, Sequence[Sequence[Mapping[str, float]]]]) -> bytes:
    """Amounts of 0 and more over time: a panel for each of `names`, a line for each video.

    `arms` holds the videos of each arm, a video the values of its stretches under their names, and "seconds".
    """
    figure, panels = _figure(title, height=1.0 + 1.4 * len(names), panels=len(names))
    for axes, name in zip(panels, names, strict=True):
        for place, (arm, videos) in enumerate(arms.items()):
            for number, video in enumerate(videos):
                seconds, values = ([stretch[key] for stretch in video] for key in ("seconds", name))
                style = {"linewidth": 1, "color": colour(place), "label": None if number else arm}
                axes.plot(seconds, values, gid=_id(arm, name, number), **style)
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
        axes.grid(color=GRID)
    panels[-1].set_xlabel("seconds")
    _legend(figure, panels[0])
    return _svg(figure)


def line_plot(title: str, steps: Sequence[object], arms: Mapping[str, Sequence[float]]) -> bytes:
    """Amounts of 0 and more at evenly spaced `steps`; the legend has the first and the last value of each arm."""
    figure, (axes,) = _figure(title, height=3.6)
    for place, (arm, values) in enumerate(arms.items()):
        label = f"{arm}: {values[0]:.1f} to {values[-1]:.1f}"
        axes.plot(range(len(steps)), values, marker="o", markersize=3.5, color=colour(place), label=label)
    axes.set_xticks(range(len(steps)), [str(step) for step in steps])
    axes.set_ylim(bottom=0)
    axes.grid(color=GRID)
    _legend(figure, axes, columns=2)
    return _svg(figure)


def bar_plot(title: str, amounts: Mapping[str, float]) -> bytes:
    """A bar for each amount above 0 on a logarithmic scale; the names of our own begin with "ours"."""
    figure, (axes,) = _figure(title, height=0.9 + 0.26 * len(amounts))
    colours = [OURS if name.startswith("ours") else THEIRS for name in amounts]
    bars = axes.barh(range(len(amounts)), list(amounts.values()), color=colours)
    axes.bar_label(bars, [f"{amount:.4g}" for amount in amounts.values()], padding=3)
    axes.set_yticks(range(len(amounts)), list(amounts))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(min(amounts.values()) / 1.6, max(amounts.values()) * 2.5)
    axes.invert_yaxis()
    return _svg(figure)


def colour(place: int) -> str:
    """The colour of the arm at a place, from 0."""
    return COLOURS[place % len(COLOURS)]


def _id(*words: object) -> str:
    """The id of an element of the file."""
    return "-".join(map(str, words)).replace(" ", "-")


def _figure(title: str, *, height: float, panels: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """A figure with panels below each other that share the horizontal axis."""
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = list(figure.subplots(panels, sharex=True, squeeze=False)[:, 0])
        for one in axes:
            one.spines[["top", "right"]].set_visible(False)
        figure.suptitle(title, fontsize=10)
    return figure, axes


def _legend(figure: Figure, axes: Axes, columns: int = 4) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), frameon=False)


def _svg(figure: Figure) -> bytes:
    out = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()
