"""The first rank of a gang: it makes the video as one process would, and tells the others of every pass.

A run sees two things of it: caches that tell the other ranks what they are told, and a forward that several compute.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ..files.values import plain
from ..network.cache.pages import Pages
from ..network.cache.tiers import make_caches
from ..network.cache.window import CacheOptions, KVCache, NoSnapshotError
from ..network.forward import PLAIN_PASS, PassOptions, Text, forward_chunk, timesteps_of
from ..network.model import WanConfig, WanModel
from ..plan.chunks import Chunk, Plan
from ..plan.entry import Entry
from ..plan.histories import Level, level_name
from ..plan.schedule import Scale, Step
from ..plan.sharing import ROWS_EACH
from ..plan.speed import Speed
from ..stream.inputs import Source
from ..stream.stream import Later
from .balance import Balancer, bounds_of
from .link import EndedRankError, Link, LostRankError, Work, wait_for
from .pipeline import LATENTS, MAX_SENT, PIXELS, Ring, Row, clock, tag_of
from .rank import MAX_TEXTS, Opening, Pass, share_of, shared_caches, unless_empty
from .rank_vae import VaeKind

LATE = 2
"""Chunks after which the seconds of the ranks of a pipeline are looked at, besides those under way: they are there."""

SECONDS_TO_SAY_WHY, BETWEEN_LOOKS = 1.0, 0.05
"""For how long, and at which intervals, a rank whose connection broke is asked for its error."""

HOP = 10e9
"""Bytes a second at which caches of layers are supposed to move."""

NO_SNAPSHOT = "the caches of several ranks have no snapshot: finished chunks go through the caches again"


class Peer(Protocol):
    """A rank in another thread or process."""

    def tell(self, verb: str, values: Mapping[str, Any]) -> None:
        """Ask it to call `Rank.do`, after all that it was asked before; does not wait for it."""
        ...

    def check(self) -> None:
        """Raise what it has raised; LostRankError where it is gone."""
        ...


class Gang:
    """The ranks that compute the passes of a run together; `link` is that of the first one, in this process."""

    def __init__(self, link: Link, peers: Sequence[Peer], device: torch.device):
        """`device` is that of the first rank."""
        self.link, self.peers, self.device = link, peers, device
        self._known: OrderedDict[int, Text] = OrderedDict()
        """The texts that the ranks have, by their numbers, the one that was used least lately first."""
        self._num_texts = 0
        self.lost = False
        """Whether a rank is gone: the others then wait for nobody, and the gang is of no more use."""
        self._weights: object = None
        self._ring: Ring | None = None
        self._shared: list[KVCache] = []
        self._num_rows = 0
        self._balancer: Balancer | None = None
        self._reports: deque[tuple[list[range], Callable[[], list[Tensor]]]] = deque()
        """The layers that the ranks had while they measured, and what waits for the seconds; the oldest first."""
        self._num_looks = self._num_reports = self._num_decoded = 0
        self._sent: deque[tuple[Work, Tensor]] = deque()
        """Latents sent to the VAE of the last rank that may still be on their way; the oldest first."""
        self._vae: object = None

    def give_weights(self, model: WanModel, config: WanConfig, dtype: torch.dtype, key: object = None) -> None:
        """Send the weights to all ranks, in the dtype of the computation; the patch embedding's stay as they are.

        Nothing is sent where the last ones had the same `key`. Raises LostRankError.
        """
        if key is not None and (key, dtype) == self._weights:
            return
        self._weights = None
        weights = model.state_dict()
        named = {
            name: x if name.startswith("patch_embedding.") else x.to(dtype)
            for name in _names(config)
            for x in [weights[name]]
        }
        self.tell("load", config=plain(config), dtypes={name: dtype_name(x.dtype) for name, x in named.items()})
        with self._asking():
            for x in named.values():
                self.link.broadcast(x.to(self.device).contiguous())
        self._weights = key, dtype

    def prepare(
        self,
        plan: Plan,
        model: WanModel,
        options: CacheOptions,
        speed: Speed,
        levels: Sequence[Level],
        bounds: Sequence[int] = (),
    ) -> dict[Level, KVCache]:
        """The caches of a plan; those of `levels` are shared, and tell the other ranks what they are told.

        `bounds` are the first layer of each rank of a pipeline, and the number of layers.
        """
        self._free()
        names = [level_name(level) for level in levels]
        opening = Opening(dtype_name(options.dtype), options.kv, options.batch, speed, tuple(names), tuple(bounds))
        self.tell("prepare", plan=plain(plan), opening=plain(opening))
        mine = shared_caches(plan, model, options, self.link, opening)
        self._ring = Ring(self.link, model, bounds) if bounds else None
        if self._ring:
            moving = sum(cache.nbytes for cache in mine.values()) / len(self._ring.layers) / HOP
            self._balancer = Balancer(len(model.blocks), self.link.size, move_seconds=moving)
        self._shared = list(mine.values())
        found: dict[Level, Any] = make_caches(
            plan, model, options, levels=[level for level in plan.levels if level not in levels]
        )
        found |= {level: SharedCache(self, name, mine[name]) for level, name in zip(levels, names, strict=True)}
        if plan.pooled_low and (high := found[Scale.HIGH]).pooled:
            high.pooled = found[Scale.LOW]  # it is told by its own name
        return {level: found[level] for level in plan.levels}

    def forward(
        self,
        model: WanModel,
        latent: Tensor,
        timestep: Tensor,
        text: Text,
        cache: KVCache,
        options: PassOptions = PLAIN_PASS,
    ) -> Tensor | None:
        """`forward_chunk`, computed by all ranks where the cache is shared. Raises LostRankError."""
        if not isinstance(cache, SharedCache):
            return forward_chunk(model, latent, timestep, text, cache, options)
        number = self._number(text)
        told = Pass(cache.name, tuple(latent.shape), number, options.attention_scale, options.cache_pass)
        self.tell("forward", **plain(told))
        share = share_of(self.link, latent, model)
        options = replace(options, share=share, attention=unless_empty(options.attention))
        with self._asking():
            self.link.broadcast(latent.contiguous())
            self.link.broadcast(timestep.float().contiguous())
            return forward_chunk(model, latent, timestep, text, cache, options)

    def submit(
        self,
        latent: Tensor,
        timestep: Tensor,
        text: Text,
        cache: KVCache,
        options: PassOptions = PLAIN_PASS,
    ) -> Later:
        """Send a row through the ring; what is returned waits for its flow [B, C, T, H, W]. Raises LostRankError."""
        if self._ring is None or not isinstance(cache, SharedCache):
            raise ValueError("no pipeline is open")
        self._num_rows += 1
        told = Pass(
            cache.name,
            tuple(latent.shape),
            self._number(text),
            options.attention_scale,
            options.cache_pass,
            self._num_rows,
            tuple(timestep.float().tolist()),
        )
        self.tell("row", **plain(told))
        row = Row(self._num_rows, latent.shape, timestep, text, cache.part, options, latent.dtype)
        with self._asking():
            flow = self._ring.begin(row, latent)

        def arrived() -> Tensor:
            with self._asking():
                return flow()

        return arrived

    def move(self, bounds: Sequence[int]) -> None:
        """Give the ranks of a pipeline other layers, from the next row on. Raises LostRankError."""
        if self._ring and list(bounds) != self._ring.bounds:
            self.tell("move", bounds=list(bounds))
            with self._asking():
                self._ring.move(bounds, self._shared)

    def _free(self) -> None:
        """Forget the caches and texts of the run before."""
        self._known.clear()
        self._shared, self._ring, self._balancer = [], None, None
        self._reports.clear()
        self._num_looks = 0

    def count_row(self) -> None:
        """Note that a row is about to be asked for; `balance` where those of a chunk were."""
        if self._num_rows and self._num_rows % len(self._shared) == 0:
            self.balance()

    def balance(self) -> None:
        """Ask the ranks what they measured; let the layers follow what they did some chunks ago. Raises LostRankError.

        Nobody waits: a rank that had to answer at once would first end its rows, while the others have none.
        """
        ring, balancer = self._ring, self._balancer
        if ring is None or balancer is None:
            return
        self._num_reports += 1
        self.tell("report", number=self._num_reports)
        with self._asking():
            self._reports.append((ring.split, ring.expect_reports(self._num_reports)))
            if len(self._reports) <= LATE + ROWS_EACH * self.link.size // len(self._shared):
                return
            split, coming = self._reports.popleft()
            taken = [seconds.tolist() for seconds in coming()]
        self._num_looks += 1
        if self._num_looks <= len(self._shared) + 1:  # the ring was filled: more was encoded than decoded
            return
        for rank, (layers, (seconds, besides)) in enumerate(zip(split, taken, strict=True)):
            balancer.measure(rank, seconds, len(layers))
            balancer.measure_extra(rank, besides)
        self.move(bounds_of(balancer.split()))

    def count_besides(self, seconds: float) -> None:
        """Note that the first rank worked so long for a chunk besides its layers: it encoded."""
        if self._ring:
            self._ring.besides += seconds

    def give_vae(self, kind: VaeKind, weights: Mapping[str, Tensor], key: object = None) -> None:
        """Send a VAE to the last rank, each weight in its dtype, unless the last one had the same `key`."""
        if key is not None and key == self._vae:
            return
        self._vae = None
        dtypes = {name: dtype_name(x.dtype) for name, x in weights.items()}
        shapes = {name: list(x.shape) for name, x in weights.items()}
        self.tell_last("load_vae", kind=plain(kind), dtypes=dtypes, shapes=shapes)
        for x in weights.values():
            self._send_to_last(x)
        self._vae = key

    def ask_last(self, verb: str, x: Tensor, **values: Any) -> None:
        """Ask the VAE of the last rank to do something with a tensor, which follows. Raises LostRankError."""
        with self._asking():
            self.tell_last(verb, shape=list(x.shape), dtype=dtype_name(x.dtype), **values)
            self._send_to_last(x)

    def decode(self, latents: Tensor, pixels: Tensor) -> Later:
        """Let the last rank decode latents into `pixels`; what is returned waits for them. Raises LostRankError."""
        self._num_decoded += 1
        with self._asking():
            self.ask_last("decode", latents, number=self._num_decoded)
            coming = self.link.expect(pixels, self.link.size - 1, tag_of(PIXELS, self._num_decoded))

        def arrived() -> Tensor:
            with self._asking():
                wait_for(coming)
            return pixels

        return arrived

    def _send_to_last(self, x: Tensor) -> None:
        """Begin to send a tensor to the VAE of the last rank, which comes to it when it has done what is before."""
        with self._asking():
            while len(self._sent) >= MAX_SENT:
                wait_for(self._sent.popleft()[0])
            x = x.to(self.device).contiguous()
            self._sent.append((self.link.send(x, self.link.size - 1, tag_of(LATENTS)), x))

    def close(self) -> None:
        """End the run: all ranks free its caches."""
        self._free()
        self.tell("close")

    def tell(self, verb: str, **values: Any) -> None:
        with self._asking():
            for peer in self.peers:
                peer.check()
                peer.tell(verb, values)

    def tell_last(self, verb: str, **values: Any) -> None:
        """Tell the last rank alone."""
        with self._asking():
            self.peers[-1].check()
            self.peers[-1].tell(verb, values)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Lets the gang be of no more use where a pass is not finished; where a rank has failed, raises why."""
        try:
            yield
        except LostRankError:
            self.lost = True
            self._tell_why()
            raise
        except BaseException:
            self.lost = True  # the other ranks wait in the middle of a pass
            raise

    def _tell_why(self) -> None:
        """Raise what a rank raised, which the loss of its connection runs ahead of, or that its process has ended.

        Does nothing where none says why.
        """
        for _ in range(round(SECONDS_TO_SAY_WHY / BETWEEN_LOOKS)):
            for peer in self.peers:
                try:
                    peer.check()
                except EndedRankError:
                    raise
                except LostRankError:
                    continue
            time.sleep(BETWEEN_LOOKS)

    def _number(self, text: Text) -> int:
        """The number by which the ranks know a text; it is sent to them where they do not."""
        number = next((number for number, known in self._known.items() if known is text), 0)
        if not number:
            self._num_texts += 1
            number = self._num_texts
            self.tell("text", number=number, shape=list(text.context.shape))
            with self._asking():
                self.link.broadcast(text.context.float().to(self.device).contiguous())
            self._known[number] = text
            if len(self._known) > MAX_TEXTS:
                self._known.popitem(last=False)
        self._known.move_to_end(number)
        return number


