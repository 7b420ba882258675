"""Streaming decode: latent chunks in, finished frames out, with the history of the Wan VAE carried between calls.

The VAE is causal in time, so decoding in pieces equals decoding at once as long as every causal convolution sees the
two input frames before its own. `History` keeps those. The forward below runs over the modules of a Wan VAE (core's or
the host's) one latent frame at a time and only calls them, so that offloading and patched weights keep working.
Convolutions whose weights for past frames are all zero (`memoryless_kernels`) are 2-D convolutions and run as such.

Shapes: B batch, C channels, T latent frames, H W latent grid, F pixel frames. The first latent frame of a stream gives
one pixel frame, each later one four; pixels are 8x the latent grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..network.transfer import download, upload
from .model import LATENT_MEAN, LATENT_STD, CausalConv3d, WanVAE

HISTORY_FRAMES = 2
"""Past frames that a causal kernel of 3 frames reads."""

SLICE_FRAMES = 2
"""Frames that pass together through large grids: the history needs no copy, and working memory is halved."""

SMALL = 2**24
"""Values up to which all frames of a tensor pass together: on the CPU, torch is slow for slices of 2 frames."""

NARROW = 16
"""The most channels at full resolution of a VAE that the CPU computes with channels last, unasked: of wide ones the
weights, laid out anew in each call, cost more than is won."""

Module = Any
"""A module of a Wan VAE or a TAEHV, core's or the host's, of which only attributes with published names are used."""


Later = Callable[[], Tensor]
"""Waits for a tensor that is computed elsewhere, and returns it."""


class Decoder(Protocol):
    """A decoder of one stream of latents; see `StreamingDecoder`."""

    @property
    def vae(self) -> Module: ...

    @property
    def memory_frames(self) -> int: ...

    @property
    def cache_bytes(self) -> int: ...

    def reset(self) -> None: ...

    def warm_up(self, latents: Tensor, *, start: int) -> None: ...

    def decode(self, latents: Tensor) -> Tensor: ...

    def snapshot(self) -> dict[str, Tensor]: ...

    def restore(self, snapshot: Mapping[str, Tensor], latents: Tensor) -> None: ...


class History:
    """The last input frames of every causal convolution of one stream, by module.

    It starts empty (before the first frame the module pads with zeros), then holds at most two frames for each. For
    kernels in `memoryless` nothing is kept; they see one frame at a time.
    """

    def __init__(self, frames: Mapping[nn.Module, Tensor] | None = None, *, memoryless: Set[nn.Module] = frozenset()):
        self.frames = dict(frames or {})
        self.memoryless = memoryless

    def copy(self) -> History:
        """A second history that begins with the same tensors; new frames in one do not change the other."""
        return History(self.frames, memoryless=self.memoryless)

    @property
    def nbytes(self) -> int:
        """Bytes of the storages that the kept frames keep alive."""
        return sum(x.untyped_storage().nbytes() for x in self.frames.values())

    def convolve(self, conv: Module, x: Tensor) -> Tensor:
        """Run a causal convolution over [B, C, T, H, W] with the earlier frames of the stream before them."""
        if conv in self.memoryless:
            return joined([conv(frame) for frame in x.split(1, dim=2)])
        past = self.frames.get(conv)
        y = conv(x, past)
        if past is not None and x.shape[2] < HISTORY_FRAMES:
            x = torch.cat([past[:, :, -1:], x], dim=2)
        self.remember(conv, x[:, :, -HISTORY_FRAMES:])
        return y

    def remember(self, conv: nn.Module, x: Tensor) -> None:
        """Keep the frames x; a view of a larger tensor is copied, so that it does not keep that alive."""
        self.frames[conv] = x if x.untyped_storage().nbytes() == x.nbytes else x.clone()


def run_layer(layer: Module, x: Tensor, history: History) -> Tensor:
    """Run a layer that keeps the number of frames, [B, C, T, H, W] to [B, C', T, H', W']."""
    if hasattr(layer, "residual"):
        y = x
        for part in layer.residual:
            y = run_layer(part, y, history)
        return y.add_(layer.shortcut(x))  # y is a convolution's, which nothing else reads
    if isinstance(layer, nn.Conv3d) and layer.kernel_size[0] > 1:
        return history.convolve(layer, x)
    if type(layer) is nn.SiLU:
        return F.silu(x, inplace=True)  # it follows a norm, whose result nothing else reads
    return layer(x)


def joined(frames: list[Tensor]) -> Tensor:
    """Frames [B, C, T, H, W] behind one another; a single one as it is, which torch.cat would copy."""
    return frames[0] if len(frames) == 1 else torch.cat(frames, dim=2)


def run_spatial(layer: Module, x: Tensor) -> Tensor:
    """Run the spatial half of a resampling layer on each frame: [B, C, T, H, W] to [B, C', T, H', W']."""
    if len(x) == 1:  # a reshape would give a single frame strides in which its layout is lost
        return layer.resample(x[0].transpose(0, 1)).transpose(0, 1).unsqueeze(0)
    frames = layer.resample(rearrange(x, "b c t h w -> (b t) c h w"))
    return rearrange(frames, "(b t) c h w -> b c t h w", t=x.shape[2])


def in_turns(x: Tensor) -> Tensor:
    """Two frames [B, C, 2T, H, W] of each one [B, 2C, T, H, W], in the same memory layout."""
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last_3d):
        return rearrange(x, "b (n c) t h w -> b c (t n) h w", n=2)
    return rearrange(x, "b (n c) t h w -> b (t n) h w c", n=2).contiguous().permute(0, 4, 1, 2, 3)


