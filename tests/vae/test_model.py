"""The VAE module tree: its keys, its sizes, its causality."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from histream_core.vae import model
from histream_core.vae.model import (
    LATENT_MEAN,
    LATENT_STD,
    AttentionBlock,
    CausalConv3d,
    RMS_norm,
    WanVAE,
    attend_in_blocks,
    has_float32_products,
    lies_by_pixels,
)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("laid_out", [torch.contiguous_format, torch.channels_last])
def test_kernels_of_attention_get_what_a_fused_one_takes(monkeypatch, dtype, laid_out):
    """PyTorch makes all scores of other tensors in float32. Seen to fail with parts of the convolution as they are."""
    seen, attend = [], F.scaled_dot_product_attention

    def look(*tensors):
        seen.extend(tensors)
        return attend(*tensors)

    monkeypatch.setattr(F, "scaled_dot_product_attention", look)
    block = AttentionBlock(8).to(dtype)
    frames = torch.randn(2, 8, 4, 6, dtype=dtype).to(memory_format=laid_out)
    block(frames.unflatten(0, (1, 2)).transpose(1, 2))
    assert len(seen) == 3 and all(x.is_contiguous() and x.ndim == 4 for x in seen)


def scores_of(dtype):
    """Queries, keys and values [1, N, C], far enough apart that few keys count, and the exact answer."""
    torch.manual_seed(1)
    q, k, v = (torch.randn(1, 50, 24).mul(scale).to(dtype) for scale in (3, 3, 1))
    weights = (q.double() @ k.double().mT / 24**0.5).softmax(-1)
    return (q, k, v), weights @ v.double()


def test_queries_in_blocks_answer_as_all_at_once(monkeypatch):
    """Seen to fail with keys split too."""
    operands, exact = scores_of(torch.float32)
    whole = attend_in_blocks(*operands)
    monkeypatch.setattr(model, "SCORES", 50 * 7)
    torch.testing.assert_close(attend_in_blocks(*operands), whole, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(whole.double(), exact, rtol=1e-5, atol=1e-5)


def test_on_a_gpu_scores_of_half_precision_are_made_in_float32(monkeypatch):
    """Products of the CPU stand in for those of a GPU. Seen to fail with scores in bfloat16, and without a scale."""
    operands, exact = scores_of(torch.bfloat16)
    monkeypatch.setattr(model, "has_float32_products", lambda x: x.dtype == torch.bfloat16)
    monkeypatch.setattr(model, "SCORES", 50 * 7)
    monkeypatch.setattr(torch, "bmm", bmm := Products())
    error = (attend_in_blocks(*operands).double() - exact).norm() / exact.norm()
    assert error < 0.003
    assert bmm.most == 50 * 7 and bmm.made == [torch.float32, torch.bfloat16] * 8


class Products:
    """`torch.bmm` as CUDA has it: sums in float32, stored in `out_dtype`. Remembers what it made."""

    def __init__(self):
        self.made, self.most = [], 0

    def __call__(self, x, y, out_dtype=None):
        assert x.dtype == y.dtype and x.stride(-1) == 1 and 1 in y.stride()[-2:], "cuBLAS would copy it first"
        product = (x.float() @ y.float()).to(out_dtype or x.dtype)
        self.made.append(product.dtype)
        self.most = max(self.most, product.numel() if out_dtype else 0)
        return product


def test_at_1080p_a_gpu_makes_a_bounded_number_of_scores(monkeypatch):
    """Shapes, strides and types alone. Seen to fail without blocks."""
    made = []

    def bmm(x, y, out_dtype=None):
        made.append(x.shape[0] * x.shape[1] * y.shape[2])
        return x.new_empty(x.shape[0], x.shape[1], y.shape[2], dtype=out_dtype or x.dtype)

    monkeypatch.setattr(torch, "bmm", bmm)
    monkeypatch.setattr(model, "has_float32_products", lambda x: True)
    with torch.device("meta"), torch.no_grad():
        block = AttentionBlock(384).to(torch.bfloat16)
        out = block(torch.empty(1, 384, 1, 136, 240, dtype=torch.bfloat16))
    assert out.shape == (1, 384, 1, 136, 240)
    assert max(made) <= model.SCORES and sum(made[::2]) == (136 * 240) ** 2


def test_half_precision_on_cuda_alone_has_products_in_float32(monkeypatch):
    """Tensors of a GPU that is not there. Seen to fail for float32, and for AMD's GPUs."""

    def on(device, dtype):
        return has_float32_products(torch.empty(1, device=device, dtype=dtype))

    with FakeTensorMode():
        assert on("cuda", torch.bfloat16) and on("cuda", torch.float16)
        assert not on("cuda", torch.float32) and not on("cpu", torch.bfloat16)
        monkeypatch.setattr(torch.version, "hip", "6.4")
        assert not on("cuda", torch.bfloat16)


@pytest.mark.parametrize("dim", [1, 3, 8, 16, 24])
def test_the_norm_of_pixels_side_by_side_is_that_of_planes(dim):
    """For numbers of pixels that rows of several go into and others; a black pixel stays black."""
    norm = RMS_norm(dim, images=False)
    norm.gamma.data.copy_(torch.rand(norm.gamma.shape))
    for shape in ((2, dim, 3, 5, 7), (1, dim, 1, 16, 8)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        x[..., 0, 0] = 0
        y = norm(x.to(memory_format=torch.channels_last_3d))
        assert lies_by_pixels(y) or dim == 1
        torch.testing.assert_close(y, norm(x), rtol=1e-6, atol=1e-6)
