"""The Wan 2.1 video VAE as a module tree, with the state-dict keys of the published file, at any width.

Shapes: pixels [B, 3, F, H, W] in [-1, 1]; latents [B, 16, T, H/8, W/8] with F = 1 + 4 (T - 1). The tree holds the
parameters and the forwards that need no history; the streaming forward over it is in `encode` and `decode`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Z_DIM = 16
DIM_MULT = (1, 2, 4, 4)
TEMPORAL_DOWNSAMPLE = (False, True, True)
BLOCKS_PER_LEVEL = 2

ROW = 16
"""Values in a row from which on a product of a column and a row is fast on a CPU."""

SCORES = 2**27
"""Scores of attention that exist at once; queries pass in blocks, so that the memory for them has a bound."""

# Statistics of Wan 2.1 latents by channel, as published: the network sees (z - mean) / std.
LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


class CausalConv3d(nn.Conv3d):
    """A 3-D convolution without access to future frames, padded with zeros (or `cache_x`) before the first one."""

    padding: tuple[int, int, int]

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._padding = 2 * self.padding[0]
        self.padding = (0, self.padding[1], self.padding[2])

    def forward(self, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        """`x` [B, C, T, H, W]; `cache_x` the frames before it, at most as many as the kernel reads."""
        missing = self._padding
        if missing and cache_x is None and x.shape[2] == 1:  # the two frames before are zeros
            flat = F.conv2d(x[:, :, 0], self.weight[:, :, -1], self.bias, self.stride[1:], self.padding[1:])
            return flat.unsqueeze(2)
        if cache_x is not None and missing:
            x = torch.cat([cache_x.to(x), x], dim=2)
            missing = max(0, missing - cache_x.shape[2])
        return super().forward(F.pad(x, (0, 0, 0, 0, missing, 0)) if missing else x)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
            # The kernel that torch chooses for few frames is 5 to 10 times slower.
            return torch.mkldnn_convolution(x, weight, bias, self.padding, self.stride, self.dilation, self.groups)
        return super()._conv_forward(x, weight, bias)


class RMS_norm(nn.Module):  # noqa: N801 - the published name
    """Normalisation over channels with a learned gain, for x [B, C, H, W] (`images`) or [B, C, T, H, W]."""

    def __init__(self, dim: int, images: bool = True) -> None:
        super().__init__()
        self.scale = dim**0.5
        self.gamma = nn.Parameter(torch.ones(dim, 1, 1) if images else torch.ones(dim, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if lies_by_pixels(x):
            return self._by_pixels(x)
        if x.dtype == torch.float32:
            length = x.square().sum(dim=1, keepdim=True).sqrt()  # 5 times faster than torch's norm on the CPU
        else:
            length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return (x * (self.scale / length.clamp_min(1e-12))).mul_(self.gamma.to(x))

    def _by_pixels(self, x: Tensor) -> Tensor:
        """The norm of pixels whose channels lie side by side, by products: torch sums and repeats few values slowly."""
        pixels, dim = x.movedim(1, -1), x.shape[1]
        rows = pixels.flatten(0, -2)
        length = torch.mv(rows.square(), rows.new_ones(dim)).sqrt_()
        together = math.gcd(len(rows), max(1, ROW // dim))
        gains = torch.kron(torch.eye(together, dtype=x.dtype), self.gamma.to(x).view(1, dim))
        factors = (self.scale / length.clamp_min(1e-12)).view(-1, together) @ gains
        return factors.view(pixels.shape).mul_(pixels).movedim(-1, 1)


def lies_by_pixels(x: Tensor) -> bool:
    """Whether x [B, C, ...] is float32 on the CPU and channels last, in which convolutions are fastest there."""
    return x.is_cpu and x.dtype == torch.float32 and not x.is_contiguous() and x.movedim(1, -1).is_contiguous()


class Resample(nn.Module):
    """Resampling by 2 in space (`*2d`), or in space and time (`*3d`, whose temporal half is `time_conv`)."""

    def __init__(self, dim: int, mode: str) -> None:
        super().__init__()
        self.dim = dim
        self.mode = mode
        if mode.startswith("upsample"):
            self.resample = nn.Sequential(
                nn.Upsample(scale_factor=(2.0, 2.0), mode="nearest-exact"),
                nn.Conv2d(dim, dim // 2, 3, padding=1),
            )
        else:
            self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(dim, dim, 3, stride=(2, 2)))
        if mode == "upsample3d":
            self.time_conv = CausalConv3d(dim, dim * 2, (3, 1, 1), padding=(1, 0, 0))
        elif mode == "downsample3d":
            self.time_conv = CausalConv3d(dim, dim, (3, 1, 1), stride=(2, 1, 1), padding=(0, 0, 0))


class ResidualBlock(nn.Module):
    """Two causal convolutions and a shortcut."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.out_dim = out_dim
        self.residual = nn.Sequential(
            RMS_norm(in_dim, images=False),
            nn.SiLU(),
            CausalConv3d(in_dim, out_dim, 3, padding=1),
            RMS_norm(out_dim, images=False),
            nn.SiLU(),
            nn.Dropout(0.0),
            CausalConv3d(out_dim, out_dim, 3, padding=1),
        )
        self.shortcut = CausalConv3d(in_dim, out_dim, 1) if in_dim != out_dim else nn.Identity()


