"""Layers compiled by `torch.compile`: one graph for all layers of each kind of pass, four graphs in a usual run.

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
"""The namespace of the operator below; it names the package because a process may import the engine twice."""

_compiled: dict[tuple, RunBlock] = {}
"""Compiled functions of this process by their kind, which later runs use again."""

_attention: list[Attention] = []
"""A stack whose top is the attention of the layer that is being computed."""


@torch.library.custom_op(f"{_NAMESPACE}::attend", mutates_args=())
def attend_outside(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute the current attention, [B, L, N, D], as one operation that compilers do not trace.

    So a graph does not depend on the attention that was chosen, and no attention has to support compilers.
    """
    return _attention[-1](q, k, v).contiguous()


@attend_outside.register_fake
def _(q: Tensor, _k: Tensor, _v: Tensor) -> Tensor:
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)


def common_shapes(plan: Plan) -> frozenset[tuple[int, int]]:
    """(frames computed, frames seen) of the passes that are compiled: those of the first chunk, and shapes that recur.

    A window that still grows has another length in every chunk. The shapes depend on the plan alone, so that a resumed
    run compiles the same ones as a run in one piece.
    """
    found: Counter[tuple[int, int]] = Counter()
    for chunk in plan.chunks:
        computed = {len(chunk.frames), len(chunk.cached) or len(chunk.frames)}
        found.update((frames, frames + len(chunk.context) if chunk.context else 0) for frames in computed)
    return frozenset(shape for shape, times in found.items() if times > 1 or not shape[1])


class CompiledBlocks:
    """A replacement for `run_block`; each run makes its own, and later runs of the process share the graphs.

    Layers of passes whose shapes are common in a plan are compiled, one graph for each shape, resolution and dtype.
    Others run uncompiled. Where compiling fails, all layers do, and `on_failure` gets a sentence that says why.
    """

    def __init__(
        self,
        plan: Plan,
        on_failure: Callable[[str], None],
        *,
        backend: str | Callable = "inductor",
        run_block: RunBlock = run_block,
        **options,
    ):
        """`run_block` is what is compiled; `options` are further arguments of `torch.compile`, such as `mode`."""
        self.backend, self.options = backend, options
        self.run_block, self.on_failure = run_block, on_failure
        self.shapes = common_shapes(plan)
        self.graphs = 0
        """The number of graphs compiled for this run; 0 where earlier runs had compiled the same ones."""
        self.failure: str | None = None
        """The reason for which nothing is compiled any more."""

    def __call__(self, block: Block, call: LayerCall) -> Tensor:
        if self.failure is None and _shape(call.pages) in self.shapes:
            before = _graph_count()
            _attention.append(call.attention)
            try:
                return self._compiled(_kind_of_call(call))(block, call._replace(attention=attend_outside))
            except _compiler_errors() as error:  # raised while compiling: nothing has been computed yet
                self.failure = first_words(error)
            finally:
                _attention.pop()
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
                raise _compiler_errors()[0](str(error)) from error
        return _compiled[key]


def _shape(pages: Pages) -> tuple[int, int]:
    """(frames computed, frames seen), as in `common_shapes`."""
    visible = pages.visible
    seen = 0 if visible is None else visible.stop if isinstance(visible, slice) else len(visible)
    return len(pages.written), seen


def _kind_of_call(call: LayerCall) -> tuple:
    """Everything that a graph is specialised for: shapes, dtypes, devices and all plain values but the attention."""
    texts = (*call.text, *call.avoided.text) if call.avoided else call.text
    numbers = call.attention_scale, *(call.avoided[1:] if call.avoided else ())
    return *_kind(call.x, call.time_modulation, *texts), *_kind_of_pages(call.pages), *numbers


def _kind(*tensors: Tensor) -> tuple:
    return tuple((x.shape, x.dtype, x.device) for x in tensors)


def _kind_of_pages(pages: Pages | None) -> tuple:
    if pages is None:
        return ()
    tensors = [x for x in pages if isinstance(x, Tensor)]
    plain = [x for x in pages if not isinstance(x, Tensor | slice | Pages)]
    return (*_kind(*tensors), *plain, *_shape(pages), *_kind_of_pages(getattr(pages, "pooled", None)))


def _copy_of(function: Callable, name: str) -> Callable:
    """A copy of a function with a code object of its own: compilers store, count and limit graphs by code object."""
    code = function.__code__.replace(co_name=name)
    copy = FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _graph_count() -> int:
    """The number of graphs that this process has compiled so far."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def _compiler_errors() -> tuple[type[Exception], ...]:
    from torch._dynamo import exc  # takes a second, and only runs that compile need it

    return exc.TorchDynamoException, getattr(exc, "FailOnRecompileLimitHit", exc.TorchDynamoException)


def first_words(error: BaseException) -> str:
    """The first two lines of an error's message as one line: compilers say what failed in one, and how in the next."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return " ".join(line.strip() for line in lines[:2])[:200]
