"""One rank besides the first: it holds the weights and its part of the caches, and does what the first one asks for.

Every request is a verb with plain values; the tensors that belong to it follow over the link. All ranks are asked for
the same, in the same order, so that they meet in every exchange.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..files.values import parse
from ..network.cache.tiers import make_caches
from ..network.cache.window import CacheOptions, KVCache
from ..network.forward import PassOptions, Text, forward_chunk
from ..network.kernels import Kernels, choose_kernels
from ..network.model import ModelSizes, WanConfig, WanModel
from ..network.ops.attention import Attention
from ..plan.chunks import Plan
from ..plan.histories import level_name
from ..plan.sharing import deal
from ..plan.speed import Speed
from .link import Link
from .pipeline import Ring, Row
from .rank_vae import RankVae, VaeKind
from .share import HeadShare

MAX_TEXTS = 8
"""Prompts whose projected keys a rank holds: those of a blend, and of the chunks under way in a diagonal order."""


@dataclass(frozen=True)
class Pass:
    """A network call as a rank is told of it, besides its tensors."""

    level: str
    """The name of the level whose cache it reads and writes."""
    shape: tuple[int, ...]
    """The latent's [B, C, T, H, W]."""
    text: int
    """The number of the prompt."""
    attention_scale: float
    cache_pass: bool
    number: int = 0
    """The number of a row, in a pipeline."""
    timesteps: tuple[float, ...] = ()
    """The timestep of each batch item, in a pipeline, where the latent stays with the first rank."""


@dataclass(frozen=True)
class Opening:
    """A run as a rank is told of it, besides its plan."""

    dtype: str
    """The dtype of the computation, such as "float32"."""
    kv: str
    """The memory tier, one of TIERS."""
    batch: int
    speed: Speed
    levels: tuple[str, ...]
    """The names of the levels whose passes are shared."""
    bounds: tuple[int, ...] = ()
    """The first layer of each rank, and the number of layers, in a pipeline; empty: ranks share heads."""