class AttentionBlock(nn.Module):
    """Single-head attention within each frame."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.norm = RMS_norm(dim)
        self.to_qkv = nn.Conv2d(dim, dim * 3, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] to [B, C, T, H, W]; frames do not attend to each other."""
        b, c, t, h, w = x.shape
        frames = x.transpose(1, 2).reshape(b * t, c, h, w)
        qkv = self.to_qkv(self.norm(frames)).flatten(2).transpose(1, 2)
        mixed = attend_in_blocks(*(part.contiguous() for part in qkv.chunk(3, dim=-1)))
        out = self.proj(mixed.transpose(1, 2).reshape(b * t, c, h, w))
        return x + out.reshape(b, t, c, h, w).transpose(1, 2)


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of one wide head, [B, N, C] each and contiguous, with at most SCORES scores at once.

    Fused kernels take contiguous tensors alone; for others PyTorch has one that holds every score in float32.
    """
    attend = _attend_by_products if has_float32_products(q) else _attend_by_torch
    rows = max(1, SCORES // (k.shape[0] * k.shape[1]))
    return torch.cat([attend(block, k, v) for block in q.split(rows, dim=1)], dim=1)


def _attend_by_torch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention by a kernel that PyTorch chooses; fused ones take four dimensions alone."""
    return F.scaled_dot_product_attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1)).squeeze(1)


def has_float32_products(x: Tensor) -> bool:
    """Whether products of two half-precision tensors such as `x` can be stored in float32 on their device."""
    is_half = x.dtype in (torch.float16, torch.bfloat16)
    return x.is_cuda and is_half and torch.version.hip is None and "dtype" in torch.ops.aten.bmm.overloads()


