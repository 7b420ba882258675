"""Passes at LOW as CUDA graphs: recorded once, then replayed with one launch instead of about two thousand.

At LOW the device computes a layer about as fast as the CPU launches its kernels. At HIGH the device is slower than the
CPU, so graphs gain nothing there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cache.pages import Pages
from ..cache.window import KVCache
from ..forward import PLAIN_PASS, PassOptions, Text, forward_chunk
from ..layer import KeysValues
from ..model import WanModel
from .layers import first_words

Work = Callable[[], Tensor | None]

Recorder = Callable[[Work], Work]
"""Records a function; returns a function that repeats it on the same tensors and into the same result.

A recorder may call the function once.
"""


class CudaRecorder:
    """Records on a CUDA device. A recording has memory of its own, which ends with it; copy a result before a replay.

    Memory that recordings share ends with all of them, and a new one must not ask for it then.
    """

    def __call__(self, work: Work) -> Work:
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # "thread_local": other threads may go on to encode and copy, they are not recorded.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = work()
        finally:  # where the capture fails, its end does too, and leaves the stream that was captured
            torch.cuda.set_stream(before)

        def replay() -> Tensor | None:
            graph.replay()
            return result

        return replay


@dataclass(frozen=True)
class _Recording:
    replay: Work
    inputs: tuple[Tensor, ...]
    """The tensors that a replay reads; they are filled before it."""


class _FixedCache:
    """A cache whose indices of written pages and rotations are fixed tensors, as a recording needs them."""

    def __init__(self, cache: KVCache, written: Tensor, table: Tensor):
        self._cache, self._written, self._table = cache, written, table

    def pages(self, layer: int, *, keep: bool = False) -> Pages:
        return self._cache.pages(layer, keep=keep)._replace(written=self._written, table=self._table)


class _FixedText:
    """The text keys and values of the current prompt in fixed tensors, as a recording needs them."""

    def __init__(self, text: Text, model: WanModel, like: Tensor):
        given = [text.keys(model, layer, like) for layer in range(len(model.blocks))]
        self._keys = [(k.clone(), v.clone()) for k, v in given]
        self._held = text
        self.negative = _FixedText(text.negative, model, like) if text.negative else None

    def hold(self, text: Text, model: WanModel, like: Tensor) -> None:
        """Copy in the keys and values of a prompt of the same length, unless they are held already."""
        if self.negative and text.negative:
            self.negative.hold(text.negative, model, like)
        if text is not self._held:
            for layer, mine in enumerate(self._keys):
                for x, y in zip(mine, text.keys(model, layer, like), strict=True):
                    x.copy_(y)
            self._held = text

    def keys(self, model: WanModel, layer: int, like: Tensor) -> KeysValues:
        return self._keys[layer]


class GraphedForward:
    """A replacement for `forward_chunk` at one resolution; each run makes its own.

    The first pass of a kind runs uncaptured, the second is recorded, later ones are replayed. Passes that are rare or
    whose tensors do not stay in place are never recorded: those of first chunks, of windows that still grow, of caches
    that store their past elsewhere, of weights that do not lie on the device. Where weights have moved, passes are
    recorded again. Where recording fails, nothing is recorded any more, and `on_failure` gets a sentence that says why.
    """

    def __init__(self, recorder: Recorder, on_failure: Callable[[str], None]):
        self.recorder, self.on_failure = recorder, on_failure
        self.recorded = 0
        """The number of recordings: two in a run whose weights and caches do not move."""
        self.failure: str | None = None
        """The reason for which nothing is recorded any more."""
        self._place: tuple | None = None
        self._seen: set[tuple | None] = set()
        self._recordings: dict[tuple, _Recording] = {}
        self._texts: dict[tuple, _FixedText] = {}

    def __call__(
        self,
        model: WanModel,
        latent: Tensor,
        timestep: Tensor,
        text: Text,
        cache: KVCache,
        options: PassOptions = PLAIN_PASS,
    ) -> Tensor | None:
        """Compute what `forward_chunk` does. Within a run only `attention_scale` and `cache_pass` may change."""
        kind = None if self.failure is not None else self._kind(model, latent, text, cache, options)
        if kind is None or kind not in self._seen:
            self._seen.add(kind)
            return forward_chunk(model, latent, timestep, text, cache, options)
        pages = cache.pages(0)
        fixed = self._fixed_text(text, model, latent, pages.k.data_ptr())
        inputs = latent, timestep, pages.written, pages.table
        if kind not in self._recordings:
            try:
                self._recordings[kind] = self._record(model, fixed, cache, inputs, options)
            except RuntimeError as error:  # CUDA cannot record this
                self.failure, self._recordings = first_words(error), {}
                self.on_failure(f"passes at LOW cannot be recorded as CUDA graphs, they run as usual: {self.failure}")
                return forward_chunk(model, latent, timestep, text, cache, options)
        found = self._recordings[kind]
        for mine, given in zip(found.inputs, inputs, strict=True):
            mine.copy_(given)
        result = found.replay()
        return None if result is None else result.clone()  # the next replay writes into the same tensor

    def _kind(self, model: WanModel, latent: Tensor, text: Text, cache: KVCache, options: PassOptions) -> tuple | None:
        """The kind of a pass: passes of one kind share a recording. None for a pass that is not recorded."""
        weights = _addresses(model, latent.device)
        if type(cache) is not KVCache or weights is None:
            return None
        pages = cache.pages(0)
        if pages.visible != slice(pages.k.shape[1]) or pages.anchors:
            return None
        if weights != self._place:
            self._place, self._recordings, self._texts = weights, {}, {}
        where = pages.k.data_ptr(), pages.v.data_ptr()
        return where, latent.shape, latent.dtype, text.context.shape, options.attention_scale, options.cache_pass

    def _fixed_text(self, text: Text, model: WanModel, like: Tensor, where: int) -> _FixedText:
        """The fixed text of the cache that lies there: the caches of a pair have each their own, so none is copied."""
        key = where, text.context.shape
        if key not in self._texts:
            self._texts[key] = _FixedText(text, model, like)
        self._texts[key].hold(text, model, like)
        return self._texts[key]

    def _record(
        self, model: WanModel, text: _FixedText, cache: KVCache, inputs: tuple[Tensor, ...], options: PassOptions
    ) -> _Recording:
        fixed = tuple(x.clone() for x in inputs)
        latent, timestep, written, table = fixed

        def work() -> Tensor | None:
            return forward_chunk(model, latent, timestep, text, _FixedCache(cache, written, table), options)

        replay = self.recorder(work)
        self.recorded += 1
        return _Recording(replay, fixed)


def _addresses(model: WanModel, device: torch.device) -> tuple[int, ...] | None:
    """Addresses of the weights; None where some are elsewhere than in plain tensors on the device."""
    found = []
    for x in (*model.parameters(), *model.buffers()):
        if x.device != device or type(x.data) is not Tensor:
            return None
        found.append(x.data_ptr())
    return tuple(found)
