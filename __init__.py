"""HiStream for ComfyUI: this file hands over the nodes. Nothing is imported, and nothing done, until the host asks."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """What ComfyUI calls to get the nodes of this pack."""
    from .nodes import HiStreamExtension

    return HiStreamExtension()
