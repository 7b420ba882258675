"""A kept run whose chunks are looked at before HIGH: what is drawn again has its seed in the manifest before it begins.

B batch, C channels, T latent frames, H W latent grid.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..plan.chunks import Chunk
from ..plan.schedule import Scale
from ..stream.inputs import Review
from ..stream.noise import Noise
from .progress import Progress
from .store.journal import Journal
from .store.manifest import ChunkSeeds
from .store.opening import branched

Look = Callable[[Chunk, Tensor, int], int | None]
"""Function that is shown a chunk, its LOW estimate [B, C, T, H, W] and its seed. It returns None to keep it, or the
seed with which it is drawn again, and all later chunks are drawn."""


def reviewed_by(look: Look, journal: Journal, progress: Progress) -> Review:
    """The review of a run's chunks by `look`. The run is then, in every bit, one that is branched with these seeds.

    A run that is killed goes on with the seed that was asked for last, and its chunk is shown again.
    """

    def review(chunk: Chunk, clean: Tensor) -> Noise | None:
        seed = look(chunk, clean, journal.manifest.seed(chunk.index))
        if seed is None:
            return None
        journal.rewrite(branched(journal.manifest, chunk.index, seed=seed))
        progress.num_calls += sum(step.scale is Scale.LOW for step in chunk.steps)
        return ChunkSeeds(journal.manifest)

    return review
