"""Caches: the keys and values of the past frames that a chunk may attend to.

They promise constant memory for a window of constant length, pages that are written in place and never moved, and the
same numbers in every exact memory tier. `make_caches` allocates those of a plan.
"""

from .pages import Pages, PageSource
from .tiers import check_tier, make_caches
from .window import CacheOptions, CacheWindow, KVCache

__all__ = [
    "CacheOptions",
    "CacheWindow",
    "KVCache",
    "PageSource",
    "Pages",
    "check_tier",
    "make_caches",
]
