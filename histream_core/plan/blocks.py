"""Sizes of the blocks of queries and keys that sparse attention chooses among."""

import math
from typing import NamedTuple

SHARE = 0.5
"""Fraction of the key blocks in the window that a query block attends to."""

MOST_QUERIES, MOST_KEYS = 1024, 128
"""Largest number of tokens in a block. Query blocks are longer, because each of them gathers its keys into a copy."""

BLOCKS_AT_ONCE = 4
"""Query blocks in one call of attention: one alone has fewer tiles than a large GPU has processors."""


class Blocks(NamedTuple):
    """Tokens in a block of queries and in a block of keys; both numbers divide the tokens of a frame."""

    queries: int
    keys: int

    def num_kept(self, visible: int) -> int:
        """Number of key blocks that a query block attends to when `visible` tokens are in the window."""
        return math.ceil(SHARE * visible / self.keys)


def blocks_for(tokens_per_frame: int) -> Blocks:
    """The longest blocks of equal length within the limits: 1020 and 120 tokens at 1920x1088."""
    return Blocks(_divisor(tokens_per_frame, MOST_QUERIES), _divisor(tokens_per_frame, MOST_KEYS))


def _divisor(number: int, most: int) -> int:
    return max(each for each in range(1, most + 1) if number % each == 0)
