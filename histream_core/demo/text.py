"""The demo model's text encoder: an embedding for each of a few dozen words, mixed with its two neighbours.

B batch, L tokens (TEXT_TOKENS, always), D channels (TEXT_DIM). A prompt is lower-cased and cut into words; words of
the vocabulary become tokens, filler words are dropped, and so are all others, which `unknown` returns. Behind the
last token the embedding is zero, as Wan pads its text. An encoder knows the first words of VOCABULARY, as many as its
file has embeddings; a word that it does not know is read as its synonym, so a ball is a circle to one without scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..files.tensors import read_safetensors
from .words import TEXT_TOKENS, VOCABULARY, tokenize

TEXT_DIM = 64
PADDING = 0
EMBEDDINGS = "words.weight"
"""Name of the embeddings among an encoder's weights."""


class DemoTextEncoder(nn.Module):
    """Embedding table, position embedding, and one convolution over a word and its two neighbours."""

    def __init__(self, vocabulary: Sequence[str] = VOCABULARY) -> None:
        super().__init__()
        self.vocabulary = tuple(vocabulary)
        self.words = nn.Embedding(len(vocabulary) + 1, TEXT_DIM, padding_idx=PADDING)
        self.positions = nn.Parameter(0.1 * torch.randn(TEXT_TOKENS, TEXT_DIM))
        self.neighbours = nn.Conv1d(TEXT_DIM, TEXT_DIM, 3, padding=1)

    @classmethod
    def load(cls, path: Path | str, *, dtype: torch.dtype = torch.float32) -> DemoTextEncoder:
        """Load the encoder in `path`. Raises ValueError for a file of another model."""
        weights, _ = read_safetensors(path)
        try:
            encoder = cls(words_of(weights[EMBEDDINGS]))
            encoder.load_state_dict(weights)
        except (LookupError, RuntimeError) as error:
            raise ValueError(f"{path} is no text encoder of a demo model: give another file") from error
        return encoder.to(dtype).requires_grad_(False).eval()

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeddings [B, L, D] of token numbers [B, L], 0 for none."""
        table = self.words(tokens)
        mixed = table + self.neighbours(table.mT).mT + self.positions
        return mixed * (tokens != PADDING).unsqueeze(-1)

    @torch.no_grad()
    def encode(self, prompt: str | Sequence[str]) -> Tensor:
        """Embeddings [B, L, D] of one prompt or several; all zeros without a known word."""
        prompts = [prompt] if isinstance(prompt, str) else prompt
        return self(token_table(prompts, self.vocabulary).to(self.positions.device))


def words_of(embeddings: Tensor) -> tuple[str, ...]:
    """The words of the vocabulary that embeddings [N + 1, D] belong to. Raises LookupError for more than there are."""
    count = len(embeddings) - 1
    if not 0 < count <= len(VOCABULARY):
        raise LookupError(f"{count} words, of {len(VOCABULARY)}")
    return VOCABULARY[:count]


def token_table(prompts: Sequence[str], vocabulary: Sequence[str] = VOCABULARY) -> Tensor:
    """Token numbers of several prompts, padded: [B, L] int64."""
    rows = [tokenize(prompt, vocabulary) for prompt in prompts]
    return torch.tensor([row + [PADDING] * (TEXT_TOKENS - len(row)) for row in rows])
