"""Functions of tensors that layers are made of: attention, rotations, norms, matrix products in FP8.

Each has a plain version, exact and on every device. Faster versions are chosen by name and are refused, with a sentence
that says what would work, where they are not installed or cannot run. Nothing here knows models or caches.
"""

from .attention import Attention, choose_attention, sdpa
from .elementwise import PLAIN, Elementwise, choose_elementwise
from .linears import choose_linears
from .rope import Rope, rotate
from .sparse import sparse_attention

__all__ = [
    "PLAIN",
    "Attention",
    "Elementwise",
    "Rope",
    "choose_attention",
    "choose_elementwise",
    "choose_linears",
    "rotate",
    "sdpa",
    "sparse_attention",
]
