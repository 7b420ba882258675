"""Renamed nodes: ComfyUI replaces the old ids in graphs by the new ones."""

from .host.api import ComfyAPI, io

RENAMED: tuple[io.NodeReplace, ...] = ()
"""Replacements of old ids. Empty, because ids never change; if one has to, list its replacement here."""


async def register() -> None:
    """Tell the host, once, when the pack is loaded."""
    for replacement in RENAMED:
        await ComfyAPI().node_replacement.register(replacement)
