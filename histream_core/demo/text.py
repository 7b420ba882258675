"""The demo model's text encoder: an embedding for each of a few dozen words, mixed with its two neighbours.

B batch, L tokens (TEXT_TOKENS, always), D channels (TEXT_DIM). A prompt is lower-cased and cut into words; words of
the vocabulary become tokens, filler words are dropped, and so are all others, which `unknown` returns. Behind the
last token the embedding is zero, as Wan pads its text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..files.tensors import read_safetensors

VOCABULARY = (
    "red", "green", "blue", "yellow", "purple", "white", "black",
    "circle", "square", "triangle",
    "right", "left", "up", "down",
    "on", "background",
)  # fmt: skip
SYNONYMS = {
    "violet": "purple", "magenta": "purple", "crimson": "red", "scarlet": "red", "golden": "yellow", "gold": "yellow",
    "disc": "circle", "disk": "circle", "ball": "circle", "dot": "circle", "round": "circle",
    "box": "square", "block": "square", "cube": "square", "pyramid": "triangle",
    "rightward": "right", "rightwards": "right", "leftward": "left", "leftwards": "left",
    "upward": "up", "upwards": "up", "rises": "up", "rising": "up",
    "downward": "down", "downwards": "down", "falls": "down", "falling": "down", "sinks": "down", "sinking": "down",
    "over": "on", "against": "on", "upon": "on", "backdrop": "background", "ground": "background",
}  # fmt: skip
FILLERS = frozenset(
    [
        "a",
        "an",
        "the",
        "and",
        "is",
        "are",
        "it",
        "its",
        "of",
        "in",
        "to",
        "at",
        "with",
        "from",
        "for",
        "by",
        "across",
        "moves",
        "moving",
        "move",
        "moved",
        "goes",
        "going",
        "go",
        "drifts",
        "drifting",
        "drift",
        "slides",
        "sliding",
        "slide",
        "flies",
        "flying",
        "fly",
        "travels",
        "travelling",
        "traveling",
        "travel",
        "floats",
        "floating",
        "glides",
        "gliding",
        "towards",
        "toward",
        "steadily",
        "slowly",
        "big",
        "large",
        "plain",
        "flat",
        "coloured",
        "colored",
        "video",
        "clip",
        "picture",
        "side",
    ]
)
TEXT_DIM = 64
TEXT_TOKENS = 16
PADDING = 0


def words(prompt: str) -> list[str]:
    """The words of a prompt, lower-cased, without punctuation."""
    return re.findall(r"[^\W_]+", prompt.lower())


def tokenize(prompt: str) -> list[int]:
    """Token numbers, from 1, of the known words; more than TEXT_TOKENS are dropped."""
    known = (SYNONYMS.get(word, word) for word in words(prompt))
    return [VOCABULARY.index(word) + 1 for word in known if word in VOCABULARY][:TEXT_TOKENS]


class DemoTextEncoder(nn.Module):
    """Embedding table, position embedding, and one convolution over a word and its two neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(VOCABULARY) + 1, TEXT_DIM, padding_idx=PADDING)
        self.positions = nn.Parameter(0.1 * torch.randn(TEXT_TOKENS, TEXT_DIM))
        self.neighbours = nn.Conv1d(TEXT_DIM, TEXT_DIM, 3, padding=1)

    @classmethod
    def load(cls, path: Path | str | None = None, *, dtype: torch.dtype = torch.float32) -> DemoTextEncoder:
        """Load the bundled encoder, or the one in `path`. Raises ValueError for a file of another model."""
        encoder = cls()
        path = path or Path(__file__).with_name("demo-text.safetensors")
        weights, _ = read_safetensors(path)
        try:
            encoder.load_state_dict(weights)
        except RuntimeError as error:
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
        return self(token_table(prompts).to(self.positions.device))

    @staticmethod
    def unknown(prompt: str) -> list[str]:
        """The words of a prompt that the encoder does not know, in order."""
        known = {*VOCABULARY, *SYNONYMS, *FILLERS}
        return [word for word in words(prompt) if word not in known]


def token_table(prompts: Sequence[str]) -> Tensor:
    """Token numbers of several prompts, padded: [B, L] int64."""
    rows = [tokenize(prompt) for prompt in prompts]
    return torch.tensor([row + [PADDING] * (TEXT_TOKENS - len(row)) for row in rows])
