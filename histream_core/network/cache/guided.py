"""A pair of caches for classifier-free guidance: one for the prompt, one for the negative prompt.

Both hold the same frames, as the guided estimate is what is cached under either text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from torch import Tensor

from .pages import Pages
from .window import KVCache

NEGATIVE = "negative."
"""Prefix of the negative prompt's part in a snapshot."""


class GuidedCache(KVCache):
    """Two caches that begin and commit together; a network call computes a pass with each of them."""

    def __init__(self, positive: KVCache, negative: KVCache, cfg: float, *, pooled: GuidedCache | None = None):
        """`pooled` is the pair of their `pooled` caches, where they have them."""
        self.positive, self.negative, self.cfg, self.pooled = positive, negative, cfg, pooled
        self.batch, self.device, self.window = positive.batch, positive.device, positive.window

    def combine(self, positive: Tensor, negative: Tensor) -> Tensor:
        """The guided estimate, from the estimates for the prompt and for the negative prompt."""
        return negative + self.cfg * (positive - negative)

    @property
    def frames(self) -> tuple[int, ...]:
        return tuple(frame for frame in self.positive.frames if frame in self.negative.frames)

    @property
    def nbytes(self) -> int:
        return self.positive.nbytes + self.negative.nbytes

    def begin(
        self, frames: Sequence[int], context: tuple[int, ...], *, start: int | None = None, sinks: tuple[int, ...] = ()
    ) -> None:
        self.positive.begin(frames, context, start=start, sinks=sinks)
        self.negative.begin(frames, context, start=start, sinks=sinks)

    def keep(self) -> None:
        self.positive.keep()
        self.negative.keep()

    def pages(self, layer: int, *, keep: bool = False) -> Pages:  # noqa: ARG002 - for all layers
        raise TypeError("a pass is computed with one of the two caches of a pair")

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a pair of caches has no {name}: ask its positive or its negative cache")

    def commit(self) -> None:
        self.positive.commit()
        self.negative.commit()

    def snapshot(self) -> dict[str, Tensor]:
        """The snapshot of the prompt's cache, and under NEGATIVE that of the other one."""
        negative = self.negative.snapshot()
        return self.positive.snapshot() | {NEGATIVE + name: tensor for name, tensor in negative.items()}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        self.positive.restore({name: x for name, x in snapshot.items() if not name.startswith(NEGATIVE)})
        found = {name.removeprefix(NEGATIVE): x for name, x in snapshot.items() if name.startswith(NEGATIVE)}
        self.negative.restore(found)