def _attend_by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention by two matrix products, with scores and their softmax in float32 as in fused kernels.

    Those are slow on CUDA for heads of more than 256 channels, and the VAE's has 384.
    """
    scores = torch.bmm(q, k.mT, out_dtype=torch.float32).mul_(q.shape[-1] ** -0.5)
    return torch.bmm(scores.softmax(dim=-1).to(v.dtype), v)


def attention_bytes(frames: int, cells: int) -> int:
    """Bytes at the peak of attention in frames of so many cells: its scores in float32, before and after softmax."""
    return 2 * torch.float32.itemsize * min(frames * cells**2, SCORES)


def _middle(dim: int) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(dim, dim), AttentionBlock(dim), ResidualBlock(dim, dim))


def _head(dim: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(RMS_norm(dim, images=False), nn.SiLU(), CausalConv3d(dim, out_channels, 3, padding=1))


class Encoder3d(nn.Module):
    """Pixels to `z_dim` channels, at an eighth of the size and a quarter of the frames (after the first)."""

    def __init__(self, dim: int, z_dim: int, image_channels: int, dim_mult: Sequence[int], temporal: Sequence[bool]):
        super().__init__()
        dims = [dim * m for m in (1, *dim_mult)]
        self.conv1 = CausalConv3d(image_channels, dims[0], 3, padding=1)
        layers: list[nn.Module] = []
        for level, (in_dim, out_dim) in enumerate(pairwise(dims)):
            layers += [ResidualBlock(in_dim if i == 0 else out_dim, out_dim) for i in range(BLOCKS_PER_LEVEL)]
            if level < len(dim_mult) - 1:
                layers.append(Resample(out_dim, "downsample3d" if temporal[level] else "downsample2d"))
        self.downsamples = nn.Sequential(*layers)
        self.middle = _middle(dims[-1])
        self.head = _head(dims[-1], z_dim)


class Decoder3d(nn.Module):
    """Latents to pixels, the mirror of the encoder; every `Resample` halves the channels."""

    def __init__(self, dim: int, z_dim: int, image_channels: int, dim_mult: Sequence[int], temporal: Sequence[bool]):
        super().__init__()
        dims = [dim * m for m in (dim_mult[-1], *reversed(dim_mult))]
        self.conv1 = CausalConv3d(z_dim, dims[0], 3, padding=1)
        self.middle = _middle(dims[0])
        layers: list[nn.Module] = []
        for level, (in_dim, out_dim) in enumerate(pairwise(dims)):
            first = in_dim if level == 0 else in_dim // 2
            layers += [ResidualBlock(first if i == 0 else out_dim, out_dim) for i in range(BLOCKS_PER_LEVEL + 1)]
            if level < len(dim_mult) - 1:
                layers.append(Resample(out_dim, "upsample3d" if temporal[level] else "upsample2d"))
        self.upsamples = nn.Sequential(*layers)
        self.head = _head(dims[-1], image_channels)


class WanVAE(nn.Module):
    """The VAE: `encoder`, `conv1` (moments), `conv2`, `decoder`, at width `dim` (96 in Wan 2.1)."""

    def __init__(
        self,
        *,
        dim: int = 96,
        z_dim: int = Z_DIM,
        dim_mult: Sequence[int] = DIM_MULT,
        temporal_downsample: Sequence[bool] = TEMPORAL_DOWNSAMPLE,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.z_dim = z_dim
        temporal_upsample = tuple(reversed(temporal_downsample))
        self.encoder = Encoder3d(dim, 2 * z_dim, image_channels, dim_mult, temporal_downsample)
        self.conv1 = CausalConv3d(2 * z_dim, 2 * z_dim, 1)
        self.conv2 = CausalConv3d(z_dim, z_dim, 1)
        self.decoder = Decoder3d(dim, z_dim, image_channels, dim_mult, temporal_upsample)

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> WanVAE:
        """Build the VAE of these weights, in their sizes and dtype. Raises ValueError that names odd keys."""
        for key in ("decoder.head.0.gamma", "conv2.weight", "encoder.conv1.weight"):
            if key not in state_dict:
                raise ValueError(f"this is not a Wan VAE: {key} is missing")
        with torch.device("meta"):
            vae = cls(
                dim=state_dict["decoder.head.0.gamma"].shape[0],
                z_dim=state_dict["conv2.weight"].shape[0],
                image_channels=state_dict["encoder.conv1.weight"].shape[1],
            )
        expected = vae.state_dict()
        odd = sorted(expected.keys() ^ state_dict.keys())
        odd += [k for k in expected.keys() & state_dict.keys() if expected[k].shape != state_dict[k].shape]
        if odd:
            raise ValueError(f"{len(odd)} Wan VAE weights are missing, left over or of the wrong size: {odd[:5]}")
        vae.load_state_dict(dict(state_dict), strict=True, assign=True)
        return vae.requires_grad_(False).eval()
