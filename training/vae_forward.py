"""Forward of the Wan VAE on whole clips, for training: equal to the streaming forward, several times faster.

Frames are folded into the batch, [B T, C, H, W] in channels-last memory, and convolutions are 2-D. Above the smallest
grid the demo VAE is not temporal: there the past taps of the 3x3x3 kernels stay zero and only the last one is used.
`wrap` gives the encoder circular padding instead of zeros, so that a shifted world has shifted latents.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from histream_core.vae.model import AttentionBlock, CausalConv3d, Resample, ResidualBlock, RMS_norm, WanVAE

FRAME_LAYERS = 5
"""Layers of the encoder before its first that is temporal."""


def initialise(vae: WanVAE) -> None:
    """Initialise near the identity, without which training stalls: down averages, up copies, small residuals."""
    for module in vae.modules():
        if isinstance(module, ResidualBlock):
            module.residual[6].weight.data.mul_(0.2)
            for conv in (module.residual[2], module.residual[6]):
                conv.weight.data[:, :, :2] = 0
                nn.init.zeros_(conv.bias)
            if isinstance(module.shortcut, CausalConv3d):
                nn.init.dirac_(module.shortcut.weight)
                nn.init.zeros_(module.shortcut.bias)
        elif isinstance(module, AttentionBlock):
            for conv in (module.to_qkv, module.proj):
                nn.init.zeros_(conv.weight)
                nn.init.zeros_(conv.bias)
        elif isinstance(module, Resample):
            _initialise_resample(module)
    for conv in (vae.encoder.conv1, vae.decoder.head[2]):
        conv.weight.data[:, :, :2] = 0


def _initialise_resample(module: Resample) -> None:
    conv = module.resample[1]
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    channels = torch.arange(conv.weight.shape[0])
    if module.mode.startswith("down"):
        conv.weight.data[channels, channels, :2, :2] = 0.25
    else:
        conv.weight.data[channels, channels, 1, 1] = 1.0
    if hasattr(module, "time_conv"):
        nn.init.zeros_(module.time_conv.weight)
        nn.init.zeros_(module.time_conv.bias)
        out, into = module.time_conv.weight.shape[:2]
        channels = torch.arange(out)
        taps = slice(0, 3) if module.mode == "downsample3d" else slice(2, 3)
        module.time_conv.weight.data[channels, channels % into, taps] = 1.0 / (taps.stop - taps.start)


def encode(vae: WanVAE, pixels: Tensor, *, wrap: bool) -> Tensor:
    """Encode [B, 3, F, H, W] in [-1, 1] to unnormalised latents [B, 16, T, H/8, W/8]."""
    return encode_features(vae, frame_features(vae, pixels, wrap=wrap), wrap=wrap)


def frame_features(vae: WanVAE, pixels: Tensor, *, wrap: bool) -> Tensor:
    """The encoder's features [B, c, F, H/2, W/2] up to where frames meet: each is of its own frame alone."""
    b = pixels.shape[0]
    x = _conv(vae.encoder.conv1, _fold(pixels), b, wrap, temporal=False)
    for layer in vae.encoder.downsamples[:FRAME_LAYERS]:
        x = _down(layer, x, b, wrap) if isinstance(layer, Resample) else _residual(layer, x, b, wrap, temporal=False)
    return _unfold(x, b)


def encode_features(vae: WanVAE, features: Tensor, *, wrap: bool) -> Tensor:
    """Latents of `frame_features`, in any order and as often as wanted."""
    b, x, small = features.shape[0], _fold(features), False
    for layer in vae.encoder.downsamples[FRAME_LAYERS:]:
        if isinstance(layer, Resample):
            x = _down(layer, x, b, wrap)
            small = layer is vae.encoder.downsamples[8]
        else:
            x = _residual(layer, x, b, wrap, temporal=small)
    x = _ends(vae.encoder, x, b, wrap)
    x = _conv(vae.encoder.head[2], x, b, wrap)
    return _unfold(_conv(vae.conv1, x, b, wrap), b)[:, : vae.z_dim]


