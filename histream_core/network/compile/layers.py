"""Layers through `torch.compile`: one graph for all layers of every kind of pass, four in a usual run.

B batch, L tokens, N heads, D head dim.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from types import FunctionType

import torch
from torch import Tensor

from ...plan.chunks import Plan
from ..cache.pages import Pages
from ..layer import LayerCall, RunBlock, run_block
from ..model import Block
from ..ops.attention import Attention

_NAMESPACE = re.sub(r"[^0-9A-Za-z]", "_", __name__)
"""Of our operator: a process may hold the engine twice, in two packages."""

_compiled: dict[tuple, RunBlock] = {}
"""What this process has compiled, by what it was made for; the next run finds it here."""

_chosen: list[Attention] = []
"""The attention of the layer that is being computed."""


@torch.library.custom_op(f"{_NAMESPACE}::attend", mutates_args=())
def attend_outside(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention, whichever was chosen, as one operation that no compiler looks into: [B, L, N, D].

    So a graph does not depend on the choice, and nobody's attention needs to be made for compilers.
    """
    return _chosen[-1](q, k, v).contiguous()


@attend_outside.register_fake
def _(q: Tensor, _k: Tensor, _v: Tensor) -> Tensor:
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)


def common_shapes(plan: Plan) -> frozenset[tuple[int, int]]:
    """(frames computed, frames seen) of the passes that are worth a graph: the first chunk's, and what comes again.

    A window that still grows has another length in every chunk. It follows from the plan alone, so that a run that is
    resumed compiles what the whole one does.
    """
    found: Counter[tuple[int, int]] = Counter()
    for chunk in plan.chunks:
        computed = {len(chunk.frames), len(chunk.cached) or len(chunk.frames)}
        found.update((frames, frames + len(chunk.context) if chunk.context else 0) for frames in computed)
    return frozenset(shape for shape, times in found.items() if times > 1 or not shape[1])


class CompiledBlocks:
    """Stands in for `run_block`; made by a run and gone with it, while what it compiled stays with the process.

    Passes of the shapes that are common in a plan are compiled, one graph for each shape, resolution and dtype;
    others run as they are written. Where compiling fails, all do, and `on_failure` is told why.
    """

    def __init__(
        self,
        plan: Plan,
        on_failure: Callable[[str], None],
        *,
        backend: str = "inductor",
        run_block: RunBlock = run_block,
        **options,
    ):
        """`options` are those of `torch.compile`, such as `mode`."""
        self.backend, self.options = backend, options
        self.run_block, self.on_failure = run_block, on_failure
        self.shapes = common_shapes(plan)
        self.graphs = 0
        """Graphs that were compiled for this run; none where an earlier one needed the same."""
        self.failure: str | None = None
        """Why nothing is compiled any more."""

    def __call__(self, block: Block, call: LayerCall) -> Tensor:
        if self.failure is None and _shape(call.pages) in self.shapes:
            before = _graph_count()
            _chosen.append(call.attention)
            try:
                return self._compiled(_kind_of_call(call))(block, call._replace(attention=attend_outside))
            except _compiler_errors() as error:  # comes from compiling: nothing has been computed yet
                self.failure = first_words(error)
            finally:
                _chosen.pop()
                self.graphs += _graph_count() - before
            self.on_failure(f"{self.backend} cannot compile the layers, they run uncompiled: {self.failure}")
        return self.run_block(block, call)

    def _compiled(self, kind: tuple) -> RunBlock:
        options = repr(sorted(self.options.items()))
        key = self.run_block, self.backend, options, torch.is_inference_mode_enabled(), kind
        if key not in _compiled:
            function = _copy_of(self.run_block, f"{self.run_block.__name__}_{len(_compiled)}")
            settings = {"dynamic": False, "fullgraph": True, "backend": self.backend} | deepcopy(self.options)
            try:
                _compiled[key] = torch.compile(function, **settings)
            except RuntimeError as error:  # this Python, or this system, has no compiler
                raise torch._dynamo.exc.TorchDynamoException(str(error)) from error
        return _compiled[key]


def _shape(pages: Pages) -> tuple[int, int]:
    """(frames computed, frames seen), as in `common_shapes`."""
    visible = pages.visible
    seen = 0 if visible is None else visible.stop if isinstance(visible, slice) else len(visible)
    return len(pages.written), seen


def _kind_of_call(call: LayerCall) -> tuple:
    """All that a graph is made for: shapes, and every plain value but the attention."""
    return *_kind(call.x, call.time_modulation, *call.text), *_kind_of_pages(call.pages), call.attention_scale


def _kind(*tensors: Tensor) -> tuple:
    return tuple((x.shape, x.dtype, x.device) for x in tensors)


def _kind_of_pages(pages: Pages | None) -> tuple:
    if pages is None:
        return ()
    tensors = [x for x in pages if isinstance(x, Tensor)]
    plain = [x for x in pages if not isinstance(x, Tensor | slice | Pages)]
    return (*_kind(*tensors), *plain, *_shape(pages), *_kind_of_pages(getattr(pages, "pooled", None)))


def _copy_of(function: Callable, name: str) -> Callable:
    """The same function with code of its own, by which compilers keep, count and limit their graphs."""
    code = function.__code__.replace(co_name=name)
    copy = FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _graph_count() -> int:
    """Graphs that this process has compiled so far."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def _compiler_errors() -> tuple[type[Exception], ...]:
    errors = torch._dynamo.exc
    return errors.TorchDynamoException, getattr(errors, "FailOnRecompileLimitHit", errors.TorchDynamoException)


def first_words(error: BaseException) -> str:
    """As much of what went wrong as fits into a sentence: compilers say who failed in one line, how in the next."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return " ".join(line.strip() for line in lines[:2])[:200]
