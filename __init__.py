"""HiStream for ComfyUI: this file hands over the nodes. Nothing is imported, and nothing done, until the host asks."""

WEB_DIRECTORY = "./web"
OLDEST_COMFYUI = (0, 33)


async def comfy_entrypoint():
    """What ComfyUI calls to get the nodes of this pack; raises RuntimeError, which it logs, where it is too old."""
    from comfyui_version import __version__

    if tuple(int(part) for part in __version__.split(".")[:2]) < OLDEST_COMFYUI:
        raise RuntimeError(f"HiStream needs ComfyUI 0.33 or later and this is {__version__}: update ComfyUI")
    from .nodes import HiStreamExtension

    return HiStreamExtension()
