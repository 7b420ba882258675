"""Weights that are loaded to run: their dtype, what stays exact, and what fp8 with scales becomes."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import CONFIG
from tiny_weights import HEADS, WEIGHTS, prefixed, same

from histream_core.vae.model import WanVAE
from histream_core.weights.checkpoint import read_checkpoint
from histream_core.weights.containers import CheckpointError
from histream_core.weights.convert import convert
from histream_core.weights.inspection import inspect
from histream_core.weights.loading import load_vae, load_wan


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loading_casts_down_but_not_what_must_stay_exact(dtype, tmp_path):
    save_file(WEIGHTS, tmp_path / "a.safetensors", HEADS)
    model, found = load_wan(tmp_path / "a.safetensors", dtype=dtype)
    assert model.config == CONFIG and found.dtype == dtype
    for key, x in model.state_dict().items():
        exact = "modulation" in key or key.startswith("patch_embedding")
        assert x.dtype == (torch.float32 if exact else dtype), key
        assert torch.equal(x, WEIGHTS[key].to(x.dtype)), key
        assert found.state_dict[key].data_ptr() == x.data_ptr(), "weights exist twice"
    assert not any(p.requires_grad for p in model.parameters()) and not model.training


def test_loading_without_a_dtype_keeps_the_stored_one_and_the_file_behind_it(tmp_path):
    save_file({key: x.bfloat16() for key, x in WEIGHTS.items()}, tmp_path / "a.safetensors", HEADS)
    model, _ = load_wan(tmp_path / "a.safetensors")
    assert model.blocks[0].ffn[0].weight.dtype == torch.bfloat16
    assert model.patch_embedding.weight.dtype == torch.float32


def test_a_weight_that_overflows_float16_is_named(tmp_path):
    big = WEIGHTS | {"blocks.1.ffn.0.bias": torch.full_like(WEIGHTS["blocks.1.ffn.0.bias"], 1e6)}
    save_file(big, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"overflows float16 in blocks\.1\.ffn\.0\.bias"):
        load_wan(tmp_path / "a.safetensors", dtype=torch.float16)
    load_wan(tmp_path / "a.safetensors", dtype=torch.bfloat16)


def test_a_vae_loads_from_either_format(tmp_path):
    weights = WanVAE(dim=8).state_dict()
    save_file(weights, tmp_path / "vae.safetensors")
    torch.save({"model": weights}, tmp_path / "vae.pth")
    for name in ("vae.safetensors", "vae.pth"):
        vae = load_vae(tmp_path / name, dtype=torch.bfloat16)
        same(vae.state_dict(), {key: x.bfloat16() for key, x in weights.items()})
        assert inspect(tmp_path / name)["kind"] == "wan-vae"


def scaled(style):
    """Weights as ComfyUI stores fp8: every linear weight of the blocks with a scale beside it."""
    stored, exact = {}, {}
    for key, x in WEIGHTS.items():
        if x.ndim == 2 and key.startswith("blocks."):
            scale = x.abs().max() / 448
            stored[key] = (x / scale).to(torch.float8_e4m3fn)
            layer = key.removesuffix("weight")
            stored[layer + style["weight"]] = scale
            stored[layer + style["input"]] = torch.tensor(1.0)
            exact[key] = stored[key].float() * scale
        else:
            stored[key] = exact[key] = x
    return stored | style["extra"], exact


STYLES = {
    "older": {"weight": "scale_weight", "input": "scale_input", "extra": {"scaled_fp8": torch.zeros(2)}},
    "newer": {"weight": "weight_scale", "input": "input_scale", "extra": {}},
}


@pytest.mark.parametrize("style", STYLES)
def test_fp8_with_scales_is_multiplied_out_and_kept_for_the_host(style, tmp_path):
    stored, exact = scaled(STYLES[style])
    save_file(prefixed("model.", stored), tmp_path / "a.safetensors", HEADS)
    found = read_checkpoint(tmp_path / "a.safetensors", kind="wan")
    assert found.quantised and inspect(tmp_path / "a.safetensors")["num_left_over"] == 0
    model, _ = load_wan(tmp_path / "a.safetensors", dtype=torch.float32)
    same(model.state_dict(), exact)
    convert(tmp_path / "a.safetensors", tmp_path / "kept.safetensors")
    same(load_file(tmp_path / "kept.safetensors"), stored)
    convert(tmp_path / "a.safetensors", tmp_path / "plain.safetensors", dtype=torch.bfloat16)
    plain = load_file(tmp_path / "plain.safetensors")
    same(plain, {key: x.to(plain[key].dtype) for key, x in exact.items()})


def test_fp8_without_scales_loads_in_bfloat16(tmp_path):
    low = {key: x.to(torch.float8_e4m3fn) if x.ndim == 2 else x for key, x in WEIGHTS.items()}
    save_file(low, tmp_path / "a.safetensors")
    model, _ = load_wan(tmp_path / "a.safetensors")
    assert model.blocks[0].ffn[0].weight.dtype == torch.bfloat16
    same(
        model.blocks[0].ffn[0].state_dict(),
        {key: low[f"blocks.0.ffn.0.{key}"].bfloat16() for key in ("weight", "bias")},
    )


def test_other_quantised_formats_are_refused_headless(tmp_path):
    packed = dict(WEIGHTS)
    packed["blocks.0.ffn.0.weight"] = torch.zeros(64, 24, dtype=torch.uint8)
    packed["blocks.0.ffn.0.weight_scale"] = torch.ones(64, 3)
    save_file(packed, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="only ComfyUI can run"):
        load_wan(tmp_path / "a.safetensors", dtype=torch.bfloat16)
