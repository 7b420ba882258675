"""The causal forward of a Wan transformer, over whichever module holds the weights.

The module may be core's `WanModel` or a host's with the same submodules. The forward only calls submodules
(`block.self_attn.q(x)`), so adapters, quantised weights and offloaded weights, which live in those calls, keep working.

B batch, C channels, T latent frames, H W latent grid, L tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..plan.chunks import Plan
from ..plan.guidance import NO_GUIDANCE, Guidance
from ..plan.schedule import JoinedStep, Scale, SecondStep, Step
from .cache.guided import GuidedCache
from .cache.pages import PageSource
from .cache.window import KVCache
from .layer import Avoided, KeysValues, LayerCall, RunBlock, Share, like, run_block, stage_block
from .model import WanModel
from .ops.attention import Attention, sdpa
from .transfer import upload

FREQUENCY_BASE = 10000


class TextSource(Protocol):
    """Whatever provides the keys and values of cross-attention: a `Text`, or an object that stands in for one."""

    @property
    def negative(self) -> "TextSource | None":
        """The negative prompt; None if there is none."""
        ...

    def keys(self, model: WanModel, layer: int, like: Tensor) -> KeysValues:
        """Keys and values of one layer, [B, tokens, dim] each, on the device and in the dtype of `like`."""
        ...


class Text:
    """One conditioning, and the cross-attention keys and values that were projected from it.

    Every prompt has an object of its own, so keys are never reused for another prompt. A model's second set of weights
    has an embedding and keys of its own.
    """

    def __init__(self, context: Tensor, negative: "Text | None" = None):
        """`context` is a text encoder's output [B, tokens, channels], zero-padded as the encoder pads it.

        `negative` is the negative prompt that goes with it; it may be shared among texts, and is not forgotten.
        """
        if context.ndim != 3:
            raise ValueError(f"text conditioning has shape {list(context.shape)}: it must be [B, tokens, channels]")
        self.context, self.negative = context, negative
        self._embedded: dict[WanModel, Tensor] = {}
        self._keys: dict[tuple[WanModel, int], KeysValues] = {}

    def keys(self, model: WanModel, layer: int, like: Tensor) -> KeysValues:
        """Cross-attention keys and values of a layer, [B, tokens, dim] each, projected on first use."""
        if (model, layer) not in self._keys:
            if model not in self._embedded:
                self._embedded[model] = model.text_embedding(self.context.to(device=like.device, dtype=like.dtype))
            projections, embedded = model.blocks[layer].cross_attn, self._embedded[model]
            self._keys[model, layer] = projections.norm_k(projections.k(embedded)), projections.v(embedded)
        return self._keys[model, layer]

    def forget(self) -> None:
        """Free the projected keys; they are projected again when they are needed."""
        self._embedded, self._keys = {}, {}


class RowTexts(Text):
    """The conditionings of the rows of one network call, one after the other."""

    def __init__(self, texts: Sequence[Text]):
        negatives = [text.negative for text in texts if text.negative]
        together = len(negatives) == len(texts)
        super().__init__(torch.cat([text.context for text in texts]), RowTexts(negatives) if together else None)
        self._texts = texts

    def keys(self, model: WanModel, layer: int, like: Tensor) -> KeysValues:
        k, v = zip(*(text.keys(model, layer, like) for text in self._texts), strict=True)
        return torch.cat(k), torch.cat(v)


@dataclass(frozen=True, slots=True)
class PassOptions:
    """How one pass over a chunk is computed."""

    attention: Attention = sdpa
    attention_scale: float = 1.0
    """A factor on the queries of self-attention."""
    cache_pass: bool = False
    """Compute only the keys and values for the cache: the pass ends at those of the last layer."""
    on_block: Callable[[int], None] | None = None
    """Called with the index of each layer before it runs."""
    block_forward: RunBlock | None = None
    """Computes the layers in place of `run_block`."""
    share: Share | None = None
    """The share of this rank, where several compute the pass; all of them are given the same latent."""
    layers: range | None = None
    """The layers that `run_layers` computes; None: all."""
    guidance: Guidance = NO_GUIDANCE
    """How far cross-attention is led away from the text's negative prompt; its CFG is not that of one pass."""


PLAIN_PASS = PassOptions()


