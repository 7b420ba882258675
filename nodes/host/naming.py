"""Names the nodes that put something on a MODEL, from the code of what they put there."""

import sys
from collections.abc import Iterable, Iterator
from functools import partial
from inspect import isclass
from types import CodeType
from typing import Any

import torch

SOMEONE = "another node"
ALIKE = 3
"""Nodes that share code, at most: more of them are not named."""


def node_of(value: Any) -> str:
    """The name of the node that made `value` and put it on a MODEL; `SOMEONE` where its code does not tell."""
    function = plain_function(value)
    source = function or type(value)
    module = sys.modules.get(source.__module__)
    top = source.__qualname__.split(".")[0]
    classes = [known for known in vars(module).values() if _is_node(known, source.__module__)] if module else []
    makers = [node for node in classes if top in (base.__name__ for base in node.__mro__)]
    makers = makers or [node for node in classes if _uses(node, top)]
    if 1 <= len(makers) <= ALIKE:
        return " or ".join(_title(node) for node in makers)
    pack = _pack_of(source.__module__)
    return f"a node of {pack}" if pack else SOMEONE


def names_of(values: Iterable[object]) -> str:
    """The nodes that made `values`, as the subject of a sentence about a MODEL."""
    names = dict.fromkeys(node_of(value) for value in values)
    known = [name for name in names if name != SOMEONE]
    return " or ".join(known) or SOMEONE


def plain_function(value: Any) -> Any:
    """The Python function behind a method, a partial or a callable object; None for all else and torch modules."""
    while isinstance(value, partial):
        value = value.func
    value = getattr(value, "__func__", value)
    if not hasattr(value, "__code__") and not isinstance(value, torch.nn.Module):
        value = next((vars(kind)["__call__"] for kind in type(value).__mro__ if "__call__" in vars(kind)), None)
    return value if hasattr(value, "__code__") else None


def codes_of(function) -> Iterator[CodeType]:
    """The code of a function and of the functions written within it."""
    waiting = [function.__code__]
    while waiting:
        code = waiting.pop()
        yield code
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def keys_in(code: CodeType) -> Iterator[str]:
    """Yield the texts that stand in a code, among them the keys that it asks dictionaries for."""
    yield from (constant for constant in code.co_consts if isinstance(constant, str))


def _is_node(known: object, module: str) -> bool:
    """Whether a name of a module is the class of a node that is written there."""
    if not isclass(known) or known.__module__ != module:
        return False
    return hasattr(known, "INPUT_TYPES") or hasattr(known, "define_schema")


def _uses(node: type, name: str) -> bool:
    """Whether a method of a node's class speaks of `name`."""
    methods = (plain_function(value) for value in vars(node).values() if hasattr(value, "__func__") or callable(value))
    return any(name in code.co_names for method in methods if method for code in codes_of(method))


def _title(node: type) -> str:
    """The name that the menu shows, or else that of the class."""
    host = sys.modules.get("nodes")  # not there where the host runs without its nodes
    classes, titles = getattr(host, "NODE_CLASS_MAPPINGS", {}), getattr(host, "NODE_DISPLAY_NAME_MAPPINGS", {})
    ids = (known for known, loaded in classes.items() if loaded is node)
    return next((titles.get(known) or known for known in ids), node.__name__)


def _pack_of(module: str) -> str:
    """The folder of the pack that a module belongs to; "" for the host's own."""
    name = module.replace("\\", "/").replace("custom_nodes.", "custom_nodes/")
    return name.split("custom_nodes/")[1].split(".")[0].split("/")[0] if "custom_nodes/" in name else ""
