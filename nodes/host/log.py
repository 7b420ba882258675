"""Lines for whoever runs it: in the host's log, and under the node that is running."""

import logging

import server
from comfy_execution.utils import get_executing_context

from ...histream_core.files.reading import printable


def say(message: str) -> None:
    """A line in the host's log."""
    logging.getLogger("histream").info(printable(message))


def warn(message: str) -> None:
    """Say what works but is not what it seems: in the host's log, and under the node that is running."""
    logging.getLogger("histream").warning(printable(message))
    tell(message)


def tell(message: str) -> None:
    """Show a line under the node that is running, to whoever runs it."""
    context = get_executing_context()
    instance = getattr(server.PromptServer, "instance", None)
    if context and instance:
        instance.send_progress_text(printable(message), context.node_id, instance.client_id)
