"""Predicted seconds of a network call, by one GPU or by several that share it; all follow from its operations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..cost.cost import Cost, PassSize, pass_flops
from ..network.model import WanConfig
from ..plan.chunks import Chunk
from ..plan.schedule import Step
from ..plan.sharing import TILE, deal
from .devices import Device, LinkRates, Machine

TERA, GIGA = 1e12, 1e9

EXCHANGES, EXCHANGED = 2, 4
"""Exchanges of a shared layer, and the hidden states that travel in them: queries, keys and values there, one back."""


@dataclass(frozen=True, slots=True)
class Share:
    """The work of the slowest of several ranks in a pass, as shares of the whole."""

    tokens: float = 1.0
    heads: float = 1.0

    @classmethod
    def of(cls, ranks: int, num_tokens: int, num_heads: int) -> Share:
        """The largest share of the tokens and heads that are dealt to so many ranks."""
        return cls(max(deal(num_tokens, ranks, TILE)) / num_tokens, max(deal(num_heads, ranks)) / num_heads)


ALL = Share()


def call_seconds(cost: Cost, rows: Iterable[tuple[Chunk, Step]], machine: Machine, ranks: int = 1) -> float:
    """Seconds of one network call; its rows are computed together, and twice with classifier-free guidance."""
    seconds = cost.config.num_layers * machine.device.layer
    for chunk, step in rows:
        size = cost.pass_size(chunk, step)
        share = Share.of(ranks, size.tokens, cost.config.num_heads)
        seconds += cost.batch * pass_seconds(cost.config, size, machine.device, share)
        if ranks > 1:
            values = size.tokens * cost.config.dim * cost.batch
            seconds += cost.config.num_layers * exchange_seconds(values * cost.dtype.itemsize, ranks, machine.link)
    return cost.plan.guidance.passes * seconds


def pass_seconds(config: WanConfig, size: PassSize, device: Device, share: Share = ALL) -> float:
    """Seconds of a pass, but for those that do not depend on its size."""
    everything = pass_flops(config, size)
    products = pass_flops(config, replace(size, visible=0, blocks=None))
    values = size.tokens * config.dim * config.num_layers
    by_token = products / (device.products * TERA) + values / (device.values * GIGA)
    return share.heads * (everything - products) / (device.attention * TERA) + share.tokens * by_token


def exchange_seconds(state: float, ranks: int, link: LinkRates) -> float:
    """Seconds of the exchanges of one shared layer, whose hidden state has so many bytes in all."""
    sent = EXCHANGED * state / ranks * (ranks - 1) / ranks
    return EXCHANGES * link.latency + sent / link.bandwidth


def hop_seconds(state: float, link: LinkRates) -> float:
    """Seconds until a hidden state of so many bytes is on the next GPU."""
    return link.latency + state / link.bandwidth