def decode(vae: WanVAE, latents: Tensor) -> Tensor:
    """Decode unnormalised latents [B, 16, T, h, w] to [B, 3, F, 8h, 8w]."""
    b = latents.shape[0]
    x = _conv(vae.decoder.conv1, _conv(vae.conv2, _fold(latents), b, False), b, False)
    for layer in (vae.decoder.middle[0], vae.decoder.middle[2]):
        x = _residual(layer, x, b, False, temporal=True)
    small = True
    for layer in vae.decoder.upsamples:
        if isinstance(layer, Resample):
            x = _up(layer, x, b)
            small = False
        else:
            x = _residual(layer, x, b, False, temporal=small)
    x = F.silu(_norm(vae.decoder.head[0], x))
    return _unfold(_conv(vae.decoder.head[2], x, b, False, temporal=False), b)


def _fold(x: Tensor) -> Tensor:
    b, c, t, h, w = x.shape
    return x.transpose(1, 2).reshape(b * t, c, h, w).contiguous(memory_format=torch.channels_last)


def _unfold(x: Tensor, b: int) -> Tensor:
    return x.unflatten(0, (b, -1)).transpose(1, 2)


def _norm(module: RMS_norm, x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8) * module.gamma.view(-1, 1, 1)


def _pad(x: Tensor, sides: tuple[int, int, int, int], wrap: bool) -> Tensor:
    return F.pad(x, sides, mode="circular" if wrap else "constant")


def _conv(conv: CausalConv3d, x: Tensor, b: int, wrap: bool, *, temporal: bool = True) -> Tensor:
    weight, pad = conv.weight, conv.padding[1]
    if weight.shape[2] == 1 or not temporal:
        weight = weight[:, :, -1]
    else:  # taps as channels: one 2-D convolution over [x(t-2), x(t-1), x(t)]
        frames = F.pad(x.unflatten(0, (b, -1)), (0, 0, 0, 0, 0, 0, 2, 0))
        t = frames.shape[1] - 2
        x = torch.cat([frames[:, i : i + t] for i in range(3)], dim=2).flatten(0, 1)
        x = x.contiguous(memory_format=torch.channels_last)
        weight = weight.transpose(1, 2).flatten(1, 2)
    if wrap and pad:
        return F.conv2d(_pad(x, (pad,) * 4, True), weight, conv.bias)
    return F.conv2d(x, weight, conv.bias, padding=pad)


def _residual(block: ResidualBlock, x: Tensor, b: int, wrap: bool, *, temporal: bool) -> Tensor:
    h = _conv(block.residual[2], F.silu(_norm(block.residual[0], x)), b, wrap, temporal=temporal)
    h = _conv(block.residual[6], F.silu(_norm(block.residual[3], h)), b, wrap, temporal=temporal)
    return h + (_conv(block.shortcut, x, b, wrap) if isinstance(block.shortcut, CausalConv3d) else x)


def _ends(encoder: nn.Module, x: Tensor, b: int, wrap: bool) -> Tensor:
    for layer in (encoder.middle[0], encoder.middle[2]):
        x = _residual(layer, x, b, wrap, temporal=True)
    return F.silu(_norm(encoder.head[0], x))


def _down(layer: Resample, x: Tensor, b: int, wrap: bool) -> Tensor:
    conv = layer.resample[1]
    x = F.conv2d(_pad(x, (0, 1, 0, 1), wrap), conv.weight, conv.bias, stride=2)
    if layer.mode == "downsample2d":
        return x
    frames = x.unflatten(0, (b, -1))
    if frames.shape[1] == 1:
        return x
    past = [frames[:, i : frames.shape[1] - 2 + i : 2] for i in range(3)]
    weight = layer.time_conv.weight.transpose(1, 2).flatten(1, 2)
    groups = torch.cat(past, dim=2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    later = F.conv2d(groups, weight, layer.time_conv.bias).unflatten(0, (b, -1))
    return torch.cat([frames[:, :1], later], dim=1).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _up(layer: Resample, x: Tensor, b: int) -> Tensor:
    if layer.mode == "upsample3d" and x.shape[0] > b:
        frames = x.unflatten(0, (b, -1))
        later = _conv(layer.time_conv, frames[:, 1:].flatten(0, 1), b, False).unflatten(0, (b, -1))
        later = later.unflatten(2, (2, -1))  # [B, T-1, 2, C, H, W]: the two new frames in order
        x = torch.cat([frames[:, :1], later.flatten(1, 2)], dim=1).flatten(0, 1)
        x = x.contiguous(memory_format=torch.channels_last)
    return layer.resample[1](F.interpolate(x, scale_factor=2.0, mode="nearest-exact"))
