"""The demo model: its words, its painter, the training forwards against the engine, the bundled files."""

import dataclasses
import itertools
import random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import CONFIG, wan

from histream_core import demo
from histream_core.demo import painter
from histream_core.demo.scenes import MOTIONS, PLACES, SENTENCES, THINGS, all_scenes
from histream_core.demo.text import TEXT_DIM, DemoTextEncoder
from histream_core.demo.trained import untrained
from histream_core.demo.words import (
    SCENE_WORDS,
    SHAPE_WORDS,
    STAGING_WORDS,
    TEXT_TOKENS,
    VOCABULARY,
    tokenize,
    unknown_words,
)
from histream_core.network.cache.window import CacheOptions, CacheWindow, KVCache
from histream_core.network.forward import PassOptions, Text, forward_chunk
from histream_core.network.model import ModelSizes
from histream_core.network.ops.rope import Rope
from histream_core.plan.positions import TemporalPolicy
from histream_core.vae.decode import StreamingDecoder
from histream_core.vae.encode import StreamingEncoder
from histream_core.vae.model import LATENT_MEAN, LATENT_STD, WanVAE
from training import dit_forward, vae_forward
from training.captions import template
from training.export import fold_statistics

RED_CIRCLE = painter.Combination("circle", "red", "blue", "right")


def test_held_out_combinations_are_never_painted_for_training():
    for combination in painter.HELD_OUT:
        with pytest.raises(painter.HeldOutError, match="held out"):
            painter.paint(combination, [0], size=16, training=True)
    assert len(painter.HELD_OUT) == 24
    assert painter.HELD_OUT.isdisjoint(painter.training_combinations())
    assert set(painter.all_combinations()) > painter.HELD_OUT


def test_every_word_and_every_pair_of_words_is_seen_in_training():
    """All six kinds of pairs. Seen to fail with every white triangle held out."""
    seen, every = (
        {pair for combination in found for pair in itertools.combinations(dataclasses.asdict(combination).items(), 2)}
        for found in (painter.training_combinations(), painter.all_combinations())
    )
    assert len(every) == 18 + 12 + 12 + 21 + 24 + 16
    assert seen == every


def test_the_painter_moves_an_object_an_eighth_of_the_frame_in_eight_frames_and_around_the_edge():
    frames = painter.paint(RED_CIRCLE, [0, 8, 64], size=64, training=True)
    np.testing.assert_allclose(np.roll(frames[0], 8, axis=1), frames[1], atol=1e-5)
    np.testing.assert_allclose(frames[0], frames[2], atol=1e-5)


def test_captions_only_use_words_that_the_encoder_knows():
    rng = random.Random(0)
    captions = [c.caption(template(rng)) for c in painter.all_combinations()]
    assert [word for text in captions for word in unknown_words(text)] == []
    assert untrained(captions) == []
    assert 0.02 < captions.count("") / len(captions) < 0.2


def test_case_punctuation_and_synonyms_do_not_matter():
    plain = tokenize("a red circle moves up on a purple background")
    assert tokenize("A RED ball, rising; over a violet backdrop!") == plain
    assert len(plain) == 6


def test_unknown_words_are_named_and_ignored():
    assert unknown_words("a red Dragon moves left, slowly") == ["dragon"]
    assert tokenize("a red dragon") == tokenize("red")


def test_the_bundled_encoder_knows_all_words():
    assert demo.load_text_encoder().vocabulary == VOCABULARY
    assert unknown_words("a cat runs right over the meadow") == []
    assert unknown_words("a cat runs right over the meadow", SHAPE_WORDS) == ["cat", "meadow"]
    assert tokenize("a cat runs right over the meadow", SHAPE_WORDS) == tokenize("right on", SHAPE_WORDS)


def test_a_ball_is_a_circle_where_it_has_a_colour_and_to_an_encoder_without_scenes():
    """Seen to fail with synonyms of words that the encoder knows."""
    assert tokenize("a red ball", SHAPE_WORDS) == tokenize("a red circle", SHAPE_WORDS)
    assert tokenize("a ball") == [VOCABULARY.index("ball") + 1] != tokenize("a ball", SHAPE_WORDS)
    assert tokenize("a red ball") == tokenize("a red circle")


def test_every_word_of_a_scene_has_an_embedding_behind_those_of_shapes():
    assert set(SCENE_WORDS) == {*THINGS, *PLACES, *MOTIONS} - set(SHAPE_WORDS)
    assert (*SHAPE_WORDS, *SCENE_WORDS, *STAGING_WORDS) == VOCABULARY and len(set(VOCABULARY)) == len(VOCABULARY)
    captions = [scene.caption(sentence) for scene in all_scenes() for sentence in SENTENCES]
    assert [word for text in captions for word in unknown_words(text)] == []
    assert max(len(tokenize(text)) for text in captions) <= TEXT_TOKENS


