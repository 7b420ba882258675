"""Prompts of a run: a text embedding, its words, and the first chunk that it is for.

B batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from ..network.forward import Text


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text that is in force from chunk `first_chunk` on; a blend is one prompt for each of its chunks.

    With `recache` the keys of the window are computed again under this text before its first chunk, as in LongLive, so
    that the cached frames no longer carry the old prompt.
    """

    text: Text
    first_chunk: int = 0
    recache: bool = False
    share: float = 1.0
    """Weight of this prompt in the text; below 1 within a blend, where the rest is the prompt before."""
    words: str = ""


def blend_prompts(
    old: Tensor, new: Tensor, *, first_chunk: int, num_chunks: int, spherical: bool = False
) -> tuple[Prompt, ...]:
    """Prompts that interpolate from `old` to `new` embeddings [B, tokens, channels] over `num_chunks` chunks.

    Linear, or token by token along an arc (`spherical`), which keeps the length of the embeddings.
    """
    if num_chunks < 1:
        raise ValueError(f"a blend over {num_chunks} chunks is none: use at least 1")
    between = slerp if spherical else torch.lerp
    shares = [(i + 1) / num_chunks for i in range(num_chunks)]
    return tuple(Prompt(Text(between(old, new, w)), first_chunk + i, share=w) for i, w in enumerate(shares))


def slerp(old: Tensor, new: Tensor, weight: float) -> Tensor:
    """Spherical interpolation over the last dim; linear where there is no angle, for example at zero padding."""
    cosine = torch.nn.functional.cosine_similarity(old, new, dim=-1).clamp(-1, 1)[..., None]
    angle = cosine.arccos()
    arc = (torch.sin((1 - weight) * angle) * old + torch.sin(weight * angle) * new) / angle.sin()
    return torch.where(angle.sin() > 1e-4, arc, torch.lerp(old, new, weight))


def led_away(prompts: Sequence[Prompt], negative: Tensor) -> tuple[Prompt, ...]:
    """The prompts, each with the same negative prompt, an embedding [B, tokens, channels]."""
    shared = Text(negative)
    return tuple(replace(prompt, text=Text(prompt.text.context, shared)) for prompt in prompts)


def continues(prompts: Sequence[Prompt]) -> list[bool]:
    """Whether each prompt continues the blend that began in the prompt before it."""
    return [False, *(before.share < 1 for before, _ in pairwise(prompts))][: len(prompts)]


def with_shares(prompts: Sequence[Prompt], continued: Sequence[bool]) -> tuple[Prompt, ...]:
    """The prompts with their shares set for blends of equal steps; `continued` is the result of `continues`."""
    starts = [index for index, goes_on in enumerate(continued) if not goes_on]
    blends = pairwise((*starts, len(prompts)))
    shares = [(step + 1) / (stop - start) for start, stop in blends for step in range(stop - start)]
    return tuple(replace(prompt, share=share) for prompt, share in zip(prompts, shares, strict=True))
