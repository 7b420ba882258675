"""Streaming encode: frames in, latents out, with the history of the Wan VAE carried between calls.

The first pixel frame of a stream makes one latent frame, every four after it one more; frames that do not fill four
wait for the next call. Latents are the mean of the VAE's distribution. Encode in float32: bfloat16 is enough to decode,
but the error of a first frame in bfloat16 grows through a rollout.

Shapes: B batch, C channels, T latent frames, H W latent grid, F pixel frames; pixels are 8x the latent grid.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import islice

import torch
from einops import rearrange
from torch import Tensor, nn

from .decode import (
    HISTORY_FRAMES,
    History,
    Module,
    causal_kernels,
    latent_statistics,
    memoryless_kernels,
    run_layer,
    run_spatial,
    slices,
    stream_shape,
    weight_dtype,
)

GROUP_FRAMES = 4
"""Pixel frames in each latent frame after the first one."""


class StreamingEncoder:
    """An encoder of one stream of pixels with a Wan VAE, in any pieces. A call that fails leaves the stream as it was.

    `normalised`: latents have mean 0 and std 1 per channel, as the sampler takes them; False: raw VAE latents.
    """

    def __init__(self, vae: Module, *, dtype: torch.dtype | None = torch.float32, normalised: bool = True) -> None:
        self.vae = vae
        self.dtype = weight_dtype(vae, dtype)
        self.normalised = normalised
        self._memoryless = memoryless_kernels(vae.encoder)
        self.reset()

    def reset(self) -> None:
        """Begin a new stream and drop waiting frames: the next pixel frame is its first one."""
        self._history = History(memoryless=self._memoryless)
        self._shape: tuple[int, ...] | None = None
        self._waiting: Tensor | None = None

    @property
    def begun(self) -> bool:
        """Whether a frame was encoded since the stream began."""
        return self._shape is not None

    @property
    def cache_bytes(self) -> int:
        """Bytes of the history between calls, without the waiting pixels."""
        return self._history.nbytes

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Encode the next pixels [B, 3, F, 8H, 8W] in [-1, 1] of the stream to latents [B, C, T, H, W]; T may be 0.

        Latents are float32. Raises ValueError for pixels of another shape than the stream's, sizes that are no multiple
        of 8, or NaN.
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
        latents = [self._encode_group(group, history) for group in groups]
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
        if self._shape is not None and self._shape != stream_shape(pixels):
            raise ValueError(
                f"this stream has pixels of [B, C, H, W] {list(self._shape)}, got {list(stream_shape(pixels))}: "
                "reset() to begin another stream"
            )
        if not torch.isfinite(pixels).all():
            raise ValueError("the pixels hold NaN or infinity: pass frames in [0, 1] (pixels in [-1, 1])")

    def _encode_group(self, x: Tensor, history: History) -> Tensor:
        """Encode one pixel frame at the start of a stream, later four, to the mean [B, C, 1, H, W]."""
        for stage in encoder_stages(self.vae):
            x = torch.cat([_run_stage(stage, part, history) for part in slices(x)], dim=2)
        return self.vae.conv1(x).chunk(2, dim=1)[0]

    def _nothing(self, pixels: Tensor) -> Tensor:
        b, _, _, h, w = pixels.shape
        channels = self.vae.conv1.out_channels // 2
        return torch.empty(b, channels, 0, h // 8, w // 8, device=pixels.device)


def _run_stage(stage: list[Module], x: Tensor, history: History) -> Tensor:
    for layer in stage:
        mode = getattr(layer, "mode", None)
        if mode is None:
            x = run_layer(layer, x, history)
            continue
        x = run_spatial(layer, x)
        if mode == "downsample3d":
            x = _halve_time(layer.time_conv, x, history)
    return x


def _halve_time(time_conv: Module, x: Tensor, history: History) -> Tensor:
    """Merge two frames into one, with the frame before them as context; the first frame of a stream passes as it is."""
    past = history.frames.get(time_conv)
    history.remember(time_conv, x[:, :, -1:])
    return x if past is None else time_conv(torch.cat([past, x], dim=2))


def encoder_stages(vae: Module) -> list[list[Module]]:
    """The layers of the encoder of a Wan VAE, in stages that end with a layer that halves time."""
    e = vae.encoder
    stages: list[list[Module]] = [[]]
    for layer in [e.conv1, *e.downsamples, *e.middle, *e.head]:
        stages[-1].append(layer)
        if getattr(layer, "mode", None) == "downsample3d":
            stages.append([])
    return stages


def encoder_cache_bytes(vae: Module, height: int, width: int) -> int:
    """Bytes that a `StreamingEncoder` in float32 holds between calls, from the third latent frame on.

    The VAE may lie on the meta device, where no kernel counts as memoryless. While a call runs, twice as much is held.
    """
    memoryless, values = memoryless_kernels(vae.encoder), 0
    for layer in (layer for stage in encoder_stages(vae) for layer in stage):
        mode = getattr(layer, "mode", None)
        if mode is not None:
            height, width = height // 2, width // 2
        if mode == "downsample3d":
            values += height * width * layer.time_conv.in_channels
        elif mode is None:
            kernels = (kernel for kernel in causal_kernels(layer) if kernel not in memoryless)
            values += HISTORY_FRAMES * height * width * sum(kernel.in_channels for kernel in kernels)
    return values * torch.float32.itemsize


def to_pixels(frames: Tensor) -> Tensor:
    """Convert frames [F, H, W, 3] in [0, 1] to pixels [1, 3, F, H, W] in [-1, 1]."""
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be [F, H, W, 3], got {list(frames.shape)}")
    return rearrange(frames, "f h w c -> 1 c f h w") * 2 - 1


def encode_picture(vae: nn.Module, picture: Tensor, *, hold: int = 1, normalised: bool = True) -> Tensor:
    """Encode a picture [8H, 8W, 3] in [0, 1] that a video begins with to a latent [1, C, hold, H, W], on the CPU.

    `hold` repeats the picture to that many latent frames: a whole chunk, for weights that were not trained on a chunk
    of one frame. The VAE computes in float32 whatever the dtype of its weights. Raises ValueError for sides that are no
    multiples of 8, and for a VAE that can only decode.
    """
    check_encoder(vae)
    if picture.ndim != 3 or picture.shape[-1] != 3:
        raise ValueError(f"a first frame must be one picture [H, W, 3], got {list(picture.shape)}")
    if hold < 1:
        raise ValueError(f"a first frame cannot be held for {hold} latent frames: use 1, or a whole chunk of 3")
    vae = float_vae(vae)
    picture = picture.to(next(vae.parameters()).device)
    frames = picture.expand(1 + GROUP_FRAMES * (hold - 1), -1, -1, -1)
    return StreamingEncoder(vae, normalised=normalised).encode(to_pixels(frames)).cpu()


def encode_frames(vae: nn.Module, frames: Iterable[Tensor], *, normalised: bool = True) -> Tensor:
    """Encode 4n + 1 frames [8H, 8W, 3] in [0, 1] that a video begins with to latents [1, C, n + 1, H, W], on the CPU.

    Few of them are in memory at a time. Precision and errors are those of `encode_picture`; frames behind the last
    4n + 1 are left out.
    """
    check_encoder(vae)
    vae = float_vae(vae)
    device, encoder = next(vae.parameters()).device, StreamingEncoder(vae, normalised=normalised)
    left = iter(frames)
    groups = iter(lambda: list(islice(left, GROUP_FRAMES)), [])
    latents = [encoder.encode(to_pixels(torch.stack(group)).to(device)).cpu() for group in groups]
    if not latents:
        raise ValueError("there is no frame to begin with: give one at least")
    return torch.cat(latents, dim=2)


def float_vae(vae: nn.Module) -> nn.Module:
    """The VAE itself, or a copy in float32 of one with weights in another type: encoding needs float32."""
    return vae if next(vae.parameters()).dtype == torch.float32 else copy.deepcopy(vae).float()


def check_encoder(vae: nn.Module) -> None:
    """Check that a VAE can encode. Raises ValueError."""
    if not hasattr(vae, "conv1"):
        raise no_encoder(type(vae).__name__)


def no_encoder(kind: str) -> ValueError:
    """The error for a VAE that can only decode."""
    return ValueError(
        f"the VAE is a {kind}, which is here for decoding alone: a picture or a video is encoded by the Wan 2.1 VAE, "
        "wan_2.1_vae.safetensors"
    )
