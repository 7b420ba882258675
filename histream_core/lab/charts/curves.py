"""Means with their intervals, courses over time, lines and bars as pictures in SVG, written by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import log10

from ..judge.bootstrap import Estimate

LEFT, WIDTH, RIGHT = 130, 480, 50
HEAD, STEP, GAP = 44, 11, 10
PANEL, PANEL_GAP = 110, 26
LINE_HEIGHT, BAR = 200, 22
COLOURS = ("#2563eb", "#dc2626", "#6b7280", "#16a34a")


def interval_plot(title: str, arms: Mapping[str, Mapping[str, Estimate]]) -> str:
    """The picture for scores in [0, 1]: all arms have the same scores, in the same order."""
    names = list(next(iter(arms.values())))
    row = STEP * len(arms) + GAP
    height = HEAD + row * len(names) + 24
    lines = [
        *_head(height),
        _text(8, 16, title),
        *_legend(list(arms)),
        *_axis(height),
    ]
    for number, name in enumerate(names):
        top = HEAD + number * row
        lines.append(_text(8, top + row / 2, name.replace("_", " ")))
        for place, scores in enumerate(arms.values()):
            lines += _whisker(scores[name], top + GAP / 2 + (place + 0.5) * STEP, COLOURS[place % len(COLOURS)])
    return "\n".join([*lines, "</svg>", ""])


def _x(value: float) -> float:
    return LEFT + value * WIDTH


def _legend(names: list[str]) -> Iterator[str]:
    for place, name in enumerate(names):
        left = LEFT + place * WIDTH / len(names)
        yield f'<circle cx="{left:.1f}" cy="30" r="4" fill="{COLOURS[place % len(COLOURS)]}"/>'
        yield _text(left + 8, 34, name)


def _axis(height: float) -> Iterator[str]:
    for tenth in range(0, 11, 2):
        x = _x(tenth / 10)
        yield f'<line x1="{x:.1f}" y1="{HEAD}" x2="{x:.1f}" y2="{height - 20}" stroke="#e5e7eb"/>'
        yield _text(x - 8, height - 6, f"{tenth / 10:.1f}")


def _whisker(one: Estimate, y: float, colour: str) -> Iterator[str]:
    yield f'<line x1="{_x(one.low):.1f}" y1="{y:.1f}" x2="{_x(one.high):.1f}" y2="{y:.1f}" stroke="{colour}"/>'
    yield f'<circle cx="{_x(one.mean):.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'


def _text(x: float, y: float, words: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def course_plot(title: str, names: Sequence[str], arms: Mapping[str, Sequence[Sequence[Mapping[str, float]]]]) -> str:
    """How amounts in [0, 1] go over time, a panel for each of `names` and a line for each video.

    `arms` holds the videos of each arm, a video the values of its stretches under their names, and "seconds".
    """
    height = HEAD + len(names) * (PANEL + PANEL_GAP)
    end = max(stretch["seconds"] for videos in arms.values() for video in videos for stretch in video) or 1.0
    lines = [
        *_head(height),
        _text(8, 16, title),
        *_legend(list(arms)),
    ]
    for number, name in enumerate(names):
        top = HEAD + number * (PANEL + PANEL_GAP)
        most = max(stretch[name] for videos in arms.values() for video in videos for stretch in video) or 1.0
        lines.append(f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{PANEL}" fill="none" stroke="#e5e7eb"/>')
        lines += [_text(8, top + PANEL / 2, name), _text(LEFT - 44, top + 10, f"{most:.3f}")]
        lines.append(_text(LEFT + WIDTH - 40, top + PANEL + 14, f"{end:.0f} s"))
        for place, videos in enumerate(arms.values()):
            for video in videos:
                points = " ".join(
                    f"{_x(stretch['seconds'] / end):.1f},{top + PANEL * (1 - stretch[name] / most):.1f}"
                    for stretch in video
                )
                colour = COLOURS[place % len(COLOURS)]
                lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
    return "\n".join([*lines, "</svg>", ""])


def line_plot(title: str, steps: Sequence[object], arms: Mapping[str, Sequence[float]]) -> str:
    """Amounts from 0 upwards at evenly spaced `steps`, a line and its last value for each arm."""
    height = HEAD + LINE_HEIGHT + 16 * len(arms) + 30
    bottom, most = HEAD + LINE_HEIGHT, max(value for values in arms.values() for value in values)
    lines = [*_head(height), _text(8, 16, title)]
    across = [LEFT + WIDTH * place / (len(steps) - 1) for place in range(len(steps))]
    lines.append(f'<rect x="{LEFT}" y="{HEAD}" width="{WIDTH}" height="{LINE_HEIGHT}" fill="none" stroke="#e5e7eb"/>')
    lines += [_text(x - 4 * len(str(step)), bottom + 16, str(step)) for x, step in zip(across, steps, strict=True)]
    lines += [_text(LEFT - 60, HEAD + 10, f"{most:.0f}"), _text(LEFT - 60, bottom, "0")]
    for place, (name, values) in enumerate(arms.items()):
        colour, y = COLOURS[place % len(COLOURS)], bottom + 36 + 16 * place
        heights = [bottom - LINE_HEIGHT * value / most for value in values]
        points = " ".join(f"{x:.1f},{height:.1f}" for x, height in zip(across, heights, strict=True))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines.append(f'<circle cx="{LEFT}" cy="{y - 4}" r="4" fill="{colour}"/>')
        lines.append(_text(LEFT + 10, y, f"{name}: {values[0]:.1f} to {values[-1]:.1f}"))
    return "\n".join([*lines, "</svg>", ""])


def bar_plot(title: str, amounts: Mapping[str, float]) -> str:
    """A bar for each amount above 0, its length by the logarithm."""
    height = HEAD + BAR * len(amounts)
    least, most = log10(min(amounts.values())) - 0.2, log10(max(amounts.values()))
    lines = [*_head(height), _text(8, 16, title)]
    for place, (name, amount) in enumerate(amounts.items()):
        y, width = HEAD - 10 + BAR * place, (WIDTH - 170) * (log10(amount) - least) / (most - least)
        colour = COLOURS[0] if name.startswith("ours") else COLOURS[2]
        lines.append(_text(8, y + 11, name))
        lines.append(f'<rect x="{LEFT + 120}" y="{y}" width="{width:.1f}" height="{BAR - 8}" fill="{colour}"/>')
        lines.append(_text(LEFT + 126 + width, y + 11, f"{amount:.4g}"))
    return "\n".join([*lines, "</svg>", ""])


def _head(height: float) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
