"""HiStream for ComfyUI: this file hands over the nodes. Nothing is imported, and nothing done, until the host asks."""

WEB_DIRECTORY = "./web"
OLDEST_COMFYUI = (0, 33)


async def comfy_entrypoint():
    """The pack's entry point: ComfyUI calls it to get the nodes. Raises RuntimeError for a ComfyUI that is too old."""
    from comfyui_version import __version__

    if tuple(int(part) for part in __version__.split(".")[:2]) < OLDEST_COMFYUI:
        raise RuntimeError(f"HiStream needs ComfyUI 0.33 or later and this is {__version__}: update ComfyUI")
    from .nodes import HiStreamExtension

    return HiStreamExtension()
