"""Lines for whoever runs it: in the host's log, and under the node that is running."""

import logging
from collections.abc import Iterable

import server
from comfy_execution.utils import get_executing_context

from ...histream_core.files.reading import printable
from .graph import shown_id


def say(message: str) -> None:
    """A line in the host's log."""
    logging.getLogger("histream").info(printable(message))


def warn(message: str) -> None:
    """Say what works but is not what it seems: in the host's log, and under the node that is running."""
    logging.getLogger("histream").warning(printable(message))
    tell(message)


def keep(messages: Iterable[str]) -> None:
    """Warn of each, and show them above every later line under this node, as long as it runs."""
    global _kept
    context, lines = get_executing_context(), tuple(messages)
    for line in lines:
        logging.getLogger("histream").warning(printable(line))
    _kept = context, lines
    if lines:
        tell("")


def tell(message: str) -> None:
    """Show a line under the node that is running, to whoever runs it."""
    context = get_executing_context()
    instance = getattr(server.PromptServer, "instance", None)
    if context and instance:
        lines = _kept[1] if _kept[0] == context else ()
        shown = "\n".join(line for line in (*lines, message) if line)
        instance.send_progress_text(printable(shown), shown_id(context.node_id), instance.client_id)


_kept: tuple[object, tuple[str, ...]] = (None, ())
"""The node that ran last with lines to keep, and these lines; the host runs one node after the other."""
