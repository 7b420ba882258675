"""The cost of a plan before anything is computed: network calls, floating-point operations, bytes.

Pure arithmetic over sizes. Operations are counted as torch's FlopCounterMode counts them (a multiplication and an
addition are two; attention is its two matrix products), bytes as torch allocates them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache

import torch

from ..network.model import MAX_TOKENS, WanConfig
from ..plan.blocks import BLOCKS_AT_ONCE, SHARE, Blocks
from ..plan.chunks import Chunk, Plan
from ..plan.schedule import Scale, Step
from ..plan.sizes import PIXELS_PER_CELL
from ..vae.decode import SMALL
from ..vae.decoders import decoder_cache_bytes, strip_ranges, strip_size
from ..vae.encode import encoder_cache_bytes
from ..vae.model import WanVAE, attention_bytes
from ..vae.taehv import TAEHV
from ..vae.upsampler import Sizes

GB = 2**30
"""A gigabyte as graphics cards count it: a card of 24 GB holds 24 * 2**30 bytes."""

RESERVE = GB
"""Bytes that the driver, its kernels and the gaps between allocations take besides the tensors counted here."""

VAE_WIDTH = 96
"""Channels at full resolution of the Wan 2.1 VAE."""

WORKING_ROWS, WORKING_HIDDEN = 6, 2
"""Rows of `dim` and of `ffn_dim` values held for every token where a layer needs most, in its feed-forward part."""

VAE_WORKING, VAE_WORKING_SMALL = 15, 25
"""Values per pixel and channel while the VAE decodes; more on small grids, which it decodes 4 frames at once."""

ENCODER_WORKING, ENCODER_WORKING_SMALL = 10, 18
"""Values per pixel and channel while the VAE encodes in float32; more on small grids, 4 frames at once."""

ENCODED_PIXELS = 3 * 4
"""Values for each pixel of the frames that are encoded at once."""

TAEHV_WORKING = 402
"""Values per pixel while a TAEHV decodes."""

CHUNK_PIXELS = 3 * 12
"""Values of a chunk's picture for each pixel."""

DECODE_FLOPS, ENCODE_FLOPS = 917, 543
"""Operations for each pixel of a frame that the VAE decodes or encodes, at a width of one channel; both grow with the
square of the width. The attention between its halves, less than a thirtieth at any published size, is left out."""

TAEHV_FLOPS = 340_640
"""Operations for each pixel of a frame that a TAEHV decodes."""