def slices(x: Tensor) -> tuple[Tensor, ...]:
    """Split [B, C, T, H, W] into frames that pass together through the next layers."""
    return x.split(SLICE_FRAMES, dim=2) if x.numel() > SMALL else (x,)


def latent_statistics(like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of Wan 2.1 latents, [1, C, 1, 1, 1] each, float32, on the device of `like`."""
    if like.shape[1] != len(LATENT_MEAN):
        raise ValueError(
            f"latents have {like.shape[1]} channels but Wan 2.1 statistics have {len(LATENT_MEAN)}: "
            "pass normalised=False or the latents of a Wan 2.1 VAE"
        )
    mean, std = (torch.tensor(v, device=like.device).view(1, -1, 1, 1, 1) for v in (LATENT_MEAN, LATENT_STD))
    return mean, std


def weight_dtype(vae: Module, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype to compute in: `dtype`, or that of the weights. Raises ValueError where the weights would be cast."""
    stored = next(vae.parameters()).dtype
    casts = any(getattr(m, "comfy_cast_weights", False) for m in vae.modules())  # the host's layers cast to their input
    if dtype is None or dtype == stored or casts:
        return dtype or stored
    raise ValueError(
        f"the VAE holds {stored} weights and {dtype} was asked for: load it in {dtype}, or leave dtype out"
    )


class StreamingDecoder:
    """A decoder of one stream of latents with a Wan VAE, in any pieces, one latent frame at a time.

    `normalised`: latents have mean 0 and std 1 per channel, as the sampler makes them; False: raw VAE latents.
    `rollback`: a call that fails leaves the stream as it was and can be repeated; while a call runs, the old and the
    new history are held. False holds one history, and after a failure only `reset()` helps.
    `channels_last`: compute in the memory layout that some GPUs' convolutions are fastest in; the weights of core's own
    modules are laid out that way once. Only the last bits of the result differ. Narrow VAEs of core's in float32
    on the CPU always compute in it, with their weights as they are.
    """

    def __init__(
        self,
        vae: Module,
        *,
        dtype: torch.dtype | None = None,
        normalised: bool = True,
        rollback: bool = True,
        channels_last: bool = False,
    ) -> None:
        self.vae = vae
        self._beside: Callable = map
        self.dtype = weight_dtype(vae, dtype)
        self.normalised = normalised
        self.rollback = rollback
        self.channels_last = channels_last or is_fast_by_pixels(vae, self.dtype)
        if channels_last:
            lay_out_channels_last(vae)
        self._memoryless = memoryless_kernels(vae.decoder)
        self.reset()

    def reset(self) -> None:
        """Begin a new stream: the next latent frame is its first one."""
        self._history = History(memoryless=self._memoryless)
        self._shape: tuple[int, ...] | None = None
        self._failed = False

    def use_threads(self, count: int) -> None:
        """Pass so many frames at a time through the last layers, where no frame depends on another, each in a thread.

        For cores that other work leaves free now and then.
        """
        self._beside = ThreadPoolExecutor(count).map if count > 1 else map

    def warm_up(self, latents: Tensor, *, start: int) -> None:
        """Enter a stream in the middle, behind its frames `latents` [B, C, T, H, W], of which `start` is the first.

        With `memory_frames` of them, or all from 0 on, the next frames equal those of a stream decoded from its start.
        """
        self.reset()
        self._shape = stream_shape(latents) if start else None
        self.decode(latents)

    @property
    def cache_bytes(self) -> int:
        """Bytes of the history between calls; from the third latent frame on `vae_cache_bytes`."""
        return self._history.nbytes

    @property
    def memory_frames(self) -> int:
        """Number of latent frames that `warm_up` needs: a decoded frame depends on no earlier ones."""
        return memory_frames(self.vae)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode the next latents [B, C, T, H, W] of the stream to pixels [B, 3, F, 8H, 8W].

        Pixels are about [-1, 1], not clamped. Raises ValueError for latents of another shape than the stream's or with
        NaN, and for pixels with NaN (weights that need more range than half precision has).
        """
        self._check(latents)
        history = self._history.copy() if self.rollback else self._history
        first = self._shape is None
        self._failed = not self.rollback  # until this call is finished
        pieces = []
        for frame in self._scaled(latents).to(self.dtype).split(1, dim=2):
            pieces.append(self._decode_frame(self._laid_out(frame), history, first=first))
            first = False
        pixels = torch.cat(pieces, dim=2)
        if not is_finite(pixels):
            raise ValueError(f"the VAE made NaN or infinite pixels in {self.dtype}: run it in float32 or bfloat16")
        self._history, self._shape, self._failed = history, stream_shape(latents), False
        return pixels

    def park(self) -> None:
        """Move the history to main memory between two calls, asynchronously."""
        self._history.frames = {conv: download(x) for conv, x in self._history.frames.items()}

    def fetch(self, device: torch.device | str) -> None:
        """Move the history back to `device`."""
        self._history.frames = {conv: upload(x, device) for conv, x in self._history.frames.items()}

    def snapshot(self) -> dict[str, Tensor]:
        """The history between two calls as tensors, not copied; empty before the first call."""
        names = {module: name for name, module in self.vae.decoder.named_modules()}
        return {names[module]: x for module, x in self._history.frames.items()}

    def restore(self, snapshot: Mapping[str, Tensor], latents: Tensor) -> None:
        """Return to the state of a snapshot in a stream of `latents` [B, C, T, H, W].

        Raises KeyError or ValueError for another VAE's, and for latents of another size.
        """
        modules = dict(self.vae.decoder.named_modules())
        read = {modules[name]: x for name, x in snapshot.items() if modules[name] not in self._memoryless}
        for module, shape, needed in self._remembered(latents) if snapshot else ():
            if not (module in read and _fits(read[module], shape)) and (module in read or needed):
                raise ValueError(
                    f"the snapshot of the VAE has no frames of {list(shape)}: it is of another VAE or size"
                )
        kept = {module: self._laid_out(x.to(latents.device, self.dtype)) for module, x in read.items()}
        self._history = History(kept, memoryless=self._memoryless)
        self._shape, self._failed = stream_shape(latents) if snapshot else None, False

    def _remembered(self, latents: Tensor) -> Iterator[tuple[nn.Module, tuple[int, ...], bool]]:
        """Yield each module with a history in a stream of `latents`: its shape [B, C, H, W], and whether it is there
        from the first frame on, which passes no temporal upsampling.
        """
        batch, (height, width) = latents.shape[0], latents.shape[-2:]
        for layer in decoder_layers(self.vae):
            for conv in causal_kernels(layer):
                if conv not in self._memoryless:
                    late = conv is getattr(layer, "time_conv", None)
                    yield conv, (batch, conv.in_channels, height, width), not late
            if hasattr(layer, "mode"):
                height, width = 2 * height, 2 * width

    def _check(self, latents: Tensor) -> None:
        if self._failed:
            raise RuntimeError("an earlier decode failed half way and its history is lost: reset() and start again")
        if latents.ndim != 5 or latents.shape[2] < 1:
            raise ValueError(f"latents must be [B, C, T, H, W] with T >= 1, got {list(latents.shape)}")
        if self._shape is not None and self._shape != stream_shape(latents):
            raise ValueError(
                f"this stream has latents of [B, C, H, W] {list(self._shape)}, got {list(stream_shape(latents))}: "
                "reset() to begin another stream"
            )
        if not is_finite(latents):
            raise ValueError("the latents hold NaN or infinity: sample in float32 or bfloat16, or check the weights")

    def _scaled(self, latents: Tensor) -> Tensor:
        """The latents in the scale that the VAE takes."""
        if not self.normalised:
            return latents
        mean, std = latent_statistics(latents)
        return latents.float() * std + mean

    def _laid_out(self, x: Tensor) -> Tensor:
        """Frames in the layout that is computed in."""
        return x.to(memory_format=torch.channels_last_3d) if self.channels_last and x.ndim == 5 else x

    def _decode_frame(self, frame: Tensor, history: History, *, first: bool) -> Tensor:
        """Decode one latent frame [B, C, 1, H, W] to pixels [B, 3, F, 8H, 8W]; F is 1 for the `first` one, then 4."""
        return self._run_layers(self.vae.conv2(frame), decoder_layers(self.vae), history, first=first)

    def _run_layers(self, x: Tensor, layers: list[Module], history: History, *, first: bool) -> Tensor:
        """Run the decoder's layers; after an upsampling the frames pass in slices, so that few large ones exist."""
        for i, layer in enumerate(layers):
            mode = getattr(layer, "mode", None)
            if mode is None:
                x = run_layer(layer, x, history)
                continue
            if mode == "upsample3d" and not first:  # the first frame of a stream stays one frame
                x = in_turns(history.convolve(layer.time_conv, x))
            x = run_spatial(layer, x)
            rest = layers[i + 1 :]
            alone = self._all_memoryless(rest)
            parts = x.split(1, dim=2) if alone else slices(x)
            if len(parts) > 1:
                run = partial(self._run_part, rest, history, first)
                return torch.cat([*(self._beside if alone else map)(run, parts)], dim=2)
        return x

    @torch.no_grad()  # for each thread
    def _run_part(self, layers: list[Module], history: History, first: bool, x: Tensor) -> Tensor:
        return self._run_layers(x, layers, history, first=first)

    def _all_memoryless(self, layers: list[Module]) -> bool:
        return all(conv in self._memoryless for layer in layers for conv in causal_kernels(layer))


def is_fast_by_pixels(vae: Module, dtype: torch.dtype) -> bool:
    """Whether a VAE is a narrow one of core's in float32 on the CPU, whose layers are fastest with channels last."""
    is_narrow = isinstance(vae, WanVAE) and vae.dim <= NARROW
    return is_narrow and dtype == torch.float32 and next(vae.parameters()).is_cpu


def is_finite(x: Tensor) -> bool:
    """Whether no value is NaN or infinite, in one pass."""
    return bool(torch.stack(torch.aminmax(x)).isfinite().all())


def _fits(x: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether `x` is kept frames [B, C, H, W] or [B, C, T, H, W] of that shape [B, C, H, W]."""
    frames = x.shape[2] if x.ndim == 5 else 1
    return x.is_floating_point() and (*x.shape[:2], *x.shape[-2:]) == shape and 0 < frames <= HISTORY_FRAMES


def decoder_layers(vae: Module) -> list[Module]:
    """The layers of the decoder of a Wan VAE, in order."""
    d = vae.decoder
    return [d.conv1, *d.middle, *d.upsamples, *d.head]


def lay_out_channels_last(vae: Module) -> None:
    """Store the weights of core's convolutions in channels-last layout, in place; the host's own stay as they are."""
    formats = {nn.Conv2d: torch.channels_last, CausalConv3d: torch.channels_last_3d}
    for conv in vae.modules():
        if type(conv) in formats:
            # `contiguous` would leave the strides of a 1x1 kernel as they are, and its last bits differ.
            conv.weight.data = conv.weight.data.to(memory_format=formats[type(conv)])


def stream_shape(x: Tensor) -> tuple[int, ...]:
    """The sizes that are constant in a stream: all but the number of frames."""
    return (*x.shape[:2], *x.shape[3:])


def vae_cache_bytes(
    vae: Module, height: int, width: int, *, dtype: torch.dtype = torch.bfloat16, batch: int = 1
) -> int:
    """Bytes that a `StreamingDecoder` holds between calls, from the third latent frame on, for frames of that size.

    The VAE may lie on the meta device, where no kernel counts as memoryless. While a call runs with `rollback`, twice
    as much is held.
    """
    layers, memoryless = decoder_layers(vae), memoryless_kernels(vae.decoder)
    shrink = 2 ** sum(hasattr(layer, "mode") for layer in layers)
    h, w = height // shrink, width // shrink
    values = 0
    for layer in layers:
        mode = getattr(layer, "mode", None)
        values += HISTORY_FRAMES * h * w * sum(k.in_channels for k in causal_kernels(layer) if k not in memoryless)
        if mode is not None:
            h, w = 2 * h, 2 * w
    return values * batch * torch.finfo(dtype).bits // 8


def causal_kernels(module: nn.Module) -> list[nn.Conv3d]:
    """The convolutions in a module that read past frames."""
    return [m for m in module.modules() if isinstance(m, nn.Conv3d) and m.kernel_size[0] > 1]


def memoryless_kernels(module: nn.Module) -> frozenset[nn.Module]:
    """The causal kernels whose weights for past frames are all zero; none on the meta device, which has no values."""
    return frozenset(m for m in causal_kernels(module) if not (m.weight.is_meta or m.weight[:, :, :-1].any()))


def memory_frames(vae: Module) -> int:
    """Number of earlier latent frames that a decoded frame depends on; decoding may begin so many frames before it.

    It is 38 in the Wan 2.1 VAE, and less with memoryless kernels.
    """
    reach, rate, memoryless = Fraction(0), 1, memoryless_kernels(vae.decoder)
    for layer in decoder_layers(vae):
        reach += Fraction(HISTORY_FRAMES * len([k for k in causal_kernels(layer) if k not in memoryless]), rate)
        rate *= 2 if getattr(layer, "mode", None) == "upsample3d" else 1
    return math.ceil(reach)


def to_frames(pixels: Tensor) -> Tensor:
    """Convert pixels [B, 3, F, H, W] in [-1, 1] to frames [B, F, H, W, 3], float32, clamped to [0, 1]."""
    return rearrange(pixels.float(), "b c f h w -> b f h w c").add(1).div_(2).clamp_(0, 1)


def is_elsewhere(decoder: Decoder) -> bool:
    """Whether another process decodes: its `decode_later` asks, and returns before the pixels are there."""
    return hasattr(decoder, "decode_later")


def ask_decoder(decoder: Decoder, latents: Tensor) -> Later:
    """Ask for the pixels of the next latents; a decoder of this process computes them when they are waited for."""
    ask = getattr(decoder, "decode_later", None)
    return ask(latents) if ask else partial(decoder.decode, latents)


def begin_scene(decoder: Decoder, latents: Tensor) -> None:
    """Replace the history of a decoder by the first frame of `latents`, the scene that comes next.

    Otherwise the frames behind a cut would still depend on the scene before. As the first frame of a stream it gives
    one pixel frame, which is dropped; decoded again within the scene it gives four, as its place in the video needs.
    """
    decoder.reset()
    decoder.decode(latents[:, :, :1])


def stream_frames(decoder: Decoder, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the frames [F, H, W, 3] in [0, 1] of each latent chunk [1, C, T, H, W], as soon as it comes.

    For a batch of videos call `decoder.decode` and `to_frames`, with one writer for each.
    """
    for chunk in chunks:
        if chunk.shape[0] != 1:
            raise ValueError(f"stream_frames makes one video, got a batch of {chunk.shape[0]}: pass one item at a time")
        yield to_frames(decoder.decode(chunk))[0]
