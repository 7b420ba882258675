"""Contact sheets: strips of frames with a line of text above each, drawn into one picture with Pillow.

Frames and sheets are [H, W, 3], uint8.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAPER = (24, 24, 24)
INK = (232, 232, 232)
GAP = 4
FONT_SIZE = 14
LINE_HEIGHT = 20
IN_ASCII = {
    0xD7: "x",
    0x2013: "-",
    0x2014: "-",
    0x2018: "'",
    0x2019: "'",
    0x201C: '"',
    0x201D: '"',
    0xDF: "ss",
    0xF8: "o",
}
"""Signs that Unicode takes for no variant of an ASCII one: times, dashes, quotes, sharp s, o with a stroke."""


@cache
def font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, at FONT_SIZE."""
    return ImageFont.load_default(FONT_SIZE)


def drawable(text: str) -> str:
    """The text in characters that `font` has: letters without their accents, "?" for those of other scripts."""
    plain = unicodedata.normalize("NFKD", text.translate(IN_ASCII))
    return "".join(c if c.isascii() else "?" for c in plain if not unicodedata.combining(c))


def text_width(text: str) -> int:
    """Pixels that a line of text takes, with a margin at both ends."""
    return GAP + int(font().getlength(drawable(text))) + GAP


def contact_sheet(
    strips: Iterable[tuple[str, Sequence[np.ndarray]]], *, title: str = "", columns: int = 1, width: int = 256
) -> np.ndarray:
    """Strips of (label, frames) as one picture, in `columns` columns from left to right, then down.

    Frames are shown at most `width` pixels wide. Raises ValueError where there is no strip, or a strip has no frame.
    """
    tiles = [_tile(label, frames, width) for label, frames in strips]
    if not tiles:
        raise ValueError("a contact sheet needs at least one strip")
    breadth, height = max(tile.width for tile in tiles), max(tile.height for tile in tiles)
    lines = wrap(title, columns * breadth)
    top, rows = LINE_HEIGHT * len(lines), -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * breadth, top + rows * height), PAPER)
    for number, line in enumerate(lines):
        _write(sheet, line, LINE_HEIGHT * number)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(tile, (column * breadth, top + row * height))
    return np.asarray(sheet)


def wrap(text: str, width: int) -> list[str]:
    """Lines of whole words that are at most `width` pixels wide, but for a single word that is wider."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines


def _tile(label: str, frames: Sequence[np.ndarray], width: int) -> Image.Image:
    if len(frames) == 0:
        raise ValueError(f'the strip "{label}" has no frame')
    pictures = [_shrink(frame, width) for frame in frames]
    breadth = sum(picture.width + GAP for picture in pictures)
    height = LINE_HEIGHT + max(picture.height for picture in pictures) + GAP
    tile = Image.new("RGB", (max(breadth, text_width(label)), height), PAPER)
    _write(tile, label, 0)
    left = 0
    for picture in pictures:
        tile.paste(picture, (left, LINE_HEIGHT))
        left += picture.width + GAP
    return tile


def _shrink(frame: np.ndarray, width: int) -> Image.Image:
    """A frame at most `width` pixels wide, in its own proportions."""
    picture = Image.fromarray(frame)
    picture.thumbnail((width, picture.height), Image.Resampling.LANCZOS)
    return picture


def _write(picture: Image.Image, text: str, top: int) -> None:
    ImageDraw.Draw(picture).text((GAP, top + LINE_HEIGHT / 2), drawable(text), fill=INK, font=font(), anchor="lm")
