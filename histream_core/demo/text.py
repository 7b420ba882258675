"""The demo model's text encoder: an embedding for each of a few dozen words, mixed with its two neighbours.

B batch, L tokens (TEXT_TOKENS, always), D channels (TEXT_DIM). A prompt is lower-cased and cut into words; words of
the vocabulary become tokens, filler words are dropped, and so are all others, which `unknown` returns. Behind the
last token the embedding is zero, as Wan pads its text. An encoder knows the first words of VOCABULARY, as many as its
file has embeddings; a word that it does not know is read as its synonym, so a ball is a circle to one without scenes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..files.tensors import read_safetensors

SHAPE_WORDS = (
    "red", "green", "blue", "yellow", "purple", "white", "black",
    "circle", "square", "triangle",
    "right", "left", "up", "down",
    "on", "background",
)  # fmt: skip
"""Words of flat shapes on plain backgrounds."""
SCENE_WORDS = (
    "cat", "dog", "fox", "turtle", "fish", "penguin", "ghost", "rocket", "car", "apple", "balloon", "ball",
    "robot", "star", "duck", "butterfly", "bee", "whale", "octopus", "frog", "panda", "pumpkin", "ufo", "cupcake",
    "meadow", "sea", "night", "desert", "snow",
    "bounces", "turns", "grows",
)  # fmt: skip
"""Words of things over painted places."""
STAGING_WORDS = ("small", "large", "west", "east", "high", "low", "edge")
"""Words for the size of a thing, and where it begins."""
VOCABULARY = (*SHAPE_WORDS, *SCENE_WORDS, *STAGING_WORDS)
"""All words, in the order of their embeddings; new ones come last."""
BUNDLED_WORDS = SHAPE_WORDS
"""Words that the bundled encoder was trained on."""
SYNONYMS = {
    "violet": "purple", "magenta": "purple", "crimson": "red", "scarlet": "red", "golden": "yellow", "gold": "yellow",
    "disc": "circle", "disk": "circle", "ball": "circle", "dot": "circle", "round": "circle",
    "box": "square", "block": "square", "cube": "square", "pyramid": "triangle",
    "rightward": "right", "rightwards": "right", "leftward": "left", "leftwards": "left",
    "upward": "up", "upwards": "up", "rises": "up", "rising": "up",
    "downward": "down", "downwards": "down", "falls": "down", "falling": "down", "sinks": "down", "sinking": "down",
    "bouncing": "bounces", "turning": "turns", "spins": "turns", "spinning": "turns", "growing": "grows",
    "ocean": "sea", "field": "meadow", "tiny": "small", "little": "small", "big": "large", "huge": "large",
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
        "into",
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
        "runs",
        "running",
        "swims",
        "swimming",
        "around",
        "shrinks",
        "shrinking",
        "sky",
    ]
)
TEXT_DIM = 64
TEXT_TOKENS = 16
PADDING = 0
EMBEDDINGS = "words.weight"
"""Name of the embeddings among an encoder's weights."""


def words(prompt: str) -> list[str]:
    """The words of a prompt, lower-cased, without punctuation."""
    return re.findall(r"[^\W_]+", prompt.lower())


def plain_words(prompt: str, vocabulary: Sequence[str] = BUNDLED_WORDS) -> list[str]:
    """The words of a prompt, those that are not in the vocabulary replaced by their synonyms."""
    return [word if word in vocabulary else SYNONYMS.get(word, word) for word in words(prompt)]


def tokenize(prompt: str, vocabulary: Sequence[str] = BUNDLED_WORDS) -> list[int]:
    """Token numbers, from 1, of the words of a vocabulary; more than TEXT_TOKENS are dropped."""
    told = plain_words(prompt, vocabulary)
    return [vocabulary.index(word) + 1 for word in told if word in vocabulary][:TEXT_TOKENS]


class DemoTextEncoder(nn.Module):
    """Embedding table, position embedding, and one convolution over a word and its two neighbours."""

    def __init__(self, vocabulary: Sequence[str] = BUNDLED_WORDS) -> None:
        super().__init__()
        self.vocabulary = tuple(vocabulary)
        self.words = nn.Embedding(len(vocabulary) + 1, TEXT_DIM, padding_idx=PADDING)
        self.positions = nn.Parameter(0.1 * torch.randn(TEXT_TOKENS, TEXT_DIM))
        self.neighbours = nn.Conv1d(TEXT_DIM, TEXT_DIM, 3, padding=1)

    @classmethod
    def load(cls, path: Path | str | None = None, *, dtype: torch.dtype = torch.float32) -> DemoTextEncoder:
        """Load the bundled encoder, or the one in `path`. Raises ValueError for a file of another model."""
        path = path or Path(__file__).with_name("demo-text.safetensors")
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

    @staticmethod
    def unknown(prompt: str, vocabulary: Sequence[str] = BUNDLED_WORDS) -> list[str]:
        """The words of a prompt that an encoder of this vocabulary does not know, in order."""
        known = {*vocabulary, *FILLERS}
        return [word for word in words(prompt) if word not in known and SYNONYMS.get(word) not in known]


def words_of(embeddings: Tensor) -> tuple[str, ...]:
    """The words of the vocabulary that embeddings [N + 1, D] belong to. Raises LookupError for more than there are."""
    count = len(embeddings) - 1
    if not 0 < count <= len(VOCABULARY):
        raise LookupError(f"{count} words, of {len(VOCABULARY)}")
    return VOCABULARY[:count]


def token_table(prompts: Sequence[str], vocabulary: Sequence[str] = BUNDLED_WORDS) -> Tensor:
    """Token numbers of several prompts, padded: [B, L] int64."""
    rows = [tokenize(prompt, vocabulary) for prompt in prompts]
    return torch.tensor([row + [PADDING] * (TEXT_TOKENS - len(row)) for row in rows])
