"""Nodes that had another id once: ComfyUI puts the new one into graphs that still name the old one."""

from .host.api import ComfyAPI, io

RENAMED: tuple[io.NodeReplace, ...] = ()
"""Empty, since ids are for ever. Should one have to go, here is where it is told what took its place."""


async def register() -> None:
    """Tell the host, once, when the pack is loaded."""
    for replacement in RENAMED:
        await ComfyAPI().node_replacement.register(replacement)