class Rank:
    """A rank that computes a share of every pass."""

    def __init__(self, link: Link, device: torch.device):
        self.link, self.device = link, device
        self._model: WanModel | None = None
        self._texts: OrderedDict[int, Text] = OrderedDict()
        self._caches: dict[str, KVCache] = {}
        self._ring: Ring | None = None
        self._vae = RankVae(link, device)
        self._verbs: dict[str, Callable[..., None]] = {
            "load": self.load,
            "prepare": self.prepare,
            "text": self.text,
            "begin": self.begin,
            "keep": lambda level: self._caches[level].keep(),
            "commit": lambda level: self._caches[level].commit(),
            "forward": self.forward,
            "row": self.row,
            "move": self.move,
            "report": self.report,
            "load_vae": self.load_vae,
            "begin_decoding": self._vae.begin,
            "reset_decoder": self._vae.reset,
            "warm_up": self._vae.warm_up,
            "decode": self.decode,
            "close": self.close,
        }

    def do(self, verb: str, values: Mapping[str, Any]) -> None:
        """Do what is asked for. Raises LostRankError where another rank is gone, and what the work raises."""
        with torch.inference_mode():
            self._verbs[verb](**values)

    def load(self, config: Mapping[str, Any], dtypes: Mapping[str, str]) -> None:
        """Receive the weights of a transformer, each in its dtype."""
        with torch.device("meta"):
            model = WanModel(parse(WanConfig, config, "the config"))
        shapes = {name: x.shape for name, x in model.state_dict().items()}
        received = {
            name: self.link.broadcast(torch.empty(shapes[name], dtype=getattr(torch, dtype), device=self.device))
            for name, dtype in dtypes.items()
        }
        model.load_state_dict(received, assign=True)
        self._model = model.requires_grad_(requires_grad=False)

    def prepare(self, plan: Mapping[str, Any], opening: Mapping[str, Any]) -> None:
        """Allocate this rank's part of the caches of a run."""
        self._free()
        found = parse(Opening, opening, "the opening")
        dtype = getattr(torch, found.dtype)
        kernels = choose_kernels(found.speed, self.device, dtype)
        self._dtype, self._attention, self._kernels = dtype, unless_empty(kernels.attention), kernels
        options = CacheOptions(found.batch, self.device, dtype, found.kv)
        self._caches = shared_caches(parse(Plan, plan, "the plan"), self.model, options, self.link, found)
        self._ring = Ring(self.link, self.model, found.bounds) if found.bounds else None

    def text(self, number: int, shape: Sequence[int]) -> None:
        """Receive a prompt's text [B, tokens, channels]; the one that was used least lately is forgotten."""
        self._texts[number] = Text(self.link.broadcast(torch.empty(*shape, device=self.device)))
        if len(self._texts) > MAX_TEXTS:
            self._texts.popitem(last=False)

    def begin(self, level: str, frames: list[int], context: list[int], start: int | None, sinks: list[int]) -> None:
        """Begin a chunk in the cache of a level, as `KVCache.begin`."""
        self._caches[level].begin(frames, tuple(context), start=start, sinks=tuple(sinks))

    def forward(self, **values: Any) -> None:
        """Compute this rank's share of a pass over a latent that is received."""
        asked = self._asked(values)
        latent = self.link.broadcast(torch.empty(asked.shape, dtype=self._dtype, device=self.device))
        timestep = self.link.broadcast(torch.empty(asked.shape[:1], device=self.device))
        options = replace(self._options(asked), share=share_of(self.link, latent, self.model))
        forward_chunk(self.model, latent, timestep, self._texts[asked.text], self._caches[asked.level], options)

    def row(self, **values: Any) -> None:
        """Compute this rank's layers of a row that comes from the rank before."""
        asked, ring = self._asked(values), self._ring
        if ring is None:
            raise ValueError("a rank was asked for a row of a run that is no pipeline")
        timestep = torch.tensor(asked.timesteps, device=self.device)
        text, cache = self._texts[asked.text], self._caches[asked.level]
        ring.go_on(Row(asked.number, asked.shape, timestep, text, cache, self._options(asked), self._dtype))

    def move(self, bounds: list[int]) -> None:
        """Take over other layers, with what their caches hold."""
        if self._ring:
            self._ring.move(bounds, list(self._caches.values()))

    def report(self, number: int) -> None:
        """Tell the first rank how many seconds this one took."""
        if self._ring:
            self._ring.report(number)

    def _asked(self, values: Mapping[str, Any]) -> Pass:
        asked = parse(Pass, values, "the pass")
        self._texts.move_to_end(asked.text)
        return asked

    def _options(self, asked: Pass) -> PassOptions:
        return PassOptions(
            attention=self._attention,
            attention_scale=asked.attention_scale,
            cache_pass=asked.cache_pass,
            block_forward=self._kernels.run_block,
        )

    def load_vae(self, kind: Mapping[str, Any], **weights: Any) -> None:
        """Receive the weights of a VAE."""
        self._vae.load(parse(VaeKind, kind, "the VAE"), **weights)

    def decode(self, **latents: Any) -> None:
        """Decode latents for the first rank."""
        seconds = self._vae.decode(**latents)
        if self._ring:
            self._ring.besides += seconds

    def close(self) -> None:
        """Free what a run had: its caches, its texts and its decoder."""
        self._free()
        self._vae.close()

    def _free(self) -> None:
        """Free the caches and texts of a run, whose decoder is open already."""
        self._caches, self._texts, self._ring = {}, OrderedDict(), None

    @property
    def model(self) -> WanModel:
        if self._model is None:
            raise ValueError("a rank was asked for a pass before it had weights")
        return self._model

    _dtype: torch.dtype
    _attention: Attention
    _kernels: Kernels


def shared_caches(
    plan: Plan, model: WanModel, options: CacheOptions, link: Link, opening: Opening
) -> dict[str, KVCache]:
    """The caches of the levels that are shared, with this rank's heads or layers alone, by the levels' names."""
    sizes, bounds = ModelSizes.of(model), opening.bounds
    if bounds:
        mine = replace(sizes, num_layers=bounds[link.rank + 1] - bounds[link.rank])
    else:
        mine = replace(sizes, num_heads=deal(sizes.num_heads, link.size)[link.rank])
    levels = [level for level in plan.levels if level_name(level) in opening.levels]
    return {level_name(level): cache for level, cache in make_caches(plan, mine, options, levels=levels).items()}


def share_of(link: Link, latent: Tensor, model: WanModel) -> HeadShare:
    """The share of a rank in a pass over a latent [B, C, T, H, W]."""
    frames, height, width = latent.shape[2:]
    return HeadShare.of(link, frames * (height // 2) * (width // 2), model.num_heads)


def unless_empty(attention: Attention) -> Attention:
    """An attention that also takes no queries at all, as a rank without tokens has them."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v) if q.numel() else q.new_empty(*q.shape[:-1], v.shape[-1])

    return attend
