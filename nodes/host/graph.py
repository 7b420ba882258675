"""Reads a node's graph: the words of its prompt, and the graph as text to store in files."""

import json
from collections.abc import Mapping

from comfy.cli_args import args
from comfy_execution.progress import get_progress_state

TEXT_WIDGETS = ("text", "prompt", "string", "value")


def shown_id(node: str) -> str:
    """The id by which the artist's graph has a node: in a loop (Start Loop, End Loop) the host runs copies of it."""
    return get_progress_state().dynprompt.get_display_node_id(node)


def words_of(hidden, name: str) -> str:
    """The text that was written for the CONDITIONING at input `name` of the running node; "" where none is found."""
    graph = getattr(hidden, "prompt", None) or {}
    waiting, seen = [graph.get(shown_id(hidden.unique_id), {}).get("inputs", {}).get(name)] if graph else [], set()
    while waiting:
        link = waiting.pop(0)
        if not is_link(link) or link[0] in seen:
            continue
        seen.add(link[0])
        inputs = graph.get(link[0], {}).get("inputs", {})
        found = [inputs[widget] for widget in TEXT_WIDGETS if isinstance(inputs.get(widget), str)]
        if found:
            return found[0]
        waiting += inputs.values()
    return ""


def is_link(value: object) -> bool:
    """Whether an input's value in the graph is another node's output."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def tags_of(hidden) -> Mapping[str, str]:
    """The graph as text, to be stored in a video as the host's own nodes do, unless the user turned that off."""
    if hidden is None or args.disable_metadata:
        return {}
    known = dict(hidden.extra_pnginfo or {})
    if hidden.prompt is not None:
        known["prompt"] = hidden.prompt
    return {name: json.dumps(value) for name, value in known.items()}
