"""Small pictures of finished chunks, for previews that cost a run next to nothing.

B batch, C channels, T latent frames, H W latent grid, F pixel frames.
"""

from collections.abc import Callable

import folder_paths
import latent_preview
from PIL.Image import Image
from torch import Tensor

from ...histream_core import demo
from ...histream_core.plan.sizes import PIXEL_FRAMES_PER_LATENT, PIXELS_PER_CELL
from ...histream_core.stream.resize import resize
from ...histream_core.vae import Decoder, open_decoder, to_frames
from ...histream_core.weights.loading import load_vae
from ..settings import PRESET_KEY
from . import log as host_log
from . import vae as host_vae

PREVIEW_PIXELS = 512
"""Longest side of a preview."""
PREVIEW_CELLS = PREVIEW_PIXELS // PIXELS_PER_CELL
SMALL_DECODERS = ("taew2_1", "lighttaew2_1")
"""Prefixes of the names of TAEHV files for Wan 2.1."""

Previewer = Callable[[Tensor], list[Image]]
"""Makes pictures of the first video of a finished chunk [B, C, T, H, W], as sampled: one for each latent frame."""


def as_preview(picture: Image, video_size: int | None = None) -> tuple[str, Image, int]:
    """A picture as the host's progress bar takes it, which scales its longer side to the number.

    That is the longer side of the video, where `video_size` says it, else that of the picture, at most PREVIEW_PIXELS.
    """
    return "JPEG", picture, min(PREVIEW_PIXELS, video_size or max(picture.size))


def stills(decoder: Decoder, latents: Tensor) -> list[Image]:
    """Decode each of the latent frames [1, C, T, H, W] alone, as a small picture.

    Latents are scaled down before they are decoded, and no history is kept, so that a preview takes little memory.
    """
    shrink = min(1, PREVIEW_CELLS / max(latents.shape[-2:]))
    height, width = (max(1, round(cells * shrink)) for cells in latents.shape[-2:])
    latents = resize(latents, (height, width))
    pictures = []
    for latent in latents.split(1, dim=2):
        pictures.append(latent_preview.preview_to_image(to_frames(decoder.decode(latent))[0, 0], do_scale=False))
        decoder.reset()
    return pictures


def thumbnails(frames: Tensor) -> list[Image]:
    """Small pictures of every fourth of the frames [F, H, W, 3] in [0, 1], up to the last one."""
    pictures = []
    for frame in frames[(len(frames) - 1) % PIXEL_FRAMES_PER_LATENT :: PIXEL_FRAMES_PER_LATENT]:
        picture = latent_preview.preview_to_image(frame, do_scale=False)
        picture.thumbnail((PREVIEW_PIXELS, PREVIEW_PIXELS))
        pictures.append(picture)
    return pictures


def demo_decoder(model) -> Decoder | None:
    """The decoder of the bundled demo VAE, for the demo model; None for another one."""
    settings = model.get_attachment(PRESET_KEY)
    if settings is None or settings.preset != demo.PRESET:
        return None
    return open_decoder(load_vae(demo.VAE_PATH, device=model.load_device))


def small_decoder(device) -> Decoder | None:
    """The decoder of a TAEHV in the host's folder vae_approx; None where there is none.

    Raises ValueError for a file that is no TAEHV.
    """
    names = [name for name in folder_paths.get_filename_list("vae_approx") if name.startswith(SMALL_DECODERS)]
    if not names:
        return None
    path = folder_paths.get_full_path_or_raise("vae_approx", names[0])
    return open_decoder(load_vae(path, device=device))


def host_previewer(model) -> Previewer | None:
    """The previewer of the host's settings, else a linear map to RGB; None for latents without one."""
    latent_format = model.model.latent_format
    previewer = latent_preview.get_previewer(model.load_device, latent_format)
    if type(previewer).__module__ != latent_preview.__name__:  # another pack's may return something else
        previewer = None
    if previewer is None and latent_format.latent_rgb_factors is not None:
        previewer = latent_preview.Latent2RGBPreviewer(
            latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias
        )
    if previewer is None:
        return None
    return lambda clean: [previewer.decode_latent_to_preview(frame) for frame in clean[:1].split(1, dim=2)]


def chunk_previewer(model, vae=None) -> Previewer | None:
    """The previewer of a run: decodes with `vae`, or a TAEHV in the host's folder vae_approx, else approximates.

    The demo model's latents are those of its own VAE, which any other way would show in false colours.
    """
    if vae is not None:
        decoder = host_vae.open_host_decoder(vae, normalised=False)
        return lambda clean: stills(decoder, model.model.process_latent_out(clean[:1].float()).to(vae.device))
    try:
        small = demo_decoder(model) or small_decoder(model.load_device)
    except ValueError as error:
        host_log.warn(f"previews are a guess: {error}")
        small = None
    if small is None:
        return host_previewer(model)
    return lambda clean: stills(small, clean[:1].float().to(model.load_device))
