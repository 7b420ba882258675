"""The umt5-xxl text encoder, from the file that ComfyUI uses: weights and tokenizer in one safetensors file.

Needs `transformers` and `sentencepiece` (the extra `text`); embeddings made elsewhere load without them.

L tokens, D channels.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..network.model import MAX_TOKENS
from .checkpoint import dtype_name, is_scale, read_checkpoint
from .containers import Tensors, open_weights
from .errors import CheckpointError, first_five
from .loading import cast

END = 1
"""Number of the token that ends a prompt."""

TOKENIZER_KEY = "spiece_model"

_MOST_LAYERS, _WIDEST = 100, 2**20

_EMBEDS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

MAX_DISTANCE = 128
"""Distance from which umt5 no longer tells positions apart; the only size that is in no tensor."""


def pad_tokens(embeds: Tensor) -> Tensor:
    """Pad [B, L, D] with zeros to [B, 512, D]. Raises ValueError for more tokens."""
    missing = MAX_TOKENS - embeds.shape[1]
    if missing < 0:
        raise ValueError(f"the text has {embeds.shape[1]} tokens and {MAX_TOKENS} fit: make the prompt shorter")
    return nn.functional.pad(embeds, (0, 0, 0, missing))


class TextEncoder:
    """A umt5 encoder of prompts."""

    def __init__(self, model: Any, tokenizer: Any):
        """`model` is a transformers UMT5EncoderModel, `tokenizer` a SentencePieceProcessor."""
        self.model, self.tokenizer = model, tokenizer

    def tokens(self, prompt: str) -> list[int]:
        """Token numbers of a prompt, including the one that ends it."""
        return [*self.tokenizer.encode(prompt), END]

    @torch.inference_mode()
    def encode(self, prompt: str) -> Tensor:
        """The embedding of a prompt, [1, 512, D] float32 on the model's device, with zeros behind its last token.

        The padding is not encoded, which gives the same numbers as masking it. Raises ValueError for more than 512
        tokens.
        """
        tokens = self.tokens(prompt)
        if len(tokens) > MAX_TOKENS:
            raise ValueError(f"the prompt has {len(tokens)} tokens and {MAX_TOKENS} fit: make it shorter")
        ids = torch.tensor([tokens], device=self.model.device)
        hidden = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        if not torch.isfinite(hidden).all():
            raise ValueError(f"the text encoder made NaN or infinity in {self.model.dtype}: run it in bf16 or fp32")
        return pad_tokens(hidden.float())


def load_text_encoder(
    path: str | Path, *, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu"
) -> TextEncoder:
    """Load the umt5 text encoder from a ComfyUI file, in the sizes of its tensors.

    Raises CheckpointError for another file, and ModuleNotFoundError without the extra `text`.
    """
    from transformers import UMT5EncoderModel

    checkpoint = read_checkpoint(path, kind="umt5")
    weights = dict(checkpoint.state_dict)
    tokenizer = _tokenizer(Path(path), weights.pop(TOKENIZER_KEY, None))
    weights.pop("encoder.embed_tokens.weight", None)  # equals shared.weight
    with torch.device("meta"):
        model = UMT5EncoderModel(_config(Path(path), weights))
    _check_keys(Path(path), model, weights)
    if tokenizer.get_piece_size() > len(weights["shared.weight"]):
        raise CheckpointError(f"{path} has more words in its tokenizer than in its weights: take another file")
    weights = cast(replace(checkpoint, state_dict=weights), dtype, device=device)
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"]
    model.load_state_dict(weights, strict=True, assign=True)
    return TextEncoder(model.requires_grad_(False).eval(), tokenizer)


def load_embeds(path: str | Path) -> Tensor:
    """Load the embedding of one prompt from a file with one tensor [L, D] or [1, L, D], as [1, 512, D] float32.

    Raises CheckpointError for a file with another number of tensors, another shape or dtype, or NaN.
    """
    tensors, _, _ = open_weights(Path(path))
    if len(tensors) != 1:
        raise CheckpointError(f"{path} holds {len(tensors)} tensors: embeddings are one tensor [tokens, channels]")
    x = next(iter(tensors.values()))
    if x.dtype not in _EMBEDS:
        raise CheckpointError(
            f"{path} holds {dtype_name(x.dtype)}: embeddings are fp32, bf16 or fp16, encode them again"
        )
    x = x[None] if x.ndim == 2 else x
    if x.ndim != 3 or x.shape[0] != 1 or not 0 < x.shape[1] <= MAX_TOKENS or not x.shape[2]:
        raise CheckpointError(
            f"{path} holds a tensor of shape {list(x.shape)}: embeddings are [tokens, channels], up to {MAX_TOKENS}"
        )
    x = x.detach().float()
    if not torch.isfinite(x).all():
        raise CheckpointError(f"{path} holds NaN or infinity: encode the prompt again, in bf16 or fp32")
    return pad_tokens(x)


def _tokenizer(path: Path, stored: Tensor | None) -> Any:
    """The SentencePieceProcessor that is stored in a file of weights as bytes."""
    from sentencepiece import SentencePieceProcessor

    if stored is None:
        raise CheckpointError(f"{path} has no tokenizer in it ({TOKENIZER_KEY}): take ComfyUI's umt5_xxl file")
    try:
        if stored.dtype != torch.uint8:
            raise RuntimeError(f"it is {dtype_name(stored.dtype)}, and not bytes")
        return SentencePieceProcessor(model_proto=stored.numpy().tobytes())
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} has a damaged tokenizer in it ({said}): take ComfyUI's umt5_xxl file") from error


def _config(path: Path, weights: Tensors) -> Any:
    """The UMT5Config (transformers) of the sizes of these tensors."""
    from transformers import UMT5Config

    first = "encoder.block.0.layer."
    told = [
        _two_axes(path, weights, key)
        for key in (
            "shared.weight",
            f"{first}0.SelfAttention.relative_attention_bias.weight",
            f"{first}0.SelfAttention.q.weight",
            f"{first}1.DenseReluDense.wi_0.weight",
        )
    ]
    (vocabulary, channels), (buckets, heads), (inner, _), (hidden, _) = told
    layers = {key.split(".")[2] for key in weights if key.startswith("encoder.block.")}
    if inner < heads or len(layers) > _MOST_LAYERS:
        raise CheckpointError(
            f"{path} has sizes that no umt5 has: {len(layers)} layers, {heads} heads of {inner} channels"
        )
    return UMT5Config(
        vocab_size=vocabulary,
        d_model=channels,
        d_kv=inner // heads,
        d_ff=hidden,
        num_layers=len(layers),
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        relative_attention_max_distance=MAX_DISTANCE,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        is_encoder_decoder=False,
    )


def _two_axes(path: Path, weights: Tensors, key: str) -> tuple[int, int]:
    """The shape of a matrix whose sizes are those of the encoder."""
    if key not in weights:
        raise CheckpointError(f"{path} is not a whole umt5 encoder: {key} is missing")
    shape = weights[key].shape
    if len(shape) != 2 or not all(0 < length <= _WIDEST for length in shape):
        raise CheckpointError(f"{path} is not a whole umt5 encoder: {key} has the shape {list(shape)}")
    return shape[0], shape[1]


def _check_keys(path: Path, model: nn.Module, stored: Tensors) -> None:
    """Check that the weights are exactly those of the model, without the copy of the embedding. Raises CheckpointError.

    Scales of quantised weights do not count.
    """
    expected = {key: x.shape for key, x in model.state_dict().items() if key != "encoder.embed_tokens.weight"}
    weights = {key: x.shape for key, x in stored.items() if not is_scale(key)}
    odd = sorted(expected.keys() ^ weights.keys())
    odd += [key for key in expected.keys() & weights.keys() if expected[key] != weights[key]]
    if odd:
        raise CheckpointError(
            f"{path} is not a whole umt5 encoder: {len(odd)} tensors are missing, left over or of the wrong size "
            f"({first_five(odd)})"
        )