@dataclass(frozen=True)
class Cost:
    """The cost of one plan on one model; change a part with `dataclasses.replace` to see what it would save."""

    config: WanConfig
    plan: Plan
    batch: int = 1
    num_prompts: int = 1
    dtype: torch.dtype = torch.bfloat16
    """The type of weights, computation and caches."""
    vae_dtype: torch.dtype = torch.bfloat16
    vae_width: int = VAE_WIDTH
    taehv: bool = False
    """Whether the VAE is a TAEHV, of the published size."""
    vae_strips: int = 1
    """Strips that a picture is decoded in, whose memory waits in main memory but for one."""
    vae_elsewhere: bool = False
    """Whether the VAE lies on another device, and takes nothing of this one's memory."""
    offloaded: bool = False
    """Whether weights wait in main memory and pass through the device a part at a time, as ComfyUI does at need."""
    kv: str = "full"
    """One of TIERS: how keys and values lie in memory."""
    unified: bool = False
    """Whether the device's memory is main memory."""
    text_tokens: int = MAX_TOKENS
    """Tokens of a prompt, as its encoder pads it."""
    upsampler: Sizes | None = None
    """The sizes of the network that takes LOW estimates to HIGH; None: they are resized."""
    stored_bytes: int | None = None
    """Bytes of the transformer's weights as they are loaded, such as in FP8; None: all in `dtype`."""

    @property
    def passes(self) -> tuple[dict[Scale, int], ...]:
        """Network calls of each chunk at each scale, cache passes included."""
        return tuple(
            {scale: sum(step.scale is scale for step in (*chunk.steps, *chunk.cache_steps)) for scale in Scale}
            for chunk in self.plan.chunks
        )

    @cached_property
    def flops(self) -> int:
        """Floating-point operations of the transformer for the whole video."""
        calls = sum(self.call_flops(chunk, s) for chunk in self.plan.chunks for s in (*chunk.steps, *chunk.cache_steps))
        projected = self._sets * (self.num_prompts + self.plan.guidance.is_on)
        return calls + self.batch * projected * prompt_flops(self.config, self.text_tokens)

    def call_flops(self, chunk: Chunk, step: Step) -> int:
        """Operations of one network call: a step of a chunk, or a cache pass over the part of it that is cached.

        With classifier-free guidance a call is two passes.
        """
        return self.batch * self.plan.guidance.passes * pass_flops(self.config, self.pass_size(chunk, step))

    def pass_size(self, chunk: Chunk, step: Step) -> PassSize:
        """The sizes of one network call, of one batch item."""
        cache_pass = step.sigma == 0
        chunk = replace(chunk, frames=chunk.cached) if cache_pass else chunk
        tokens = self.plan.tokens_per_frame(step.scale)
        return PassSize(
            frames=len(chunk.frames),
            tokens=len(chunk.frames) * tokens,
            visible=chunk.visible_frames * tokens,
            cache_pass=cache_pass,
            blocks=self.plan.blocks(step.scale) if chunk.context else None,
            text_tokens=self.text_tokens * (1 if self.plan.guidance.nag == 1 else 2),
        )

    @property
    def frame_flops(self) -> int:
        """Operations of the VAE for one frame of the video: decoding it, and encoding it where it is a source's."""
        return self.decode_flops + self.encode_flops

    @property
    def decode_flops(self) -> int:
        """Operations of decoding one frame of the video."""
        width, height = self.plan.size
        return self.batch * width * height * (TAEHV_FLOPS if self.taehv else DECODE_FLOPS * self.vae_width**2)

    @property
    def encode_flops(self) -> int:
        """Operations of encoding one frame of the source of a restyled video, at each scale; 0 for another video."""
        encoded = sum(rows * columns for rows, columns in self._encoded_sizes)
        return self.batch * encoded * ENCODE_FLOPS * self.vae_width**2

    @property
    def tflops_per_frame(self) -> float:
        """Tera-operations per pixel frame of the video, decoding not counted."""
        return self.flops / self.plan.num_pixel_frames / 1e12

    @property
    def kv_bytes(self) -> int:
        """The caches of all levels, the un-rotated anchor included: what `make_caches` allocates on the device."""
        passes = self.plan.guidance.passes
        if self.kv == "full":
            return self.config.num_layers * passes * self._kv_bytes(sum(self.plan.pages))
        window = passes * self._kv_values(2 * sum(self.plan.pages) + self.plan.moving_pages) * self.dtype.itemsize
        if self.kv == "cpu":
            return 2 * window
        return window + passes * self._past_bytes

    @property
    def kv_main_bytes(self) -> int:
        """Bytes that `make_caches` allocates in main memory besides."""
        return self.plan.guidance.passes * self._past_bytes if self.kv == "cpu" else 0

    @property
    def kv_held_bytes(self) -> int:
        """The part of `kv_bytes` and `kv_main_bytes` that lies in the device's memory."""
        return self.kv_bytes + (self.kv_main_bytes if self.unified else 0)

    @property
    def weight_bytes(self) -> int:
        """The transformer's weights, some of which stay in float32."""
        if self.stored_bytes is not None:
            return self.stored_bytes
        of_a_set = num_params(self.config) * self.dtype.itemsize + num_float32(self.config) * (4 - self.dtype.itemsize)
        return self._sets * of_a_set

    @property
    def call_weight_bytes(self) -> int:
        """The weights that one network call reads: those of one set."""
        return self.weight_bytes // self._sets

    @property
    def _sets(self) -> int:
        """Sets of weights of the model: two where one of them computes the cache passes alone."""
        return 2 if self.plan.second_weights else 1

    @property
    def text_bytes(self) -> int:
        """Embeddings of all prompts; cross-attention keys and values of the one in force, and of the negative one."""
        negative = self.plan.guidance.is_on
        projected = self._sets * (1 + negative) * (1 + 2 * self.config.num_layers) * self.config.dim
        values = (self.num_prompts + negative) * self.config.text_dim + projected
        return self.batch * self.text_tokens * values * self.dtype.itemsize

    @property
    def upsampler_bytes(self) -> int:
        """The weights of the network from LOW to HIGH, and its memory of the frame before; 0 without one."""
        if self.upsampler is None:
            return 0
        channels, width, num_blocks = self.upsampler
        weights = 9 * width * (5 * channels + 4 * width * num_blocks) + (4 + 3 * num_blocks) * width + channels
        height, columns = self.plan.grids[Scale.HIGH]
        return (weights + self.batch * num_blocks * width * height * columns) * self.dtype.itemsize

    @property
    def working_bytes(self) -> int:
        """Bytes that one HIGH pass holds at its peak, besides weights and caches."""
        config, (frames, visible) = self.config, self.plan.largest_chunk
        rows = WORKING_ROWS * config.dim + WORKING_HIDDEN * config.ffn_dim
        whole = self.plan.window.local_frames is None  # the cache is then read where it lies, without a copy
        copied = 0 if whole else 2 * visible / frames
        blocks = self.plan.blocks(Scale.HIGH)
        chosen = 2 * BLOCKS_AT_ONCE * SHARE * visible / frames if blocks else 0  # of sparse attention
        gathered = (WORKING_ROWS + 1 + copied + chosen) * config.dim
        table = 8 * config.head_dim  # float32, two by two for every pair of channels
        tokens = frames * self.plan.tokens_per_frame(Scale.HIGH)
        values = max(rows, gathered) * self.batch * self.dtype.itemsize
        return int(tokens * (values + table) * self.plan.rows)

    @property
    def vae_weight_bytes(self) -> int:
        return _num_values(self._meta_vae) * self.vae_dtype.itemsize

    @property
    def vae_cache_bytes(self) -> int:
        """Bytes that the streaming decoder keeps between chunks on the device; of several strips, the largest one's."""
        width, height = self.plan.size
        sizes = {"dtype": self.vae_dtype, "batch": self.batch, "strips": self.vae_strips}
        return _decoder_history(self._meta_vae, height, width, **sizes)

    @property
    def vae_main_bytes(self) -> int:
        """Bytes that the streaming decoder keeps between chunks in main memory: all strips, where there are several."""
        if self.vae_strips == 1:
            return 0
        width, height = self.plan.size
        long, short = max(width, height), min(width, height)
        spans = strip_ranges(long // PIXELS_PER_CELL, self.vae_strips)
        sizes = {"dtype": self.vae_dtype, "batch": self.batch}
        return sum(_decoder_history(self._meta_vae, short, len(s) * PIXELS_PER_CELL, **sizes) for s in spans)

    @property
    def vae_working_bytes(self) -> int:
        """Bytes that decoding one chunk holds at its peak, besides weights and what is kept between chunks."""
        width, height = self.plan.size
        rows, columns = strip_size(height, width, strips=self.vae_strips)
        values = rows * columns * self.vae_width
        small = min(values, SMALL // 4)
        working = max(VAE_WORKING * values, VAE_WORKING_SMALL * small)
        if self.taehv:
            working = TAEHV_WORKING * rows * columns
        if self.vae_strips > 1:
            working += CHUNK_PIXELS * height * width
        scores = 0 if self.taehv else attention_bytes(self.batch, rows * columns // PIXELS_PER_CELL**2)
        return max(working * self.batch * self.vae_dtype.itemsize, scores)

    @property
    def encoder_bytes(self) -> int:
        """Bytes that encoding the source of a restyled video keeps all the time, besides the weights of the VAE.

        The histories of its encoders, and the VAE in float32 where it was loaded in another type.
        """
        if self.plan.restyle is None:
            return 0
        params = _num_values(self._encoding_vae)
        copied = 0 if self.vae_dtype == torch.float32 else params * torch.float32.itemsize
        return copied + sum(_encoder_history(self._encoding_vae, *size) for size in self._encoded_sizes)

    @property
    def encoder_working_bytes(self) -> int:
        """Bytes that encoding one chunk of a source holds at its peak, besides; a second history is among them."""
        return max((self._encoder_peak(*size) for size in self._encoded_sizes), default=0)

    @property
    def sampling_bytes(self) -> int:
        """The peak of sampling alone, without a decoder."""
        working, held = self.working_bytes, self._held(self.weight_bytes)
        if not self.vae_elsewhere and self.plan.restyle is not None:
            working = max(working, self.encoder_working_bytes)
            held += self._held(self.vae_weight_bytes) + self.encoder_bytes
        return held + self.text_bytes + self.upsampler_bytes + self.kv_held_bytes + working

    @property
    def decoding_bytes(self) -> int:
        """The peak of the VAE alone, with nothing else loaded."""
        working = max(self.vae_working_bytes, self.encoder_working_bytes)
        return self._held(self.vae_weight_bytes) + self.vae_cache_bytes + self.encoder_bytes + working

    @property
    def peak_bytes(self) -> int:
        """The peak where every chunk is decoded as soon as it is sampled; an estimate, kernels' own memory left out."""
        if self.vae_elsewhere:
            return self.sampling_bytes
        shared = max(self.working_bytes, self.vae_working_bytes, self.encoder_working_bytes)
        weights = self._held(self.weight_bytes + self.vae_weight_bytes) + self.encoder_bytes
        held = self.text_bytes + self.upsampler_bytes + self.kv_held_bytes + self.vae_cache_bytes
        return weights + held + shared

    def summary(self) -> dict:
        """All figures as plain values, for printing."""
        width, height = self.plan.size
        return {
            "width": width,
            "height": height,
            "frames": self.plan.num_pixel_frames,
            "latent_frames": self.plan.num_latent_frames,
            "chunks": len(self.plan.chunks),
            "levers": list(self.plan.levers),
            "histories": self.plan.histories,
            "order": self.plan.order,
            "sinks": asdict(self.plan.sinks) if self.plan.sinks else None,
            "anchor": None if self.plan.anchor_source.stays else asdict(self.plan.anchor_source),
            "guidance": asdict(self.plan.guidance),
            "calls": self.plan.num_calls(),
            "passes": [{scale.value: count for scale, count in chunk.items()} for chunk in self.passes],
            "tflops_per_frame": self.tflops_per_frame,
            "tflops": self.flops / 1e12,
            "kv": self.kv,
            "kv_bytes": self.kv_bytes,
            "kv_main_bytes": self.kv_main_bytes,
            "vae_cache_bytes": self.vae_cache_bytes,
            "vae_main_bytes": self.vae_main_bytes,
            "weight_bytes": self.weight_bytes,
            "vae_weight_bytes": self.vae_weight_bytes,
            "text_bytes": self.text_bytes,
            "upsampler_bytes": self.upsampler_bytes,
            "working_bytes": self.working_bytes,
            "vae_working_bytes": self.vae_working_bytes,
            "encoder_bytes": self.encoder_bytes,
            "encoder_working_bytes": self.encoder_working_bytes,
            "sampling_bytes": self.sampling_bytes,
            "decoding_bytes": self.decoding_bytes,
            "peak_bytes": self.peak_bytes,
        }

    @property
    def _meta_vae(self) -> WanVAE | TAEHV:
        return meta_taehv() if self.taehv else meta_vae(self.vae_width)

    @property
    def _encoding_vae(self) -> WanVAE:
        return meta_vae(self.vae_width)

    @property
    def _encoded_sizes(self) -> list[tuple[int, int]]:
        """Height and width in pixels of each scale that a source is encoded at."""
        plan = self.plan
        scales = plan.restyle.scales(plan.schedule) if plan.restyle else ()
        grids = (plan.grids[scale] for scale in scales)
        return [(rows * PIXELS_PER_CELL, columns * PIXELS_PER_CELL) for rows, columns in grids]

    def _encoder_peak(self, height: int, width: int) -> int:
        small = ENCODED_PIXELS * height * width <= SMALL
        working = ENCODER_WORKING_SMALL if small else ENCODER_WORKING
        values = height * width * working * self.vae_width + CHUNK_PIXELS * self.plan.size[0] * self.plan.size[1]
        scores = attention_bytes(1, height * width // PIXELS_PER_CELL**2)
        return max(values * torch.float32.itemsize, scores) + _encoder_history(self._encoding_vae, height, width)

    @property
    def _past_bytes(self) -> int:
        """Keys and values of past frames alone, in all layers."""
        window, layers = self.plan.window, self.config.num_layers
        anchors, ring = self.plan.pages
        averages = self.plan.anchor_source.share < 1
        frames = anchors + (ring if averages else window.past_frames(self.plan.generated_frames))
        if self.kv != "fp8":
            return layers * self._kv_bytes(frames)
        scales = 2 * frames * len(self.plan.levels) * self.batch * self.config.num_heads * torch.float32.itemsize
        return layers * (self._kv_values(2 * frames) + self._kv_bytes(0) + scales)

    def _kv_bytes(self, frames: int) -> int:
        """Keys and values of so many frames in one layer, at all levels, and the anchors' un-rotated keys.

        Those of an anchor that is an average lie there in float32, and its values too.
        """
        moving = self._kv_values(self.plan.moving_pages)
        mean = 2 * torch.float32.itemsize if self.plan.anchor_source.share < 1 else self.dtype.itemsize
        return self._kv_values(2 * frames) * self.dtype.itemsize + moving * mean

    def _kv_values(self, frames: int) -> int:
        """Keys of so many frames in one layer, at all levels, or as many values."""
        scales = (level if isinstance(level, Scale) else level[0] for level in self.plan.levels)
        tokens = sum(self.plan.tokens_per_frame(scale) for scale in scales)
        return frames * tokens * self.config.dim * self.batch

    def _held(self, num_bytes: int) -> int:
        """Bytes that lie on the device all the time, of weights that take `num_bytes`."""
        return 0 if self.offloaded else num_bytes


@lru_cache(maxsize=1)
def meta_taehv() -> TAEHV:
    """A TAEHV of the published size without values."""
    with torch.device("meta"):
        return TAEHV()


@lru_cache(maxsize=4)
def meta_vae(width: int) -> WanVAE:
    """A Wan VAE of that width without values: its sizes."""
    with torch.device("meta"):
        return WanVAE(dim=width)


# A plan is weighed in a hundred variants, and each of these walks through all layers of a VAE.
_decoder_history = lru_cache(maxsize=256)(decoder_cache_bytes)
_encoder_history = lru_cache(maxsize=256)(encoder_cache_bytes)


@lru_cache(maxsize=8)
def _num_values(vae: WanVAE | TAEHV) -> int:
    return sum(x.numel() for x in vae.parameters())


@dataclass(frozen=True)
class PassSize:
    """The sizes of one network call that its operations follow from."""

    frames: int
    tokens: int
    """Queries of all frames."""
    visible: int
    """Keys that each query sees, or among which `blocks` are chosen."""
    cache_pass: bool = False
    """Whether it ends at the last layer's keys and values."""
    text_tokens: int = MAX_TOKENS
    blocks: Blocks | None = None


def pass_flops(config: WanConfig, size: PassSize) -> int:
    """Operations of one network call."""
    dim, tokens, visible, blocks, choosing = config.dim, size.tokens, size.visible, size.blocks, 0
    if blocks:
        choosing = 2 * (tokens // blocks.queries) * (visible // blocks.keys) * dim
        visible = blocks.num_kept(visible) * blocks.keys
    self_attention = 8 * tokens * dim**2 + 4 * tokens * visible * dim + choosing
    cross_attention = 4 * tokens * dim**2 + 4 * tokens * size.text_tokens * dim
    layer = self_attention + cross_attention + 4 * tokens * dim * config.ffn_dim
    patches = 8 * tokens * config.in_dim * dim
    time = 2 * size.frames * dim * (config.freq_dim + dim + 6 * dim)
    head = 8 * tokens * config.out_dim * dim
    if size.cache_pass:
        return patches + time + (config.num_layers - 1) * layer + 4 * tokens * dim**2
    return patches + time + config.num_layers * layer + head


def prompt_flops(config: WanConfig, text_tokens: int = MAX_TOKENS) -> int:
    """Operations that a prompt takes once: its embedding, and every layer's cross-attention keys and values."""
    dim = config.dim
    return 2 * text_tokens * (config.text_dim * dim + dim**2) + config.num_layers * 4 * text_tokens * dim**2


def num_params(config: WanConfig) -> int:
    """Parameters of a Wan transformer."""
    dim, ffn = config.dim, config.ffn_dim
    attention = 4 * (dim**2 + dim) + 2 * dim
    block = 2 * attention + 2 * dim + (dim * ffn + ffn) + (ffn * dim + dim)
    text = config.text_dim * dim + dim + dim**2 + dim
    time = config.freq_dim * dim + dim + dim**2 + dim + 6 * (dim**2 + dim)
    head = 4 * config.out_dim * (dim + 1)
    return config.num_layers * block + text + time + head + num_float32(config)


def num_float32(config: WanConfig) -> int:
    """Parameters of a Wan transformer that stay in float32: patch embedding and modulations."""
    return (4 * config.in_dim + 1) * config.dim + (6 * config.num_layers + 2) * config.dim


def gb(size: float) -> str:
    """Bytes as graphics cards count, in words."""
    return f"{size / GB:.1f} GB"
