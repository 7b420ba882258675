"""Contact sheets: strips of frames with a line of text above each, as one picture.

Pictures are [H, W, 3], uint8. Letters are drawn from a small table below, so that nothing but numpy is needed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np

PAPER = 24
INK = 232
GAP = 4
LETTER_PIXELS = 2
LETTER_WIDTH = 4  # with the space behind it

# Letters are 3 pixels wide and 5 high: one octal digit a row, its bits from left to right. Small letters are shown as
# capitals.
LETTERS = {
    " ": "00000", "A": "25755", "B": "65656", "C": "34443", "D": "65556", "E": "74647", "F": "74644", "G": "34553",
    "H": "55755", "I": "72227", "J": "11152", "K": "55655", "L": "44447", "M": "57755", "N": "65555", "O": "25552",
    "P": "65644", "Q": "25563", "R": "65655", "S": "34216", "T": "72222", "U": "55557", "V": "55552", "W": "55775",
    "X": "55255", "Y": "55222", "Z": "71247", "0": "75557", "1": "26227", "2": "61247", "3": "61216", "4": "55711",
    "5": "74616", "6": "34656", "7": "71122", "8": "25252", "9": "35316", ".": "00002", ",": "00024", ":": "02020",
    "-": "00700", "+": "02720", "/": "11244", "=": "07070", "(": "12221", ")": "42224", "'": "22000", "%": "51245",
    "x": "00525", "_": "00007", "!": "22202", "?": "61202", "#": "57575", "|": "22222", "*": "05250", '"': "55000",
}  # fmt: skip


def draw_text(text: str, *, width: int) -> np.ndarray:
    """One line of text as a picture of that width, cut off where it does not fit; letters not in the table are `?`."""
    bits = np.zeros((7, LETTER_WIDTH * len(text) + 2), bool)
    for i, letter in enumerate(text):
        rows = LETTERS.get(letter) or LETTERS.get(letter.upper(), LETTERS["?"])
        for y, row in enumerate(rows):
            left = 2 + LETTER_WIDTH * i
            bits[1 + y, left : left + 3] = [int(row) & bit for bit in (4, 2, 1)]
    big = bits.repeat(LETTER_PIXELS, axis=0).repeat(LETTER_PIXELS, axis=1)[:, :width]
    line = np.full((big.shape[0], width, 3), PAPER, np.uint8)
    line[:, : big.shape[1]][big] = INK
    return line


def text_width(text: str) -> int:
    """Pixels that a line of text needs."""
    return (LETTER_WIDTH * len(text) + 2) * LETTER_PIXELS


def pick(frames: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """`count` frames evenly spread from the first to the last."""
    if len(frames) == 0:
        raise ValueError("a strip needs at least one frame")
    return [frames[round(i)] for i in np.linspace(0, len(frames) - 1, count)]


def shrink(picture: np.ndarray, width: int) -> np.ndarray:
    """The picture at most `width` pixels wide, by averaging whole blocks."""
    step = -(-picture.shape[1] // width)
    height, columns = (size // step * step for size in picture.shape[:2])
    blocks = picture[:height, :columns].reshape(height // step, step, columns // step, step, 3)
    return blocks.mean(axis=(1, 3)).round().astype(np.uint8)


def contact_sheet(
    strips: Iterable[tuple[str, Sequence[np.ndarray]]], *, title: str = "", columns: int = 1, width: int = 256
) -> np.ndarray:
    """Strips of (label, frames) as one picture, in `columns` columns from left to right, then down.

    Frames are shown at most `width` pixels wide. Raises ValueError where there is no strip, or a strip has no frame.
    """
    tiles = [_tile(label, frames, width) for label, frames in strips]
    if not tiles:
        raise ValueError("a contact sheet needs at least one strip")
    height, breadth = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    head = _paragraph(title, columns * breadth)
    rows = -(-len(tiles) // columns)
    sheet = np.full((len(head) + rows * height, columns * breadth, 3), PAPER, np.uint8)
    sheet[: len(head)] = head
    for i, tile in enumerate(tiles):
        top, left = len(head) + i // columns * height, i % columns * breadth
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def _paragraph(text: str, width: int) -> np.ndarray:
    lines = textwrap.wrap(text, width // (LETTER_WIDTH * LETTER_PIXELS) - 1)
    return np.concatenate([np.zeros((0, width, 3), np.uint8), *(draw_text(line, width=width) for line in lines)])


def _tile(label: str, frames: Sequence[np.ndarray], width: int) -> np.ndarray:
    if len(frames) == 0:
        raise ValueError(f'the strip "{label}" has no frame')
    row = np.concatenate([_framed(shrink(frame, width)) for frame in frames], axis=1)
    space = max(0, text_width(label) - row.shape[1])
    row = np.pad(row, ((0, 0), (0, space), (0, 0)), constant_values=PAPER)
    return np.concatenate([draw_text(label, width=row.shape[1]), row], axis=0)


def _framed(picture: np.ndarray) -> np.ndarray:
    return np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=PAPER)
