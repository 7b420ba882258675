"""Hashes of a MODEL and a VAE of the host, to be compared when a run continues later."""

from collections.abc import Iterator, Mapping
from functools import partial
from types import CellType
from typing import Any

import comfy.quant_ops
import torch
from comfy.model_patcher import ModelPatcher, get_key_weight
from torch import Tensor

from ...histream_core.files.values import digest
from ...histream_core.runs import fingerprint_weights, hash_tensor
from .additions import between_calls
from .second import second_of

BESIDE = ("adapters", "hooks")
"""Attributes of what computes LoRAs beside the weights (the host's bypass): LoRAs by layer, and hooks of the layers."""
ROUNDED = (torch.float32, torch.float16, torch.bfloat16)
"""Dtypes of layers to which their hooks round a LoRA."""
PLAIN = (int, float, str, type(None))
DEPTH = 6
"""How far the values of a function are followed: the objects that it holds, and theirs."""


def fingerprints(model, vae) -> dict[str, str]:
    """Hashes of the weights of MODEL and VAE, and of everything that other nodes put on the MODEL."""
    return {
        "model": fingerprint_model(model),
        "vae": fingerprint_weights(_plain_weights(vae.patcher)),
        "vae precision": str(vae.vae_dtype),
    }


def fingerprint_model(model) -> str:
    """A hash of a MODEL's own weights, of its LoRAs with their strengths, and of all else that changes its answers.

    What does nothing (another time shift), what only computes otherwise (attention, compilers) and what is around the
    sampling (previews) is not in it.
    """
    own = fingerprint_weights(_plain_weights(model))
    if second := second_of(model):
        own = digest([own, fingerprint_model(second)])
    patches = {key: _content(value) for key, value in model.patches.items()}
    replaced = {key: _settings(value) for key, value in model.object_patches.items() if key != "model_sampling"}
    more = [
        [_settings(known) for known in between_calls(model)],
        _settings(model.weight_wrapper_patches),
        {key: [_settings(known.inject) for known in injected] for key, injected in model.injections.items()},
    ]
    if not (patches or replaced or any(more)):
        return own
    return digest([own, patches, replaced, *(more if any(more) else [])])


def _plain_weights(patcher) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights as they were loaded, also while a LoRA is merged into them.

    Layers of other loaders (GGUF) can list tensors in their place that hold nothing, and some that are no weights.
    """
    for key, listed in patcher.model_state_dict().items():
        weight = _weight_of(patcher, key, listed)
        if isinstance(weight, comfy.quant_ops.QuantizedTensor):
            weight = weight.dequantize()
        weight = weight.detach().as_subclass(Tensor)
        if not weight.is_meta:
            yield key, weight


def _weight_of(patcher, key: str, listed: Tensor) -> Tensor:
    """The weight at a key of the state dict: before a LoRA or a hook was merged into it, else as the module has it."""
    if key in patcher.hook_backup:
        return patcher.hook_backup[key][0]
    if key in patcher.backup:
        return patcher.backup[key].weight
    try:
        return get_key_weight(patcher.model, key)[0]
    except AttributeError:  # a layer that lists more than it has
        return listed


def _content(value: object) -> object:
    """A patch as plain values: tensors as hashes, adapters as their class and tensors."""
    if isinstance(value, Tensor):
        return hash_tensor(value)
    if isinstance(value, (tuple, list)):
        return [_content(item) for item in value]
    if isinstance(value, PLAIN):
        return value
    return [type(value).__qualname__, _content(getattr(value, "weights", None))]


def _settings(value: object, depth: int = DEPTH) -> object:
    """Something on a MODEL as plain values: functions by their names and what they hold, objects by their settings."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    if isinstance(value, Tensor):
        return hash_tensor(value)
    if depth == 0 or isinstance(value, (torch.nn.Module, ModelPatcher, type)):
        return type(value).__qualname__
    if isinstance(value, Mapping):
        return {str(key): _settings(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_settings(item, depth - 1) for item in value]
    if hasattr(value, "adapter") and hasattr(value, "module"):
        return [_name(value), _settings(getattr(value, "multiplier", None)), _beside(value)]
    if hasattr(value, "weights"):
        return _name(value)  # an adapter, of which the layer's hook tells the rest
    return [_name(value), {name: _settings(item, depth - 1) for name, item in _held(value)}]


def _beside(hook: Any) -> object:
    """The LoRA of a layer's hook, rounded as the hook does it when it is put in: the same before and after."""
    adapter, weight = hook.adapter, getattr(hook.module, "weight", None)
    if isinstance(adapter, torch.nn.Module):
        return _content(list(adapter.state_dict().values()))
    weights = getattr(adapter, "weights", ())
    held = weights if isinstance(weights, tuple | list) else [weights]
    dtype = weight.dtype if weight is not None and weight.dtype in ROUNDED else None
    return [
        type(adapter).__qualname__,
        _content([x.to(dtype or x.dtype) if isinstance(x, Tensor) else x for x in held]),
    ]


def _name(value: object) -> str:
    return getattr(value, "__qualname__", type(value).__qualname__)


def _held(value: Any) -> Iterator[tuple[str, object]]:
    """Yield what a function holds of its surroundings, or what an object was made with, and not what it remembers."""
    if isinstance(value, partial):
        yield from (("function", value.func), ("arguments", value.args), ("named", value.keywords))
        return
    bound = getattr(value, "__self__", None)
    if bound is not None:
        yield "self", bound
    function = getattr(value, "__func__", value)
    if code := getattr(function, "__code__", None):
        yield from zip(code.co_freevars, map(_in_cell, getattr(function, "__closure__", None) or ()), strict=True)
        return
    held, maker = getattr(value, "__dict__", {}), getattr(type(value).__init__, "__code__", None)
    made_with = maker.co_varnames[: maker.co_argcount + maker.co_kwonlyargcount] if maker else ()
    yield from ((name, held[name]) for name in sorted({*made_with, *BESIDE} & held.keys()))


def _in_cell(cell: CellType) -> object:
    """The value of a function's surroundings; None for one that is not there any more."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
