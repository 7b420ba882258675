"""The VAE module tree: its keys, its sizes, its causality."""

import pytest
import torch

from histream_core.vae.model import LATENT_MEAN, LATENT_STD, AttentionBlock, CausalConv3d, WanVAE


def test_the_published_width_has_the_published_keys_and_sizes():
    with torch.device("meta"):
        weights = WanVAE().state_dict()
    assert len(weights) == 194
    assert weights["encoder.downsamples.5.time_conv.weight"].shape == (192, 192, 3, 1, 1)
    assert weights["encoder.downsamples.3.shortcut.weight"].shape == (192, 96, 1, 1, 1)
    assert weights["encoder.middle.1.to_qkv.weight"].shape == (1152, 384, 1, 1)
    assert weights["decoder.upsamples.3.time_conv.weight"].shape == (768, 384, 3, 1, 1)
    assert weights["decoder.upsamples.4.residual.0.gamma"].shape == (192, 1, 1, 1)
    assert weights["decoder.upsamples.11.resample.1.weight"].shape == (96, 192, 3, 3)
    assert weights["decoder.head.2.weight"].shape == (3, 96, 3, 3, 3)
    assert "encoder.downsamples.2.time_conv.weight" not in weights
    assert sum(w.numel() for w in weights.values()) == 126_892_531


def test_any_width_is_read_off_the_weights():
    weights = WanVAE(dim=4).state_dict()
    vae = WanVAE.from_state_dict(weights)
    assert vae.dim == 4
    assert torch.equal(vae.decoder.conv1.weight, weights["decoder.conv1.weight"])


@pytest.mark.parametrize("damage", ["missing", "left over", "wrong size", "not a vae"])
def test_weights_that_do_not_fit_are_refused_by_name(damage):
    weights = dict(WanVAE(dim=4).state_dict())
    if damage == "missing":
        del weights["conv1.bias"]
    elif damage == "left over":
        weights["more.bias"] = torch.zeros(1)
    elif damage == "wrong size":
        weights["conv1.bias"] = torch.zeros(3)
    else:
        weights = {"blocks.0.weight": torch.zeros(1)}
    name = {"left over": "more.bias", "not a vae": "decoder.head.0.gamma"}.get(damage, "conv1.bias")
    with pytest.raises(ValueError, match=name):
        WanVAE.from_state_dict(weights)


def test_a_causal_convolution_in_pieces_equals_the_whole():
    conv = CausalConv3d(3, 5, 3, padding=1)
    x = torch.randn(1, 3, 7, 4, 4)
    pieces = torch.cat([conv(x[:, :, :1]), conv(x[:, :, 1:4], x[:, :, :1]), conv(x[:, :, 4:], x[:, :, 2:4])], dim=2)
    torch.testing.assert_close(pieces, conv(x))


def test_a_first_frame_alone_is_a_2d_convolution_of_the_last_tap():
    """Seen to fail with the first tap."""
    conv = CausalConv3d(3, 5, 3, padding=1).double()
    x = torch.randn(2, 3, 1, 4, 6, dtype=torch.double)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1, 2, 0))
    torch.testing.assert_close(conv(x), torch.nn.functional.conv3d(padded, conv.weight, conv.bias))


def test_attention_stays_inside_a_frame():
    block = AttentionBlock(8)
    x = torch.randn(1, 8, 2, 4, 4)
    changed = x.clone()
    changed[:, :, 1] += 1
    assert torch.equal(block(x)[:, :, 0], block(changed)[:, :, 0])
    assert not torch.equal(block(x)[:, :, 1], block(changed)[:, :, 1])


def test_latent_statistics_are_sixteen_each():
    assert len(LATENT_MEAN) == len(LATENT_STD) == 16
    assert min(LATENT_STD) > 1