class PipelineDenoiser:
    """The network call of a pipeline: clean estimates of rows, which are there some time after they are asked for."""

    def __init__(self, gang: Gang, options: PassOptions, dtype: torch.dtype):
        self._gang, self._options, self._dtype = gang, options, dtype

    @torch.inference_mode()
    def __call__(self, latent: Tensor, step: Step, cache: KVCache, text: Text) -> Later:
        """A function that waits for the clean estimate x - sigma v of a noisy `latent` [B, C, T, H, W]."""
        self._gang.count_row()
        options = replace(self._options, attention_scale=step.attention_scale)
        given = latent.to(self._dtype)
        flow = self._gang.submit(given, timesteps_of(step, latent), text, cache, options)

        def clean() -> Tensor:
            with torch.inference_mode():
                return latent - step.sigma * flow().to(latent.dtype)

        return clean

    def timed(self, source: Source) -> Source:
        """A source whose seconds of encoding count as those of the first rank."""

        def found(chunk: Chunk) -> tuple[Entry, Tensor]:
            begun = clock()
            entry, latent = source(chunk)
            self._gang.count_besides(clock(latent) - begun)
            return entry, latent

        return found


class SharedCache:
    """The first rank's part of a cache; what it is told, all ranks are told.

    It stands in for a `KVCache`, and has no snapshot.
    """

    def __init__(self, gang: Gang, name: str, cache: KVCache):
        self.name, self.pooled = name, cache.pooled
        self.batch, self.device = cache.batch, cache.device
        self._gang, self.part = gang, cache

    def begin(
        self, frames: Sequence[int], context: tuple[int, ...], *, start: int | None = None, sinks: tuple[int, ...] = ()
    ) -> None:
        self.part.begin(frames, context, start=start, sinks=sinks)
        told = {"frames": [*frames], "context": [*context], "start": start, "sinks": [*sinks]}
        self._gang.tell("begin", level=self.name, **told)

    def keep(self) -> None:
        self.part.keep()
        self._gang.tell("keep", level=self.name)

    def commit(self) -> None:
        self.part.commit()
        self._gang.tell("commit", level=self.name)

    def pages(self, layer: int, *, keep: bool = False) -> Pages:
        return self.part.pages(layer, keep=keep)

    @property
    def frames(self) -> tuple[int, ...]:
        return self.part.frames

    @property
    def nbytes(self) -> int:
        return self.part.nbytes

    def snapshot(self) -> dict[str, Tensor]:
        raise NoSnapshotError(NO_SNAPSHOT)

    def restore(self, _: Mapping[str, Tensor]) -> None:
        raise ValueError(NO_SNAPSHOT)


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _names(config: WanConfig) -> list[str]:
    """The names of a transformer's weights, in one order for all ranks."""
    with torch.device("meta"):
        return list(WanModel(config).state_dict())
