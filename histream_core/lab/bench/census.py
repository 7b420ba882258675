"""Counts of what a run asks of a device, without a device: operations, kernels, waits, bytes moved in caches.

Everything runs on the meta device at its true size, where tensors have shapes and no values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

ANSWERS = {
    torch.Tensor.__bool__: True,
    torch.Tensor.__int__: 0,
    torch.Tensor.__float__: 0.0,
    torch.Tensor.item: 0.0,
    torch.equal: True,
}
"""Calls that make the CPU wait for a value, and the value that they return here, with which checks pass."""

SUMS = ("flops", "kernels", "waits", "moved")


@dataclass(frozen=True, slots=True)
class Counts:
    """The work that was asked of the device in a part of a run."""

    flops: int = 0
    kernels: int = 0
    """Operations other than views."""
    waits: int = 0
    """How often the CPU had to wait for the device: for a value read back, or for a blocking copy."""
    moved: int = 0
    """Bytes written into the watched caches, or copied out of them other than for attention."""
    shapes: int = 0
    """A hash of all operations and their shapes, in order."""


class Census:
    """A counter of everything that is computed while it is entered; `take` returns the counts since the last `take`."""

    def __init__(self, *, memory: bool = False) -> None:
        """`memory`: keep `peak_bytes` up to date too, which is slow."""
        self._sums, self._shapes, self._watched = dict.fromkeys(SUMS, 0), 0, set()
        self.memory = memory
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak_bytes = 0
        """The largest number of bytes alive at once, of tensors made while counting."""

    def watch(self, *tensors: Tensor) -> None:
        """Count bytes moved in the storage of these tensors."""
        self._watched |= {_storage(x) for x in tensors}

    def take(self) -> Counts:
        counts = Counts(**self._sums, shapes=self._shapes)
        self._sums, self._shapes = dict.fromkeys(SUMS, 0), 0
        return counts

    @contextmanager
    def __call__(self) -> Iterator[Census]:
        with _Dispatch(self), _Function(self):
            yield self

    def wait(self) -> None:
        """Add one wait."""
        self._sums["waits"] += 1

    def note(self, function: OpOverload, args: tuple, kwargs: dict, result: object) -> None:
        """Add one dispatched operation."""
        if _is_view(function):
            return
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        outputs = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        flops = flop_registry.get(function._overloadpacket)
        self._sums["flops"] += flops(*args, **kwargs, out_val=result) if flops else 0
        self._sums["kernels"] += 1
        self._sums["waits"] += _blocks(function, args, kwargs, outputs)
        self._sums["moved"] += self._moved(function, args, inputs, outputs)
        self._shapes = hash((self._shapes, function, *(x.shape for x in inputs)))
        if self.memory:
            self._live(inputs, outputs)

    def _moved(self, function: OpOverload, args: Sequence, inputs: list[Tensor], outputs: list[Tensor]) -> int:
        if not any(_storage(x) in self._watched for x in inputs):
            return 0
        if function._schema.is_mutable:  # index_copy_(self, dim, index, source), copy_(self, source)
            return (args[3] if len(args) > 3 else args[0]).nbytes
        return 0 if "attention" in str(function) else sum(x.nbytes for x in outputs)

    def _live(self, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        known = {_storage(x) for x in inputs}
        for x in outputs:
            if x.is_meta and _storage(x) not in known:
                self._storages[_storage(x)] = StorageWeakRef(x.untyped_storage()), x.untyped_storage().nbytes()
        self._storages = {key: held for key, held in self._storages.items() if not held[0].expired()}
        self.peak_bytes = max(self.peak_bytes, sum(size for _, size in self._storages.values()))


class _Dispatch(TorchDispatchMode):
    def __init__(self, census: Census):
        super().__init__()
        self.census = census

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if _is_composite(function):
            with self:
                result = function.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = function(*args, **kwargs)
        self.census.note(function, args, kwargs, result)
        return result


class _Function(TorchFunctionMode):
    """Counts calls that never reach the dispatcher of a meta tensor; computes attention in one kernel, as GPUs do."""

    def __init__(self, census: Census):
        super().__init__()
        self.census = census

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in ANSWERS and args[0].is_meta:
            self.census.wait()
            return ANSWERS[function]
        if function is torch.tensor and _is_meta(kwargs.get("device")):
            self.census.wait()
        if function is torch.nn.functional.scaled_dot_product_attention and args[0].is_meta:
            return torch.ops.aten._scaled_dot_product_flash_attention(*args, **kwargs)[0]
        return function(*args, **kwargs)


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _is_meta(device: torch.device | str | None) -> bool:
    return device is not None and torch.device(device).type == "meta"


@cache
def _is_composite(function: OpOverload) -> bool:
    """Whether an operation is composed of others, which are counted in its place."""
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), "CompositeImplicitAutograd")
    return composite and function._overloadpacket not in flop_registry


@cache
def _is_view(function: OpOverload) -> bool:
    alias = [result.alias_info for result in function._schema.returns]
    return any(info is not None and not info.is_write for info in alias)


def _blocks(function: OpOverload, args: tuple, kwargs: dict, outputs: list[Tensor]) -> bool:
    """Whether an operation is a copy from the CPU for which the CPU waits."""
    if function._overloadpacket is torch.ops.aten._to_copy:
        source, non_blocking = args[0], kwargs.get("non_blocking", False)
    elif function._overloadpacket is torch.ops.aten.copy_:
        source, non_blocking = args[1], len(args) > 2 and args[2]
    else:
        return False
    return not source.is_meta and outputs[0].is_meta and not non_blocking
