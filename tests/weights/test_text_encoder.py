"""The text encoder on a tiny random umt5 and a tokenizer made here; the encoder needs the extra `text`."""

import math
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import save_file
from tiny_text_encoder import DIM, HEADS, LAYERS, tokenizer, weights

from histream_core.network.model import MAX_TOKENS
from histream_core.weights.containers import CheckpointError
from histream_core.weights.inspection import inspect
from histream_core.weights.text_encoder import load_embeds, load_text_encoder

needs_text = pytest.mark.skipif(
    not all(map(find_spec, ("transformers", "sentencepiece"))),
    reason="TEXT ENCODER NOT TESTED: pip install 'histream[text]'",
)

PROMPT = "a red circle moves right on a blue background"


def norm(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def bucket(distance):
    """The published bucket of a relative position: 8 exact ones each way, then logarithmic ones up to 128."""
    side, steps = (16 if distance > 0 else 0), abs(distance)
    far = 8 + int(math.log(max(steps, 1) / 8) / math.log(128 / 8) * 8) if steps >= 8 else steps
    return side + min(far, 15)


def reference(found, tokens):
    """umt5 written out, over the whole padded prompt with a mask, as Wan and ComfyUI run it."""
    padded = torch.tensor(tokens + [0] * (MAX_TOKENS - len(tokens)))
    hidden_from_all = torch.arange(MAX_TOKENS) >= len(tokens)
    buckets = torch.tensor([[bucket(j - i) for j in range(MAX_TOKENS)] for i in range(MAX_TOKENS)])
    x = found["shared.weight"][padded]
    for layer in range(LAYERS):
        attention, feed = ({k.removeprefix(p): v for k, v in found.items() if k.startswith(p)}
                           for p in (f"encoder.block.{layer}.layer.{i}." for i in range(2)))  # fmt: skip
        y = norm(x, attention["layer_norm.weight"])
        q, k, v = ((y @ attention[f"SelfAttention.{n}.weight"].T).unflatten(-1, (HEADS, -1)) for n in "qkv")
        scores = torch.einsum("inc,jnc->nij", q, k)
        scores = scores + attention["SelfAttention.relative_attention_bias.weight"][buckets].permute(2, 0, 1)
        mixed = scores.masked_fill(hidden_from_all, -torch.inf).softmax(-1)
        x = x + torch.einsum("nij,jnc->inc", mixed, v).flatten(1) @ attention["SelfAttention.o.weight"].T
        y = norm(x, feed["layer_norm.weight"])
        gate = torch.nn.functional.gelu(y @ feed["DenseReluDense.wi_0.weight"].T, approximate="tanh")
        x = x + (gate * (y @ feed["DenseReluDense.wi_1.weight"].T)) @ feed["DenseReluDense.wo.weight"].T
    x = norm(x, found["encoder.final_layer_norm.weight"])
    return x.masked_fill(hidden_from_all[:, None], 0)[None]


@needs_text
@pytest.mark.parametrize("prompt", ["", "red", PROMPT, " ".join([PROMPT] * 8)])
def test_a_prompt_is_encoded_as_wan_does_it_padded_with_zeros(prompt, tmp_path):
    save_file(weights() | {"spiece_model": tokenizer()}, tmp_path / "umt5.safetensors")
    encoder = load_text_encoder(tmp_path / "umt5.safetensors", dtype=torch.float32)
    tokens, embeds = encoder.tokens(prompt), encoder.encode(prompt)
    assert tokens[-1] == 1 and 1 not in tokens[:-1] and 0 not in tokens
    assert embeds.shape == (1, MAX_TOKENS, DIM) and embeds.dtype == torch.float32
    assert not embeds[:, len(tokens) :].any() and embeds[:, : len(tokens)].all()
    torch.testing.assert_close(embeds, reference(weights(), tokens), atol=2e-5, rtol=1e-4)


@needs_text
def test_the_tokenizer_in_the_file_is_the_one_that_is_used(tmp_path):
    from sentencepiece import SentencePieceProcessor

    spiece = tokenizer()
    save_file(weights() | {"spiece_model": spiece}, tmp_path / "umt5.safetensors")
    encoder = load_text_encoder(tmp_path / "umt5.safetensors", dtype=torch.float32)
    direct = SentencePieceProcessor(model_proto=spiece.numpy().tobytes(), add_eos=True)
    assert encoder.tokens(PROMPT) == direct.encode(PROMPT) and len(encoder.tokens(PROMPT)) > 8
    assert not torch.equal(encoder.encode("red circle"), encoder.encode("blue square"))


@needs_text
def test_fp8_with_scales_is_multiplied_out(tmp_path):
    stored, exact = {"scaled_fp8": torch.zeros(2)}, {}
    for key, x in weights().items():
        if ".layer." in key and x.ndim == 2 and "bias" not in key:
            scale = x.abs().max() / 448
            stored[key] = (x / scale).to(torch.float8_e4m3fn)
            stored[key.replace("weight", "scale_weight")] = scale
            exact[key] = stored[key].float() * scale
        else:
            stored[key] = exact[key] = x
    save_file(stored | {"spiece_model": tokenizer()}, tmp_path / "umt5.safetensors")
    assert inspect(tmp_path / "umt5.safetensors")["kind"] == "umt5"
    encoder = load_text_encoder(tmp_path / "umt5.safetensors", dtype=torch.float32)
    wanted = reference(exact, encoder.tokens(PROMPT))
    torch.testing.assert_close(encoder.encode(PROMPT), wanted, atol=2e-5, rtol=1e-4)


@needs_text
def test_bfloat16_is_close_to_float32(tmp_path):
    save_file(weights() | {"spiece_model": tokenizer()}, tmp_path / "umt5.safetensors")
    full = load_text_encoder(tmp_path / "umt5.safetensors", dtype=torch.float32).encode(PROMPT)
    half = load_text_encoder(tmp_path / "umt5.safetensors").encode(PROMPT)
    assert half.dtype == torch.float32 and not torch.equal(full, half)
    torch.testing.assert_close(half, full, atol=0.15, rtol=0.1)


@needs_text
def test_a_prompt_that_is_too_long_is_refused_with_its_length(tmp_path):
    save_file(weights() | {"spiece_model": tokenizer()}, tmp_path / "umt5.safetensors")
    encoder = load_text_encoder(tmp_path / "umt5.safetensors", dtype=torch.float32)
    prompt = "red " * 300
    with pytest.raises(ValueError, match=f"has {len(encoder.tokens(prompt))} tokens and 512 fit"):
        encoder.encode(prompt)


@needs_text
def test_files_that_are_no_whole_encoder_are_refused(tmp_path):
    def refused(content, word):
        save_file(content, tmp_path / "umt5.safetensors")
        with pytest.raises(CheckpointError, match=word):
            load_text_encoder(tmp_path / "umt5.safetensors")

    whole, spiece = weights(), {"spiece_model": tokenizer()}
    refused(whole, "no tokenizer in it")
    refused({"blocks.0.pos_embedding.embedding.weight": torch.ones(1)}, "Wan's own names")
    refused({"conv.weight": torch.ones(1)}, "not a umt5 text encoder")
    less = {key: x for key, x in whole.items() if key != "encoder.block.2.layer.0.SelfAttention.q.weight"}
    refused(less | spiece, r"1 tensors .*encoder\.block\.2\.layer\.0\.SelfAttention\.q\.weight")
    refused(whole | spiece | {"extra": torch.ones(1)}, r"1 tensors .*extra")
    refused({key: x for key, x in whole.items() if key != "shared.weight"} | spiece, "shared.weight is missing")


@needs_text
@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"spiece_model": torch.full((64,), 255, dtype=torch.uint8)}, "damaged tokenizer"),
        ({"spiece_model": torch.ones(64)}, "damaged tokenizer in it .it is float32"),
        ({"shared.weight": torch.ones(2, DIM)}, "more words in its tokenizer"),
        ({"shared.weight": torch.ones(DIM)}, "shared.weight has the shape"),
        ({"encoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(0, DIM)}, "q.weight has the shape"),
        ({"encoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(1, DIM)}, "sizes that no umt5 has"),
        ({f"encoder.block.{i}.x": torch.ones(1) for i in range(101)}, "sizes that no umt5 has: 101 layers"),
    ],
)
def test_sizes_and_tokenizers_that_no_encoder_has_are_refused(changed, word, tmp_path):
    """Seen to fail without each check."""
    save_file(weights() | {"spiece_model": tokenizer()} | changed, tmp_path / "umt5.safetensors")
    with pytest.raises(CheckpointError, match=word):
        load_text_encoder(tmp_path / "umt5.safetensors")


def test_embeddings_from_a_file_are_padded(tmp_path):
    x = torch.randn(7, DIM, generator=torch.Generator().manual_seed(0))
    for name, content in (("flat", x), ("batched", x[None]), ("half", x.bfloat16())):
        save_file({"any name": content}, tmp_path / name)
        embeds = load_embeds(tmp_path / name)
        assert embeds.shape == (1, MAX_TOKENS, DIM) and embeds.dtype == torch.float32
        assert torch.equal(embeds[0, :7], content.reshape(7, DIM).float()) and not embeds[0, 7:].any()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"a": torch.ones(2, 3), "b": torch.ones(2, 3)}, "holds 2 tensors"),
        ({"a": torch.ones(3)}, r"shape \[3\]"),
        ({"a": torch.ones(2, 5, 3)}, r"shape \[2, 5, 3\]"),
        ({"a": torch.ones(513, 3)}, r"shape \[1, 513, 3\]"),
        ({"a": torch.full((4, 3), torch.nan)}, "NaN"),
    ],
)
def test_files_that_are_no_embeddings_are_refused(content, word, tmp_path):
    save_file(content, tmp_path / "embeds.safetensors")
    with pytest.raises(CheckpointError, match=word):
        load_embeds(tmp_path / "embeds.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_embeds(tmp_path / "none.safetensors")