def test_an_encoder_with_scenes_is_read_by_its_embeddings(tmp_path):
    encoder = DemoTextEncoder(VOCABULARY)
    save_file(encoder.state_dict(), tmp_path / "text.safetensors")
    found = DemoTextEncoder.load(tmp_path / "text.safetensors")
    assert found.vocabulary == VOCABULARY
    assert torch.equal(found.encode("a cat bounces"), encoder.encode("a cat bounces"))
    too_many = DemoTextEncoder((*VOCABULARY, "more")).state_dict()
    save_file(too_many, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other.safetensors is no text encoder"):
        DemoTextEncoder.load(tmp_path / "other.safetensors")


def test_text_embeddings_have_one_size_and_are_zero_behind_the_words():
    encoder = DemoTextEncoder()
    both = encoder.encode(["a red circle", ""])
    assert both.shape == (2, TEXT_TOKENS, TEXT_DIM)
    assert both[0, :2].abs().min() > 0
    assert not both[0, 2:].any()
    assert not both[1].any()
    assert encoder.encode("red " * 40).shape == (1, TEXT_TOKENS, TEXT_DIM)
    assert not torch.equal(encoder.encode("red circle on blue"), encoder.encode("blue circle on red"))


def test_the_training_forward_gives_what_the_engine_gives_with_its_caches():
    model, draw = wan(), torch.Generator().manual_seed(1)
    clean, first, later = torch.randn(3, 2, 1, CONFIG.in_dim, 3, 8, 8, generator=draw)
    context, sigma = torch.randn(2, 6, CONFIG.text_dim, generator=draw), torch.full((2, 1), 0.8)
    rotations = dit_forward.Rotations(Rope(CONFIG.head_dim, (4, 4)))
    flows = dit_forward.flow(model, context, clean, first, later, sigma, sigma, start=3, rotations=rotations)

    window = CacheWindow(TemporalPolicy(), anchor_frames=1, ring_frames=5, local_frames=2)
    cache = KVCache(Rope(CONFIG.head_dim, (4, 4)), ModelSizes.of(CONFIG), window, CacheOptions(batch=2))
    text, timestep = Text(context), torch.full((2,), 800.0)
    cache.begin(range(3), ())
    engine_first = forward_chunk(model, first[:, 0], timestep, text, cache)
    forward_chunk(model, clean[:, 0], torch.zeros(2), text, cache, PassOptions(cache_pass=True))
    cache.commit()
    cache.begin(range(3, 6), (0, 1, 2))
    engine_later = forward_chunk(model, later[:, 0], timestep, text, cache)
    torch.testing.assert_close(flows[0][:, 0], engine_first, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(flows[1][:, 0], engine_later, atol=1e-5, rtol=1e-4)


def small_vae() -> WanVAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = WanVAE(dim=4).requires_grad_(False)
        vae_forward.initialise(vae)
    return vae


def test_the_training_vae_gives_what_the_streaming_one_gives():
    vae, pixels = small_vae(), torch.rand(1, 3, 9, 32, 32) * 2 - 1
    latents = vae_forward.encode(vae, pixels, wrap=False)
    torch.testing.assert_close(StreamingEncoder(vae, normalised=False).encode(pixels), latents, atol=1e-4, rtol=1e-4)
    decoded = StreamingDecoder(vae, normalised=False).decode(latents)
    torch.testing.assert_close(decoded, vae_forward.decode(vae, latents), atol=1e-4, rtol=1e-4)


def test_an_encoder_that_wraps_gives_rolled_latents_for_a_rolled_world():
    vae, pixels = small_vae(), torch.rand(1, 3, 5, 32, 32) * 2 - 1
    rolled = vae_forward.encode(vae, pixels.roll((8, 16), (3, 4)), wrap=True)
    expected = vae_forward.encode(vae, pixels, wrap=True).roll((1, 2), (3, 4))
    torch.testing.assert_close(rolled, expected, atol=1e-5, rtol=1e-4)


def test_folded_statistics_move_the_latents_to_wans_and_keep_the_picture():
    vae, pixels = small_vae(), torch.rand(1, 3, 5, 32, 32) * 2 - 1
    before = vae_forward.encode(vae, pixels, wrap=False)
    picture = vae_forward.decode(vae, before)
    mean, std = torch.linspace(-1, 1, 16), torch.linspace(0.5, 2, 16)
    fold_statistics(vae, mean, std)
    after = vae_forward.encode(vae, pixels, wrap=False)
    ours, wans = (
        (z - torch.as_tensor(m).view(-1, 1, 1, 1)) / torch.as_tensor(s).view(-1, 1, 1, 1)
        for z, m, s in ((before, mean, std), (after, LATENT_MEAN, LATENT_STD))
    )
    torch.testing.assert_close(wans, ours, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(vae_forward.decode(vae, after), picture, atol=1e-5, rtol=1e-4)


def test_the_bundled_files_are_small_and_load_in_the_dtype_asked_for():
    paths = (demo.TRANSFORMER_PATH, demo.VAE_PATH, demo.TEXT_PATH)
    assert sum(path.stat().st_size for path in paths) <= 15_000_000
    model = demo.load_transformer(dtype=torch.bfloat16)
    assert model.config.text_dim == TEXT_DIM
    assert model.dim // model.num_heads == 128
    assert model.patch_embedding.weight.dtype == torch.float32
    assert model.blocks[0].ffn[0].weight.dtype == torch.bfloat16
    assert next(demo.load_vae(dtype=torch.float16).parameters()).dtype == torch.float16
    assert demo.load_text_encoder().encode(demo.PROMPT).shape == (1, TEXT_TOKENS, TEXT_DIM)
