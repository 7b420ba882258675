"""Files of SGF+: one model with a second set of weights, under the names of its public code."""

from dataclasses import replace

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from tiny import CONFIG, wan
from tiny_vae import make_vae
from tiny_weights import HEADS, WEIGHTS, prefixed, refused, same

from histream_core.cost.cost import Cost
from histream_core.network.forward import Text
from histream_core.network.model import WAN_1_3B
from histream_core.plan import find_preset, make_plan
from histream_core.plan.sharing import why_not
from histream_core.runs.store.fingerprint import fingerprint_weights
from histream_core.runs.weights import Weights
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.weights.checkpoint import read_checkpoint
from histream_core.weights.convert import convert
from histream_core.weights.inspection import describe_wan, inspect
from histream_core.weights.loading import load_wan

SECOND = wan(seed=1).state_dict()


def published(key):
    """The name of a tensor of the second set, as enable_dual_full_expert of the public code gives it."""
    module, _, last = key.rpartition(".")
    return f"{module}.memory_{last}" if key.startswith("blocks.") else f"memory_{key}"


SGF_PLUS = WEIGHTS | {published(key): x for key, x in SECOND.items()}


@pytest.fixture
def file(tmp_path):
    torch.save({"generator": {}, "generator_ema": prefixed("model.", SGF_PLUS)}, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_names_are_those_of_the_public_code():
    assert {
        "memory_patch_embedding.weight",
        "memory_text_embedding.2.bias",
        "memory_time_projection.1.weight",
        "memory_head.modulation",
        "memory_head.head.weight",
        "blocks.1.memory_modulation",
        "blocks.0.norm3.memory_bias",
        "blocks.0.self_attn.norm_q.memory_weight",
        "blocks.1.cross_attn.o.memory_bias",
        "blocks.0.ffn.2.memory_weight",
    } < SGF_PLUS.keys()


def test_both_sets_load_and_are_known(file):
    model, found = load_wan(file)
    assert model.second is not None and found.second
    same(model.second.state_dict(), SECOND)
    same({key: x for key, x in model.state_dict().items() if not key.startswith("second.")}, WEIGHTS)
    facts = inspect(file)
    assert (facts["kind"], facts["preset"], facts["second_weights"]) == ("wan", "sgf-plus", True)
    assert (facts["num_missing"], facts["left_over"], describe_wan(found)) == (0, [], [])
    half, _ = load_wan(file, dtype=torch.bfloat16)
    assert half.second is not None and half.second.blocks[0].ffn[0].weight.dtype == torch.bfloat16
    assert half.second.patch_embedding.weight.dtype == half.second.head.modulation.dtype == torch.float32


def test_a_converted_file_has_the_published_names_and_both_sets(file, tmp_path):
    for dtype in (None, torch.float32):
        convert(file, tmp_path / "b.safetensors", dtype=dtype, overwrite=True)
        same(load_file(tmp_path / "b.safetensors"), SGF_PLUS)
        assert read_checkpoint(tmp_path / "b.safetensors").metadata["histream_preset"] == "sgf-plus"


@pytest.mark.parametrize("key", ["blocks.1.ffn.0.memory_weight", "memory_text_embedding.0.weight"])
def test_half_of_a_second_set_is_refused(key, tmp_path):
    """By its name in the file. Seen to fail where the expected names are those of the first set alone."""
    save_file({name: x.clone() for name, x in SGF_PLUS.items() if name != key}, tmp_path / "a.safetensors", HEADS)
    refused(tmp_path / "a.safetensors", f"1 missing ({key})", load=load_wan)


def weights(file, preset):
    model, _ = load_wan(file)
    return Weights(model, make_vae(), find_preset(preset), torch.device("cpu"), torch.float32)


def test_a_preset_that_does_not_fit_the_sets_is_refused_before_the_first_step(file, tmp_path):
    save_file(WEIGHTS, tmp_path / "one.safetensors", HEADS)
    for name, preset, words in (
        ("model.pt", "sgf", "which this preset would not use: take the preset sgf-plus"),
        ("one.safetensors", "sgf-plus", "which this model does not have: take the preset sgf,"),
    ):
        found = weights(tmp_path / name, preset)
        plan = tiny.plan_of(found.preset, "full", num_frames=6)
        text = Prompt(Text(torch.zeros(1, 4, CONFIG.text_dim)))
        with pytest.raises(ValueError, match=words):
            found.open_stream(plan, SeededNoise(1), [text], progress=found.new_progress(plan))


def test_a_run_depends_on_the_second_set(file):
    model, _ = load_wan(file)
    before = fingerprint_weights(model)
    assert model.second is not None
    model.second.blocks[0].ffn[0].weight.mul_(1.01)
    assert fingerprint_weights(model) != before


def test_the_cost_counts_both_sets_and_several_gpus_are_refused():
    plan = make_plan(find_preset("sgf-plus"), "full", size=(832, 480), num_latent_frames=21)
    both, one = Cost(WAN_1_3B, plan), Cost(WAN_1_3B, replace(plan, second_weights=False))
    assert (both.weight_bytes, both.kv_bytes) == (2 * one.weight_bytes, one.kv_bytes)
    assert both.peak_bytes - one.peak_bytes == one.weight_bytes + both.text_bytes - one.text_bytes
    assert "second one for cache passes: use decode" in why_not(plan, "sequence", 2, 12, 30)
    assert why_not(plan, "decode", 2, 12, 30) == ""


def test_the_memory_in_the_note_of_the_wide_windows_is_the_counted_one():
    for name in ("sgf-framewise", "sgf-plus-framewise"):
        preset = find_preset(name)
        sizes = [(1920, 1088), (832, 480)]
        costs = [Cost(WAN_1_3B, make_plan(preset, "histream", size=s, num_latent_frames=42)) for s in sizes]
        told = [f"{cost.kv_bytes / 2**30:.1f}" for cost in costs]
        assert "{} GB of keys and values at 1920x1088 and {} at 832x480".format(*told) in preset.note
