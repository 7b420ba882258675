"""Sizes of the blocks of queries and keys that sparse attention chooses among."""

import math
from typing import NamedTuple

SHARE = 0.5
"""Of the key blocks in the window, how many are seen."""

MOST_QUERIES, MOST_KEYS = 1024, 128
"""Tokens of a block at most. Keys are copied together for each block of queries, so those are longer."""


class Blocks(NamedTuple):
    """How many tokens a block of queries and one of keys have; both divide a frame."""

    queries: int
    keys: int

    def num_kept(self, visible: int) -> int:
        """Blocks of keys that are seen, of so many visible tokens."""
        return math.ceil(SHARE * visible / self.keys)


def blocks_for(tokens_per_frame: int) -> Blocks:
    """Blocks of equal length, as long as they may be: 1020 and 120 tokens at 1920x1088."""
    return Blocks(_divisor(tokens_per_frame, MOST_QUERIES), _divisor(tokens_per_frame, MOST_KEYS))


def _divisor(number: int, most: int) -> int:
    return max(each for each in range(1, most + 1) if number % each == 0)