class Forward(Protocol):
    """The call of `forward_chunk`, which a function that replays recorded passes can stand in for."""

    def __call__(
        self,
        model: WanModel,
        latent: Tensor,
        timestep: Tensor,
        text: Text,
        cache: KVCache,
        options: PassOptions = PLAIN_PASS,
    ) -> Tensor | None: ...


def embed_time(timestep: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of timesteps [B], float32: [B, dim], cosines before sines as in Wan."""
    half = dim // 2
    frequencies = torch.pow(FREQUENCY_BASE, -torch.arange(half, device=timestep.device).float() / half)
    angles = torch.outer(timestep.float(), frequencies)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def timesteps_of(step: Step, latent: Tensor) -> Tensor:
    """The timestep of each batch item [B] of a latent; rows have one of their own."""
    if not isinstance(step, JoinedStep):
        return torch.full(latent.shape[:1], step.timestep, device=latent.device)
    timesteps = upload(torch.tensor([row.timestep for row in step.rows]), latent.device)
    return timesteps.repeat_interleave(len(latent) // len(step.rows))


def sigmas_of(step: JoinedStep, latent: Tensor) -> Tensor:
    """The sigma of each batch item of a latent, [B, 1, 1, 1, 1]."""
    sigmas = upload(torch.tensor([row.sigma for row in step.rows], dtype=latent.dtype), latent.device)
    return sigmas.repeat_interleave(len(latent) // len(step.rows)).view(-1, 1, 1, 1, 1)


def forward_chunk(
    model: WanModel,
    latent: Tensor,
    timestep: Tensor,
    text: TextSource,
    cache: PageSource,
    options: PassOptions = PLAIN_PASS,
) -> Tensor | None:
    """Predict the flow, noise - clean, of the chunk that `cache` has begun: [B, C, T, H, W]; None for a cache pass.

    `latent` [B, C, T, H, W] sets the dtype of the computation. `timestep` [B] is a thousand times sigma, one value for
    the whole chunk. The chunk's keys and values are written into `cache` on the way.
    """
    x, time = embed_chunk(model, latent, timestep)
    if options.share:
        x = options.share.mine(x)
    x = run_layers(model, x, time, text, cache, options)
    return None if x is None else flow_of(model, x, time, latent.shape[2:], options.share)


class TimeEmbedding(NamedTuple):
    """The embedding of the timestep of each batch item."""

    whole: Tensor
    """[B, dim], for the head."""
    modulation: Tensor
    """[B, 6, dim], for the layers."""


def embed_chunk(model: WanModel, latent: Tensor, timestep: Tensor) -> tuple[Tensor, TimeEmbedding]:
    """The tokens [B, L, dim] of a latent [B, C, T, H, W], and the embedding of its timestep [B]."""
    # Contiguous here: a caller that holds the tokens while the layers run then holds no second copy of them.
    x = model.patch_embedding(latent.float()).to(latent.dtype).flatten(2).transpose(1, 2).contiguous()
    return x, embed_timestep(model, timestep, latent.shape[2], latent.dtype)


def embed_timestep(model: WanModel, timestep: Tensor, frames: int, dtype: torch.dtype) -> TimeEmbedding:
    """The embedding of the timestep [B] of a chunk of so many latent frames."""
    # One row per frame though all are equal: a matrix product of one row rounds otherwise, and hosts have a row each.
    time = model.time_embedding(embed_time(timestep.repeat_interleave(frames), model.freq_dim).to(dtype))
    return TimeEmbedding(time[::frames], model.time_projection(time)[::frames].unflatten(1, (6, model.dim)))


def run_layers(
    model: WanModel,
    x: Tensor,
    time: TimeEmbedding,
    text: TextSource,
    cache: PageSource,
    options: PassOptions = PLAIN_PASS,
) -> Tensor | None:
    """The output [B, L, dim] of the layers; None where a cache pass ends. `x` is overwritten."""
    run, last = options.block_forward or run_block, len(model.blocks) - 1
    for layer in range(len(model.blocks)) if options.layers is None else options.layers:
        if options.on_block:
            options.on_block(layer)
        block, x, pages = model.blocks[layer], x.contiguous(), cache.pages(layer, keep=options.cache_pass)
        if options.cache_pass and layer == last:
            stage_block(block, x, time.modulation, pages, share=options.share)
            return None
        keys, avoided = text.keys(model, layer, x), _avoided(model, layer, x, text, options.guidance)
        attention = options.attention, options.attention_scale
        call = LayerCall(x, time.modulation, pages, keys, *attention, options.share, avoided)
        x = run(block, call)
    return x


def _avoided(model: WanModel, layer: int, x: Tensor, text: TextSource, guidance: Guidance) -> Avoided | None:
    if guidance.nag == 1 or text.negative is None:
        return None
    return Avoided(text.negative.keys(model, layer, x), guidance.nag, guidance.nag_limit, guidance.nag_share)


def flow_of(
    model: WanModel, x: Tensor, time: TimeEmbedding, shape: Sequence[int], share: Share | None = None
) -> Tensor:
    """The flow [B, C, T, H, W] of a latent of shape [T, H, W], from the last layer's output [B, L, dim]."""
    frames, height, width = shape
    shift, scale = (like(model.head.modulation, x) + time.whole.unsqueeze(1)).chunk(2, dim=1)
    x = model.head.head(torch.addcmul(shift, model.head.norm(x), 1 + scale))
    x = share.whole(x) if share else x
    x = x.unflatten(2, (1, 2, 2, -1)).unflatten(1, (frames, height // 2, width // 2))
    return torch.einsum("bthwpqrc->bctphqwr", x).flatten(6, 7).flatten(4, 5).flatten(2, 3)


def check_sets(plan: Plan, second: bool) -> None:
    """Raise ValueError unless a plan names a second set of weights where the model has one, and only there."""
    if plan.second_weights and not second:
        raise ValueError(
            "this preset is for weights with a second set for cache passes (SGF+), which this model does not have: "
            "take the preset sgf, or load an SGF+ file"
        )
    if second and not plan.second_weights:
        raise ValueError(
            "these weights have a second set for cache passes (SGF+), which this preset would not use: take the preset "
            "sgf-plus or sgf-plus-framewise"
        )


class Denoiser:
    """The few-step sampler's network call on a bare Wan module, without a host: noisy latents in, clean latents out."""

    def __init__(
        self,
        model: WanModel,
        *,
        dtype: torch.dtype = torch.float32,
        attention: Attention = sdpa,
        block_forward: RunBlock | None = None,
        forwards: Mapping[Scale, Forward] | None = None,
        guidance: Guidance = NO_GUIDANCE,
    ):
        """`dtype` is that of the computation; `forwards` compute passes at their scales in place of `forward_chunk`.

        `guidance` is that of the plan; its CFG is followed where caches are pairs.
        """
        self.model, self.dtype, self.attention, self.block_forward = model, dtype, attention, block_forward
        self.forwards: dict[Scale, Forward] = dict.fromkeys(Scale, forward_chunk) | dict(forwards or {})
        self.guidance = guidance

    @torch.inference_mode()
    def __call__(self, latent: Tensor, step: Step, cache: KVCache, text: Text) -> Tensor:
        """Clean estimate x - sigma v of a noisy `latent` [B, C, T, H, W], in the latent's dtype."""
        if not isinstance(cache, GuidedCache):
            return self._estimate(latent, step, cache, text)
        assert text.negative is not None  # the stream has asked for it
        found = self._estimate(latent, step, cache.positive, text)
        return cache.combine(found, self._estimate(latent, step, cache.negative, text.negative))

    def _estimate(self, latent: Tensor, step: Step, cache: KVCache, text: Text) -> Tensor:
        """The estimate of one pass, under one text."""
        timestep = timesteps_of(step, latent)
        options = PassOptions(
            attention=self.attention,
            attention_scale=step.attention_scale,
            cache_pass=step.sigma == 0,
            block_forward=self.block_forward,
            guidance=self.guidance,
        )
        model, forward = self.model, self.forwards[step.scale]
        if isinstance(step, SecondStep):
            model, forward = self.model.second, forward_chunk  # recorded passes are those of the first set
            assert model is not None  # `check_sets` was asked
        flow = forward(model, latent.to(self.dtype), timestep, text, cache, options)
        if flow is None:
            return latent
        sigma = sigmas_of(step, latent) if isinstance(step, JoinedStep) else step.sigma
        return latent - sigma * flow.to(latent.dtype)
