"""Norms and rotations by comfy-kitchen: equal results except for last bits. A fake with its signatures replaces it."""

import sys

import pytest
import tiny
import torch

from histream_core.network.forward import Denoiser
from histream_core.network.layer import run_block
from histream_core.network.ops import elementwise
from histream_core.network.ops.elementwise import choose_elementwise, fused
from histream_core.network.ops.rope import Rope
from histream_core.plan.positions import TemporalPolicy

KITCHEN = """
import torch

calls = []

def adaln(x, scale, shift, eps):
    calls.append("adaln")
    return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale) + shift

def apply_rope1(x, freqs_cis):
    calls.append("apply_rope1")
    assert x.ndim == 4 and freqs_cis.ndim == 6, "kernels want that"
    pairs = x.float().reshape(*x.shape[:-1], -1, 1, 2)
    return (freqs_cis[..., 0] * pairs[..., 0] + freqs_cis[..., 1] * pairs[..., 1]).reshape(x.shape).type_as(x)

def apply_rope1_(x, freqs_cis):
    calls.append("apply_rope1_")
    x.copy_(apply_rope1(x, freqs_cis))
    return x
"""


@pytest.fixture
def kitchen(tmp_path, monkeypatch):
    """Install a fake comfy-kitchen that computes by PyTorch; return the list of its calls."""
    (tmp_path / "comfy_kitchen.py").write_text(KITCHEN)
    monkeypatch.syspath_prepend(tmp_path)
    real = sys.modules.pop("comfy_kitchen", None)
    fused.cache_clear()
    fused()
    yield sys.modules.pop("comfy_kitchen").calls
    fused.cache_clear()
    sys.modules.update({"comfy_kitchen": real} if real else {})


def make(block):
    moving = TemporalPolicy(span=3)
    return tiny.video(tiny.plan(temporal=moving), denoise=Denoiser(tiny.wan(), block_forward=block))


def test_a_video_is_the_same_but_for_last_bits(kitchen):
    """The anchor moves, so un-rotated keys must not be overwritten. Seen to fail when keys are rotated in place."""
    got, wanted = make(choose_elementwise("fused", run_block)), make(run_block)
    assert (got - wanted).norm() / wanted.norm() < 1e-5
    assert {"adaln", "apply_rope1", "apply_rope1_"} == set(kitchen)


def test_it_has_a_function_that_is_found_again(kitchen):
    assert choose_elementwise("fused", run_block) is choose_elementwise("fused", run_block)
    assert choose_elementwise("plain", run_block) is run_block


def test_at_the_size_of_a_real_layer_in_bfloat16_it_is_as_near_to_float32_as_plain_kernels(kitchen):
    draw = torch.Generator().manual_seed(0)
    norm = torch.nn.LayerNorm(1536, eps=1e-6, elementwise_affine=False)
    x, shift, scale = (torch.randn(1, tokens, 1536, generator=draw) for tokens in (48, 1, 1))
    table = Rope(128, (6, 8)).table([3])
    heads, plain = x.unflatten(2, (12, 128)), elementwise.PLAIN
    for name, first, rest in (
        ("modulate", x, (shift, scale)),
        ("rotate", heads, (table,)),
        ("rotate_", heads, (table,)),
    ):
        lead = (norm,) if name == "modulate" else ()
        wanted = getattr(plain, name)(*lead, first, *rest)
        rest = tuple(part.bfloat16() for part in rest) if lead else rest
        errors = [
            (getattr(way, name)(*lead, first.bfloat16(), *rest).float() - wanted).norm() / wanted.norm()
            for way in (plain, fused())
        ]
        assert errors[1] < 1.5 * errors[0] < 0.01, name


def test_what_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(elementwise, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match="elementwise fused is not installed: install comfy-kitchen, or choose plain"):
        choose_elementwise("fused", run_block)
