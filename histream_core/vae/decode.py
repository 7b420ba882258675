"""Streaming decode: latent chunks in, finished frames out, with the Wan VAE's memory carried between the calls.

The VAE is causal in time, so decoding in pieces equals decoding at once as long as every causal convolution sees the
two input frames before its own. `History` keeps those; the forward below runs over the modules of a Wan VAE (core's or
the host's) one latent frame at a time and only calls them, so that offloading and patched weights keep working.
Kernels whose weights for past frames are all zero (`still_kernels`) are 2-D convolutions and run as such.

Shapes: B batch, C channels, T latent frames, H W latent grid, F pixel frames. The first latent frame of a stream gives
one pixel frame, each later one four; pixels are 8x the latent grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Set
from fractions import Fraction

import torch
from einops import rearrange
from torch import Tensor, nn

from ..network.transfer import download, upload
from .model import LATENT_MEAN, LATENT_STD, CausalConv3d

HISTORY_FRAMES = 2  # what a causal kernel of 3 looks back
SLICE_FRAMES = 2  # frames that go through large grids together: history needs no copy, working memory is halved
SMALL = 2**24  # values; below that frames go together, since torch has a fast 3-D convolution for the CPU but not for 2


class History:
    """The last input frames of every causal convolution of one stream, keyed by the module.

    It starts empty (nothing before the first frame: the module pads with zeros), then holds at most two frames each.
    Kernels in `still` have no use for the past: they see one frame at a time, and nothing is kept for them.
    """

    def __init__(self, frames: Mapping[nn.Module, Tensor] | None = None, *, still: Set[nn.Module] = frozenset()):
        self.frames = dict(frames or {})
        self.still = still

    def copy(self) -> History:
        """A second history over the same tensors: writing to one leaves the other as it is."""
        return History(self.frames, still=self.still)

    @property
    def nbytes(self) -> int:
        """Bytes that the remembered frames really hold."""
        return sum(x.untyped_storage().nbytes() for x in self.frames.values())

    def convolve(self, conv: nn.Module, x: Tensor) -> Tensor:
        """Run a causal convolution over [B, C, T, H, W] as if it had seen all the earlier frames."""
        if conv in self.still:
            return torch.cat([conv(frame) for frame in x.split(1, dim=2)], dim=2)
        past = self.frames.get(conv)
        y = conv(x, past)
        if past is not None and x.shape[2] < HISTORY_FRAMES:
            x = torch.cat([past[:, :, -1:], x], dim=2)
        self.remember(conv, x[:, :, -HISTORY_FRAMES:])
        return y

    def remember(self, conv: nn.Module, x: Tensor) -> None:
        """Keep x; a view of something larger is copied, so that it does not keep the rest alive."""
        self.frames[conv] = x if x.untyped_storage().nbytes() == x.nbytes else x.clone()


def run_layer(layer: nn.Module, x: Tensor, history: History) -> Tensor:
    """One layer that keeps the number of frames, [B, C, T, H, W] to [B, C', T, H', W']."""
    if isinstance(layer, nn.Conv3d) and layer.kernel_size[0] > 1:
        return history.convolve(layer, x)
    if hasattr(layer, "residual"):
        y = x
        for part in layer.residual:
            y = run_layer(part, y, history)
        return y + layer.shortcut(x)
    return layer(x)


def run_spatial(layer: nn.Module, x: Tensor) -> Tensor:
    """The spatial half of a resampling layer, frame by frame: [B, C, T, H, W] to [B, C', T, H', W']."""
    frames = layer.resample(rearrange(x, "b c t h w -> (b t) c h w"))
    return rearrange(frames, "(b t) c h w -> b c t h w", t=x.shape[2])


def slices(x: Tensor) -> tuple[Tensor, ...]:
    """The frames of [B, C, T, H, W] in portions that go on together."""
    return x.split(SLICE_FRAMES, dim=2) if x.numel() > SMALL else (x,)


def latent_statistics(like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of Wan 2.1 latents as [1, C, 1, 1, 1], on the device of `like`, float32."""
    if like.shape[1] != len(LATENT_MEAN):
        raise ValueError(
            f"latents have {like.shape[1]} channels but Wan 2.1 statistics have {len(LATENT_MEAN)}: "
            "pass normalised=False or the latents of a Wan 2.1 VAE"
        )
    mean, std = (torch.tensor(v, device=like.device).view(1, -1, 1, 1, 1) for v in (LATENT_MEAN, LATENT_STD))
    return mean, std


def weight_dtype(vae: nn.Module, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype to compute in: the one asked for, else that of the weights."""
    stored = next(vae.parameters()).dtype
    casts = any(getattr(m, "comfy_cast_weights", False) for m in vae.modules())  # the host's layers may, to the input
    if dtype is None or dtype == stored or casts:
        return dtype or stored
    raise ValueError(
        f"the VAE holds {stored} weights and {dtype} was asked for: load it in {dtype}, or leave dtype out"
    )


class StreamingDecoder:
    """Decodes one stream of latents with a Wan VAE, any cut, one latent frame at a time.

    `normalised`: latents come as the sampler makes them (mean 0, std 1 per channel); False: raw VAE latents.
    `rollback`: a decode that fails leaves the stream where it was, and can be tried again; this holds the old and the
    new history side by side while a call runs. False holds one history, and a failure asks for `reset()`.
    `channels_last`: compute with the channels of a pixel side by side, as some GPUs' convolutions like it; weights of
    core's own modules are laid out so once. The same but for the last bits.
    """

    def __init__(
        self,
        vae: nn.Module,
        *,
        dtype: torch.dtype | None = None,
        normalised: bool = True,
        rollback: bool = True,
        channels_last: bool = False,
    ) -> None:
        self.vae = vae
        self.dtype = weight_dtype(vae, dtype)
        self.normalised = normalised
        self.rollback = rollback
        self.channels_last = channels_last
        if channels_last:
            lay_out_channels_last(vae)
        self._still = still_kernels(vae.decoder)
        self.reset()

    def reset(self) -> None:
        """Forget the stream: the next latent frame is a first one."""
        self._history = History(still=self._still)
        self._shape: tuple[int, ...] | None = None
        self._failed = False

    def warm_up(self, latents: Tensor, *, start: int) -> None:
        """Begin in the middle of a stream: `latents` [B, C, T, H, W] are its frames from `start` on, already seen.

        With `memory_frames` of them, or all from 0 on, the next frames are those of a stream decoded from its start.
        """
        self.reset()
        self._shape = stream_shape(latents) if start else None
        self.decode(latents)

    @property
    def cache_bytes(self) -> int:
        """Bytes of history held between calls; `vae_cache_bytes` from the third latent frame on."""
        return self._history.nbytes

    @property
    def memory_frames(self) -> int:
        """How many latent frames back a decoded frame can remember: what `warm_up` needs."""
        return memory_frames(self.vae)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The stream's next latents [B, C, T, H, W] to pixels [B, 3, F, 8H, 8W] about [-1, 1], not clamped.

        Raises ValueError for latents of another shape than the stream's or that are not finite, and for a VAE that
        overflows (half precision on weights that need more range).
        """
        self._check(latents)
        history = self._history.copy() if self.rollback else self._history
        first = self._shape is None
        self._failed = not self.rollback  # until this call has got through
        pieces = []
        for frame in self._scaled(latents).to(self.dtype).split(1, dim=2):
            if self.channels_last:
                frame = frame.to(memory_format=torch.channels_last_3d)
            pieces.append(self._decode_frame(frame, history, first=first))
            first = False
        pixels = torch.cat(pieces, dim=2)
        if not torch.isfinite(pixels).all():
            raise ValueError(f"the VAE made NaN or infinite pixels in {self.dtype}: run it in float32 or bfloat16")
        self._history, self._shape, self._failed = history, stream_shape(latents), False
        return pixels

    def park(self) -> None:
        """Move the memory between two calls to main memory; nothing waits for it."""
        self._history.frames = {conv: download(x) for conv, x in self._history.frames.items()}

    def fetch(self, device: torch.device | str) -> None:
        """Bring it back to where to decode."""
        self._history.frames = {conv: upload(x, device) for conv, x in self._history.frames.items()}

    def snapshot(self) -> dict[str, Tensor]:
        """The memory between two calls as tensors, not copied; empty before the first call."""
        names = {module: name for name, module in self.vae.decoder.named_modules()}
        return {names[module]: x for module, x in self._history.frames.items()}

    def restore(self, snapshot: Mapping[str, Tensor], latents: Tensor) -> None:
        """Become what `snapshot` was taken of, in a stream of `latents` [B, C, T, H, W]; KeyError names a stranger."""
        modules = dict(self.vae.decoder.named_modules())
        frames = {modules[name]: x.to(latents.device, self.dtype) for name, x in snapshot.items()}
        self._history = History({k: x for k, x in frames.items() if k not in self._still}, still=self._still)
        self._shape, self._failed = stream_shape(latents) if snapshot else None, False

    def _check(self, latents: Tensor) -> None:
        if self._failed:
            raise RuntimeError("an earlier decode failed half way and its history is lost: reset() and start again")
        if latents.ndim != 5 or latents.shape[2] < 1:
            raise ValueError(f"latents must be [B, C, T, H, W] with T >= 1, got {list(latents.shape)}")
        if self._shape not in (None, stream_shape(latents)):
            raise ValueError(
                f"this stream has latents of [B, C, H, W] {list(self._shape)}, got {list(stream_shape(latents))}: "
                "reset() to begin another stream"
            )
        if not torch.isfinite(latents).all():
            raise ValueError("the latents hold NaN or infinity: sample in float32 or bfloat16, or check the weights")

    def _scaled(self, latents: Tensor) -> Tensor:
        """The latents as the network wants them."""
        if not self.normalised:
            return latents
        mean, std = latent_statistics(latents)
        return latents.float() * std + mean

    def _decode_frame(self, frame: Tensor, history: History, *, first: bool) -> Tensor:
        """One latent frame [B, C, 1, H, W] to its pixels [B, 3, F, 8H, 8W]; `first` of a stream is one, others four."""
        return self._rise(self.vae.conv2(frame), decoder_layers(self.vae), history, first=first)

    def _rise(self, x: Tensor, layers: list[nn.Module], history: History, *, first: bool) -> Tensor:
        for i, layer in enumerate(layers):
            mode = getattr(layer, "mode", None)
            if mode is None:
                x = run_layer(layer, x, history)
                continue
            if mode == "upsample3d" and not first:  # the first frame of a stream stays one frame
                x = rearrange(history.convolve(layer.time_conv, x), "b (n c) t h w -> b c (t n) h w", n=2)
            x = run_spatial(layer, x)
            parts = x.split(1, dim=2) if self._is_still(layers[i + 1 :]) else slices(x)
            if len(parts) > 1:
                return torch.cat([self._rise(part, layers[i + 1 :], history, first=first) for part in parts], dim=2)
        return x

    def _is_still(self, layers: list[nn.Module]) -> bool:
        return all(conv in self._still for layer in layers for conv in causal_kernels(layer))


def decoder_layers(vae: nn.Module) -> list[nn.Module]:
    """The decoder of a Wan VAE as one flat list."""
    d = vae.decoder
    return [d.conv1, *d.middle, *d.upsamples, *d.head]


def lay_out_channels_last(vae: nn.Module) -> None:
    """Lay out the weights of plain convolutions with channels last, in place; those that a host moves stay as they are.

    The values do not change.
    """
    formats = {nn.Conv2d: torch.channels_last, CausalConv3d: torch.channels_last_3d}
    for conv in vae.modules():
        if type(conv) in formats:
            conv.weight.data = conv.weight.data.to(memory_format=formats[type(conv)])


def stream_shape(x: Tensor) -> tuple[int, ...]:
    """What must stay the same through a stream: all sizes but the number of frames."""
    return (*x.shape[:2], *x.shape[3:])


def vae_cache_bytes(
    vae: nn.Module, height: int, width: int, *, dtype: torch.dtype = torch.bfloat16, batch: int = 1
) -> int:
    """Bytes that a StreamingDecoder holds between calls, from the third latent frame on, for frames of that size.

    A VAE on the meta device will do, whose kernels count as if all saw the past. While a call runs with `rollback`,
    twice as much is held.
    """
    layers, still = decoder_layers(vae), still_kernels(vae.decoder)
    shrink = 2 ** sum(hasattr(layer, "mode") for layer in layers)
    h, w = height // shrink, width // shrink
    values = 0
    for layer in layers:
        mode = getattr(layer, "mode", None)
        values += HISTORY_FRAMES * h * w * sum(conv.in_channels for conv in causal_kernels(layer) if conv not in still)
        if mode is not None:
            h, w = 2 * h, 2 * w
    return values * batch * torch.finfo(dtype).bits // 8


def causal_kernels(module: nn.Module) -> list[nn.Module]:
    """The convolutions in a module that reach back in time."""
    return [m for m in module.modules() if isinstance(m, nn.Conv3d) and m.kernel_size[0] > 1]


def still_kernels(module: nn.Module) -> frozenset[nn.Module]:
    """Those of them whose weights for past frames are all zero; none on the meta device, which has no values."""
    return frozenset(m for m in causal_kernels(module) if not (m.weight.is_meta or m.weight[:, :, :-1].any()))


def memory_frames(vae: nn.Module) -> int:
    """How many latent frames back a decoded frame can remember: 38 in the Wan 2.1 VAE, fewer with still kernels.

    Decoded from that many frames before it, a frame is the same as in a stream from the beginning
    (`StreamingDecoder.warm_up`).
    """
    reach, rate, still = Fraction(0), 1, still_kernels(vae.decoder)
    for layer in decoder_layers(vae):
        reach += Fraction(HISTORY_FRAMES * len([k for k in causal_kernels(layer) if k not in still]), rate)
        rate *= 2 if getattr(layer, "mode", None) == "upsample3d" else 1
    return math.ceil(reach)


def to_frames(pixels: Tensor) -> Tensor:
    """Pixels [B, 3, F, H, W] in [-1, 1] to frames [B, F, H, W, 3], float32 in [0, 1], clamped."""
    return rearrange(pixels.float(), "b c f h w -> b f h w c").add(1).div(2).clamp(0, 1)


def begin_scene(decoder: StreamingDecoder, latents: Tensor) -> None:
    """Make a decoder forget the scene before: it knows the first frame of `latents`, which come next, and no other.

    Else the pictures behind a cut would go over from the scene before. As the first frame of a stream it gives one
    pixel frame, which is dropped: in the video it is to give four, as all others behind the first.
    """
    decoder.reset()
    decoder.decode(latents[:, :, :1])


def stream_frames(
    decoder: StreamingDecoder, chunks: Iterable[Tensor], *, num_frames: int | None = None
) -> Iterator[Tensor]:
    """Yield the frames [F, H, W, 3] in [0, 1] of each latent chunk [1, C, T, H, W], as soon as it comes.

    `num_frames` crops the video to so many pixel frames; latents past the end are not decoded. Several videos at once
    go through `decoder.decode` and `to_frames`, one writer for each batch item.
    """
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"a video of {num_frames} frames is empty: ask for at least 1")
    done = 0
    for chunk in chunks:
        if chunk.shape[0] != 1:
            raise ValueError(f"stream_frames makes one video, got a batch of {chunk.shape[0]}: pass one item at a time")
        if num_frames is not None:
            first = int(done == 0)  # the first latent frame is one pixel frame, the others are four
            chunk = chunk[:, :, : first + -(-(num_frames - done - first) // 4)]
        frames = to_frames(decoder.decode(chunk))[0]
        frames = frames if num_frames is None else frames[: num_frames - done]
        done += len(frames)
        yield frames
        if done == num_frames:
            return
