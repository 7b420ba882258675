"""Streaming encode: frames in, latents out, with the Wan VAE's memory carried between the calls.

The first pixel frame of a stream makes one latent frame, every four after it one more; frames that do not fill four
wait for the next call. Only the mean of the VAE's distribution is used. Encode in float32: bfloat16 is enough to
decode, but the error of a bfloat16 first frame grows through a rollout.

Shapes: B batch, C channels, T latent frames, H W latent grid, F pixel frames; pixels are 8x the latent grid.
"""

from __future__ import annotations

import copy

import torch
from einops import rearrange
from torch import Tensor, nn

from .decode import (
    History,
    latent_statistics,
    run_layer,
    run_spatial,
    slices,
    still_kernels,
    stream_shape,
    weight_dtype,
)

GROUP_FRAMES = 4  # pixel frames in a latent frame, after the first


class StreamingEncoder:
    """Encodes one stream of pixels with a Wan VAE, any cut. A call that fails leaves the stream where it was.

    `normalised`: latents come out as the sampler wants them (mean 0, std 1 per channel); False: raw VAE latents.
    """

    def __init__(self, vae: nn.Module, *, dtype: torch.dtype | None = torch.float32, normalised: bool = True) -> None:
        self.vae = vae
        self.dtype = weight_dtype(vae, dtype)
        self.normalised = normalised
        self._still = still_kernels(vae.encoder)
        self.reset()

    def reset(self) -> None:
        """Forget the stream and the frames that wait: the next pixel frame is a first one."""
        self._history = History(still=self._still)
        self._shape: tuple[int, ...] | None = None
        self._waiting: Tensor | None = None

    @property
    def cache_bytes(self) -> int:
        """Bytes of history held between calls, without the waiting pixels."""
        return self._history.nbytes

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """The stream's next pixels [B, 3, F, 8H, 8W] in [-1, 1] to latents [B, C, T, H, W], float32; T may be 0.

        Raises ValueError for pixels of another shape than the stream's, sizes that are no multiple of 8, or NaN.
        """
        self._check(pixels)
        x = pixels.to(self.dtype)
        if self._waiting is not None:
            x = torch.cat([self._waiting, x], dim=2)
        history = self._history.copy()
        start = 1 if self._shape is None else 0
        groups = [x[:, :, :start]] if start else []
        end = start + (x.shape[2] - start) // GROUP_FRAMES * GROUP_FRAMES
        groups += x[:, :, start:end].split(GROUP_FRAMES, dim=2) if end > start else []
        latents = [self._fall(group, history) for group in groups]
        out = torch.cat(latents, dim=2).float() if latents else self._nothing(pixels)
        if self.normalised:
            mean, std = latent_statistics(out)
            out = (out - mean) / std
        self._history, self._shape = history, stream_shape(pixels)
        self._waiting = x[:, :, end:].clone() if end < x.shape[2] else None
        return out

    def _check(self, pixels: Tensor) -> None:
        if pixels.ndim != 5 or pixels.shape[1] != 3 or pixels.shape[2] < 1:
            raise ValueError(f"pixels must be [B, 3, F, H, W] with F >= 1, got {list(pixels.shape)}")
        for name, size in (("height", pixels.shape[3]), ("width", pixels.shape[4])):
            if size % 8:
                raise ValueError(
                    f"{name} {size} is not a multiple of 8: use {size // 8 * 8 or 8} or {size // 8 * 8 + 8}"
                )
        if self._shape not in (None, stream_shape(pixels)):
            raise ValueError(
                f"this stream has pixels of [B, C, H, W] {list(self._shape)}, got {list(stream_shape(pixels))}: "
                "reset() to begin another stream"
            )
        if not torch.isfinite(pixels).all():
            raise ValueError("the pixels hold NaN or infinity: pass frames in [0, 1] (pixels in [-1, 1])")

    def _fall(self, x: Tensor, history: History) -> Tensor:
        """One pixel frame at the start of a stream, later four, to the mean [B, C, 1, H, W]."""
        for stage in encoder_stages(self.vae):
            x = torch.cat([_run_stage(stage, part, history) for part in slices(x)], dim=2)
        return self.vae.conv1(x).chunk(2, dim=1)[0]

    def _nothing(self, pixels: Tensor) -> Tensor:
        b, _, _, h, w = pixels.shape
        channels = self.vae.conv1.out_channels // 2
        return torch.empty(b, channels, 0, h // 8, w // 8, device=pixels.device)


def _run_stage(stage: list[nn.Module], x: Tensor, history: History) -> Tensor:
    for layer in stage:
        mode = getattr(layer, "mode", None)
        if mode is None:
            x = run_layer(layer, x, history)
            continue
        x = run_spatial(layer, x)
        if mode == "downsample3d":
            x = _halve_time(layer.time_conv, x, history)
    return x


def _halve_time(time_conv: nn.Module, x: Tensor, history: History) -> Tensor:
    """The first frame of a stream passes; then two frames become one, with the frame before them in view."""
    past = history.frames.get(time_conv)
    history.remember(time_conv, x[:, :, -1:])
    return x if past is None else time_conv(torch.cat([past, x], dim=2))


def encoder_stages(vae: nn.Module) -> list[list[nn.Module]]:
    """The encoder of a Wan VAE, cut behind every layer that halves time."""
    e = vae.encoder
    stages: list[list[nn.Module]] = [[]]
    for layer in [e.conv1, *e.downsamples, *e.middle, *e.head]:
        stages[-1].append(layer)
        if getattr(layer, "mode", None) == "downsample3d":
            stages.append([])
    return stages


def to_pixels(frames: Tensor) -> Tensor:
    """Frames [F, H, W, 3] in [0, 1] to pixels [1, 3, F, H, W] in [-1, 1]."""
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be [F, H, W, 3], got {list(frames.shape)}")
    return rearrange(frames, "f h w c -> 1 c f h w") * 2 - 1


def encode_picture(vae: nn.Module, picture: Tensor, *, hold: int = 1, normalised: bool = True) -> Tensor:
    """The latent [1, C, hold, H, W] of a picture [8H, 8W, 3] in [0, 1] that a video begins with; float32, on the CPU.

    `hold` repeats the picture until it fills that many latent frames: a whole chunk, for weights that never saw a
    chunk of one frame. The VAE computes in float32, whatever its weights are: the error of a rounded first frame would
    grow. Raises ValueError for sides that are no multiples of 8, and for a VAE that can only decode.
    """
    check_encoder(vae)
    if picture.ndim != 3 or picture.shape[-1] != 3:
        raise ValueError(f"a first frame must be one picture [H, W, 3], got {list(picture.shape)}")
    if hold < 1:
        raise ValueError(f"a first frame cannot be held for {hold} latent frames: use 1, or a whole chunk of 3")
    if next(vae.parameters()).dtype != torch.float32:
        vae = copy.deepcopy(vae).float()
    picture = picture.to(next(vae.parameters()).device)
    frames = picture.expand(1 + GROUP_FRAMES * (hold - 1), -1, -1, -1)
    return StreamingEncoder(vae, normalised=normalised).encode(to_pixels(frames)).cpu()


def check_encoder(vae: nn.Module) -> None:
    """Refuse a VAE that can only decode. Raises ValueError."""
    if not hasattr(vae, "conv1"):
        raise ValueError(
            f"the VAE is a {type(vae).__name__}, which is here for decoding alone: a first frame needs the "
            "Wan 2.1 VAE, wan_2.1_vae.safetensors"
        )
