"""The pipeline of StreamDiffusionV2 (arXiv 2511.07399): every rank has some of the layers, and rows go round in a ring.

In a diagonal order the rows of a diagonal do not wait for one another, so while one rank computes a row's layers, the
rank before it computes those of the next row. The first rank embeds a row, the last one turns it into a flow.

B batch, L tokens.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from ..network.cache.pages import Pages, PageSource
from ..network.cache.window import KVCache
from ..network.forward import PassOptions, TextSource, TimeEmbedding, embed_chunk, embed_timestep, flow_of, run_layers
from ..network.model import WanModel
from .link import Link, Work, wait_for

MAX_SENT = 4
"""Rows that a rank has sent and that may still be on their way; then it waits for the oldest."""

TAGS = 2**15
"""Tensors of a kind are told apart by their numbers modulo this: nobody may wait any more for one of a stopped run."""

ROWS, REPORTS, PIXELS, LATENTS = range(4)
"""Kinds of tensors: rows in the ring, seconds that ranks report, and what the last rank decodes and sends back."""


@dataclass(frozen=True)
class Layers(PageSource):
    """Some layers of a cache that holds those alone."""

    cache: KVCache
    layers: range

    def pages(self, layer: int, *, keep: bool = False) -> Pages:
        return self.cache.pages(layer - self.layers.start, keep=keep)


@dataclass(frozen=True)
class Row:
    """One row on its way through the ring, as a rank has it."""

    number: int
    shape: Sequence[int]
    """The latent's [B, C, T, H, W]."""
    timestep: Tensor
    """[B], on the device of the rank."""
    text: TextSource
    cache: KVCache
    """The cache of the row's level, with the layers of the rank alone."""
    options: PassOptions
    dtype: torch.dtype

    @property
    def tag(self) -> int:
        return tag_of(ROWS, self.number)

    @property
    def num_tokens(self) -> int:
        frames, height, width = self.shape[2:]
        return frames * (height // 2) * (width // 2)


class Ring:
    """The place of one rank in the ring."""

    def __init__(self, link: Link, model: WanModel, bounds: Sequence[int]):
        """`bounds` are the first layer of each rank, and the number of layers."""
        self.link, self.model, self.bounds = link, model, list(bounds)
        self._seconds = 0.0
        self.besides = 0.0
        """Seconds that this rank encoded or decoded since it was asked last."""
        self._sent: deque[tuple[Work, Tensor]] = deque()
        self._reported: tuple[Work, Tensor] | None = None

    @property
    def split(self) -> list[range]:
        """The layers of each rank."""
        return [range(start, stop) for start, stop in pairwise(self.bounds)]

    @property
    def layers(self) -> range:
        """The layers of this rank."""
        return self.split[self.link.rank]

    def begin(self, row: Row, latent: Tensor) -> Callable[[], Tensor]:
        """Compute the first layers of a row and send it on; what is returned waits for its flow [B, C, T, H, W]."""
        x, embedded = embed_chunk(self.model, latent, row.timestep)
        self._pass_on(row, x, embedded)
        flow = latent.new_empty(row.shape[0], self.model.out_dim, *row.shape[2:])
        coming = self.link.expect(flow, self.link.size - 1, row.tag)

        def arrived() -> Tensor:
            wait_for(coming)
            return flow

        return arrived

    def go_on(self, row: Row) -> None:
        """Receive a row from the rank before, compute the layers of this one, and send it on."""
        shape = row.shape[0], row.num_tokens, self.model.dim
        x = torch.empty(shape, dtype=row.dtype, device=row.timestep.device)
        self.link.receive(x, self.link.rank - 1, row.tag)
        self._pass_on(row, x, embed_timestep(self.model, row.timestep, row.shape[2], row.dtype))

    def _pass_on(self, row: Row, x: Tensor, embedded: TimeEmbedding) -> None:
        options = replace(row.options, layers=self.layers)
        begun = clock(x)
        found = run_layers(self.model, x, embedded, row.text, Layers(row.cache, self.layers), options)
        self._seconds += clock(x) - begun
        if found is None:
            return
        last = self.link.rank == self.link.size - 1
        self._send(flow_of(self.model, found, embedded, row.shape[2:]) if last else found, row.tag)

    def take_seconds(self) -> Tensor:
        """The seconds of this rank's layers and those besides since it was asked last, [2] float64."""
        taken = [self._seconds, self.besides]
        self._seconds = self.besides = 0.0
        return torch.tensor(taken, dtype=torch.float64, device=self._device)

    def report(self, number: int) -> None:
        """Send them to the first rank, once the report before has arrived."""
        if self._reported:
            wait_for(self._reported[0])
        taken = self.take_seconds()
        self._reported = self.link.send(taken, 0, tag_of(REPORTS, number)), taken

    def expect_reports(self, number: int) -> Callable[[], list[Tensor]]:
        """Take the seconds of all ranks, of which the others were asked for theirs. What is returned waits for them."""
        mine = self.take_seconds()
        found = [torch.empty_like(mine) for _ in range(1, self.link.size)]
        coming = [self.link.expect(x, rank, tag_of(REPORTS, number)) for rank, x in enumerate(found, start=1)]

        def arrived() -> list[Tensor]:
            for work in coming:
                wait_for(work)
            return [mine, *found]

        return arrived

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _send(self, x: Tensor, tag: int) -> None:
        while len(self._sent) >= MAX_SENT:
            wait_for(self._sent.popleft()[0])
        x = x.contiguous()
        self._sent.append((self.link.send(x, (self.link.rank + 1) % self.link.size, tag), x))

    def settle(self) -> None:
        """Wait until all that was sent has arrived."""
        while self._sent:
            wait_for(self._sent.popleft()[0])

    def move(self, bounds: Sequence[int], caches: Sequence[KVCache]) -> None:
        """Give every rank other layers, with what their caches hold; no row is under way. Raises LostRankError."""
        self.settle()
        old, rank = self.bounds, self.link.rank
        before, after = self.layers, range(*bounds[rank : rank + 2])
        for cache in caches:
            for name in (*cache.parts, "anchor_k", "anchor_v"):
                held: Tensor = getattr(cache, name)
                setattr(cache, name, self._moved(held, before, after, _owners(old), _owners(bounds)))
        self.bounds = list(bounds)

    def _moved(self, held: Tensor, before: range, after: range, owners: list[int], heirs: list[int]) -> Tensor:
        """One tensor [layers, ...] with the layers of `after` in the place of those of `before`."""
        rank = self.link.rank
        with torch.inference_mode(mode=False):  # caches are written outside of it too
            found = torch.empty(len(after), *held.shape[1:], dtype=held.dtype, device=held.device)
        for layer, (owner, heir) in enumerate(zip(owners, heirs, strict=True)):
            if owner == heir == rank:
                found[layer - after.start] = held[layer - before.start]
            elif owner == rank:
                x = held[layer - before.start].contiguous()
                wait_for(self.link.send(x, heir))
            elif heir == rank:
                self.link.receive(found[layer - after.start], owner)
        return found


def tag_of(kind: int, number: int = 0) -> int:
    """The tag of a tensor on its way."""
    return kind * TAGS + number % TAGS


def clock(x: Tensor | None = None) -> float:
    """Seconds on a clock, once the device of a tensor has done all that it was asked for."""
    if x is not None and x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()


def _owners(bounds: Sequence[int]) -> list[int]:
    """The rank of each layer."""
    return [rank for rank in range(len(bounds) - 1) for _ in range(bounds[rank], bounds[rank + 1])]
