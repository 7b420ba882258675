"""How far a video is led away from a negative prompt. Pure values, no tensors."""

from __future__ import annotations

from dataclasses import dataclass

MAX_CFG = 30.0
MAX_NAG = 100.0


@dataclass(frozen=True, slots=True)
class Guidance:
    """The strengths of classifier-free guidance and of normalized attention guidance; by default there is neither.

    Raises ValueError for numbers that lead nowhere.
    """

    cfg: float = 1.0
    """Classifier-free guidance: the estimate for the negative prompt, plus so many times its distance to the estimate
    for the prompt. 1: none. Every network call is computed twice, with a cache for each of the two."""
    nag: float = 1.0
    """Normalized attention guidance (arXiv 2505.21179): the same sum, of what cross-attention finds in each layer. 1:
    none. It costs little, and leads weights away that were distilled to few steps."""
    nag_limit: float = 2.5
    """How many times longer the sum may be than what the prompt alone finds (tau of the paper)."""
    nag_share: float = 0.25
    """The share of the sum in what the layer goes on with; the rest is what the prompt alone finds (alpha)."""

    def __post_init__(self):
        if not 1 <= self.cfg <= MAX_CFG:
            raise ValueError(f"CFG {self.cfg:g} cannot be: use 1 for none, 3 to 6, or at most {MAX_CFG:g}")
        if not 1 <= self.nag <= MAX_NAG:
            raise ValueError(f"NAG {self.nag:g} cannot be: use 1 for none, 5 to 11, or at most {MAX_NAG:g}")
        if not 0 < self.nag_limit <= MAX_NAG or not 0 <= self.nag_share <= 1:
            raise ValueError(
                f"NAG with limit {self.nag_limit:g} and share {self.nag_share:g} cannot be: use 2.5 and 0.25"
            )
        if self.cfg != 1 and self.nag != 1:
            raise ValueError(
                f"CFG {self.cfg:g} and NAG {self.nag:g} both lead away from the negative prompt: set one of them to 1"
            )

    @property
    def is_on(self) -> bool:
        """Whether a negative prompt is needed."""
        return self.cfg != 1 or self.nag != 1

    @property
    def passes(self) -> int:
        """How often each network call is computed, and how many caches each level has."""
        return 1 if self.cfg == 1 else 2

    def __str__(self) -> str:
        return f"CFG {self.cfg:g}" if self.cfg != 1 else f"NAG {self.nag:g}" if self.nag != 1 else "no guidance"


NO_GUIDANCE = Guidance()
