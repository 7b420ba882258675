"""The parameters of a Wan2.1 video transformer, at any size, under the names of the published checkpoints.

There is no forward here: `forward.forward_chunk` is the one forward, over this module or over the module that a host
has loaded. Annotations elsewhere say `WanModel` and `Block` for any module with the same submodules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ..files.reading import parse_json

HEAD_DIM = 128
"""Channels of one attention head in every published Wan2.1 model."""

MAX_SIZE = 2**20
"""Largest size of a transformer that is built; published models have at most 13824 channels."""

MAX_TOKENS = 512
"""Tokens of a prompt as Wan was trained: shorter prompts are padded with zeros, which the model attends to."""


@dataclass(frozen=True, slots=True)
class WanConfig:
    """Sizes of a Wan transformer; the defaults are what all Wan2.1 text-to-video models share."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_dim: int = 16
    out_dim: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    eps: float = 1e-6

    def __post_init__(self):
        sizes = self.dim, self.ffn_dim, self.num_layers, self.in_dim, self.out_dim, self.text_dim, self.freq_dim
        if not all(0 < size <= MAX_SIZE for size in sizes) or self.freq_dim % 2:
            raise ValueError(f"{sizes} are no sizes: each is from 1 to {MAX_SIZE}, and the last one even")
        if self.num_heads < 1 or self.dim % self.num_heads or self.head_dim % 2:
            raise ValueError(f"{self.dim} channels do not split into {self.num_heads} heads of even size")

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> WanConfig:
        """Read the sizes from the shapes of the tensors.

        The number of heads is in no shape: heads have 128 channels unless the safetensors metadata `config`, a JSON
        object {"transformer": {...}} as ComfyUI reads it, gives another number of heads.
        """
        dim = state_dict["head.modulation"].shape[-1]
        layers = {key.split(".")[1] for key in state_dict if key.startswith("blocks.")}
        num_heads, eps = _declared((metadata or {}).get("config", "{}"))
        return cls(
            dim=dim,
            ffn_dim=state_dict["blocks.0.ffn.0.weight"].shape[0],
            num_heads=max(1, dim // HEAD_DIM) if num_heads is None else num_heads,
            num_layers=len(layers),
            in_dim=state_dict["patch_embedding.weight"].shape[1],
            out_dim=state_dict["head.head.weight"].shape[0] // 4,
            text_dim=state_dict["text_embedding.0.weight"].shape[1],
            freq_dim=state_dict["time_embedding.0.weight"].shape[1],
            eps=eps,
        )


def _declared(config: str) -> tuple[int | None, float]:
    """The number of heads and the epsilon in the metadata `config`. Raises ValueError for other values than numbers."""
    found = parse_json(config)
    declared = found.get("transformer", {}) if isinstance(found, dict) else None
    if not isinstance(declared, dict):
        raise ValueError('the metadata "config" is no JSON object {"transformer": {...}}')
    heads, eps = declared.get("num_heads"), declared.get("eps", 1e-6)
    if not (heads is None or type(heads) is int) or type(eps) not in (int, float) or not 0 <= eps < 1:
        raise ValueError(f'the metadata "config" has {str(heads)[:20]} heads and an epsilon of {str(eps)[:20]}')
    return heads, float(eps)


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """The sizes of a transformer that determine the shapes of its keys and values."""

    num_layers: int
    num_heads: int
    head_dim: int

    @classmethod
    def of(cls, model: WanModel | WanConfig | ModelSizes) -> ModelSizes:
        """Read the sizes from a config or from any Wan module, core's or a host's."""
        if isinstance(model, ModelSizes):
            return model
        num_layers = model.num_layers if isinstance(model, WanConfig) else len(model.blocks)
        return cls(num_layers, model.num_heads, model.dim // model.num_heads)


WAN_1_3B = WanConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30)
WAN_14B = WanConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40)


def _modulation(count: int, dim: int) -> nn.Parameter:
    x = torch.empty(1, count, dim)
    # Initialising on the meta device would make torch import its compiler: 2 s in every process that loads weights.
    return nn.Parameter(x if x.is_meta else nn.init.normal_(x, std=dim**-0.5))


class Projections(nn.Module):
    """Query, key, value and output projections of an attention; queries and keys are normalised over all heads."""

    def __init__(self, dim: int, num_heads: int, eps: float):
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = nn.RMSNorm(dim, eps=eps), nn.RMSNorm(dim, eps=eps)


class Block(nn.Module):
    """One transformer layer: self-attention, cross-attention, feed-forward."""

    def __init__(self, config: WanConfig):
        super().__init__()
        dim, heads, eps = config.dim, config.num_heads, config.eps
        self.norm1 = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.self_attn = Projections(dim, heads, eps)
        self.norm3 = nn.LayerNorm(dim, eps)
        self.cross_attn = Projections(dim, heads, eps)
        self.norm2 = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.ffn = nn.Sequential(
            nn.Linear(dim, config.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(config.ffn_dim, dim)
        )
        self.modulation = _modulation(6, dim)


class Head(nn.Module):
    """The projection of the last layer's output to the channels of 2x2 latent cells."""

    def __init__(self, config: WanConfig):
        super().__init__()
        self.norm = nn.LayerNorm(config.dim, config.eps, elementwise_affine=False)
        self.head = nn.Linear(config.dim, 4 * config.out_dim)
        self.modulation = _modulation(2, config.dim)


class WanModel(nn.Module):
    """A Wan2.1 transformer as modules and parameters, with the state-dict keys of the published files."""

    patch_size = (1, 2, 2)

    def __init__(self, config: WanConfig):
        super().__init__()
        self.config = config
        self.dim, self.num_heads, self.num_layers = config.dim, config.num_heads, config.num_layers
        self.freq_dim, self.text_dim = config.freq_dim, config.text_dim
        self.in_dim, self.out_dim = config.in_dim, config.out_dim
        dim = config.dim
        self.patch_embedding = nn.Conv3d(config.in_dim, dim, self.patch_size, self.patch_size)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = cast("Sequence[Block]", nn.ModuleList(Block(config) for _ in range(config.num_layers)))
        self.head = Head(config)
        self.register_module("second", None)

    second: WanModel | None
    """A second set of weights, which computes the cache passes of families that have one (SGF+)."""
