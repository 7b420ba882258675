"""A umt5 encoder of random weights under the names of ComfyUI's file, and its tokenizer."""

import io
import math

import torch

HEADS, DIM, INNER, FFN, LAYERS, VOCABULARY = 2, 16, 8, 24, 3, 64


def weights(seed=0):
    """A random umt5 encoder under the names of ComfyUI's file."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator) / math.sqrt(shape[-1])

    found = {"shared.weight": draw(VOCABULARY, DIM) * 4, "encoder.final_layer_norm.weight": 1 + draw(DIM)}
    for layer in range(LAYERS):
        attention, feed = (f"encoder.block.{layer}.layer.{i}." for i in range(2))
        for name in "qkv":
            found[f"{attention}SelfAttention.{name}.weight"] = draw(INNER, DIM)
        found |= {
            f"{attention}SelfAttention.o.weight": draw(DIM, INNER),
            f"{attention}SelfAttention.relative_attention_bias.weight": draw(32, HEADS) * 3,
            f"{attention}layer_norm.weight": 1 + draw(DIM),
            f"{feed}DenseReluDense.wi_0.weight": draw(FFN, DIM),
            f"{feed}DenseReluDense.wi_1.weight": draw(FFN, DIM),
            f"{feed}DenseReluDense.wo.weight": draw(DIM, FFN),
            f"{feed}layer_norm.weight": 1 + draw(DIM),
        }
    return found


def tokenizer():
    """A sentencepiece model as bytes, its special tokens numbered as umt5 numbers them."""
    import sentencepiece

    words = ["red circle", "blue square", "moves right on a background", "green triangle", "falls down", "white sky"]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words * 20), model_writer=model, vocab_size=VOCABULARY, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    return torch.frombuffer(bytearray(model.getvalue()), dtype=torch.uint8)
