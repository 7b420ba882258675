"""Inputs that a stream does not make itself: given chunks, the source of a restyled video, and a look at its drafts.

B batch, C channels, T latent frames, H W latent grid.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..plan.chunks import Chunk
from ..plan.entry import Entry
from .noise import Noise

Given = Callable[[Chunk], Tensor]
"""Function that returns the latent [B, C, T, H, W] of a chunk that is not denoised."""

Source = Callable[[Chunk], tuple[Entry, Tensor]]
"""Function that returns how a chunk begins: its entry, and the source's latent [B, C, T, H, W] on the grid of its first
step."""


Review = Callable[[Chunk, Tensor], Noise | None]
"""Function that is shown a chunk's LOW estimate [B, C, T, H, W] before its first step at HIGH. It returns None to go
on, or the noise with which that chunk is drawn again, and all later ones are drawn."""


@dataclass(frozen=True)
class Inputs:
    """Values that a stream is handed from outside."""

    given: Tensor | Given | None = None
    """The clean latents of the chunks that the plan does not denoise: one tensor [B, C, T, H, W], or a function of the
    chunk."""
    given_noisy: Given | None = None
    """The noisy latents that kept last steps of given chunks started from."""
    source: Source | None = None
    """How chunks begin, for a plan that restyles a source."""
    given_sinks: Callable[[Chunk], tuple[int, ...]] | None = None
    """The sinks that a chunk of an earlier attempt saw, where they can give way."""
    given_low: Given | None = None
    """The LOW estimates of chunks of an earlier attempt, for a way up that remembers them."""
    review: Review | None = None
    """Who looks at the LOW estimate of each chunk."""


NOTHING_GIVEN = Inputs()


def begin_from(entry: Entry, noise: Tensor, source: Tensor) -> Tensor:
    """The latent that a chunk begins with. A share of 1 is the noise itself, a share of 0 the source itself."""
    if entry.share in (0, 1):
        return noise if entry.share else source
    return entry.share * noise + (1 - entry.share) * source
