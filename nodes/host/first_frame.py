"""The picture that a video begins with: an IMAGE of the host as the latent of the first chunk.

C channels, T latent frames, H W latent grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import comfy.model_management
from torch import Tensor

from ...histream_core.plan.sizes import PIXELS_PER_CELL, generated_size, grid_for
from ...histream_core.vae.encode import encode_picture
from ...histream_core.video.pictures import describe_fit, fit_picture
from . import log as host_log

SMALLEST_STEP = 16
"""Pixels: a side of any video is a multiple."""


@dataclass(frozen=True)
class FirstFrame:
    """The clean latent of the first chunk, encoded from a picture."""

    latent: Tensor
    """[1, C, T, H, W], as latents are between nodes, on the CPU."""

    @property
    def frames(self) -> int:
        """Number of latent frames that the picture is held for."""
        return self.latent.shape[2]


def encode(vae, image: Tensor, hold: int, fit: str, latent: Mapping | None = None) -> FirstFrame:
    """The first frame in an IMAGE [1, H, W, 3], held for `hold` latent frames.

    It is fitted in the way `fit` to the size of `latent`; without one it keeps its own size. Raises ValueError for more
    than one picture and for sizes that no video has.
    """
    if len(image) != 1:
        raise ValueError(f"the IMAGE holds {len(image)} pictures, a video begins with one: take it by ImageFromBatch")
    picture = image[0, :, :, :3].float()
    size = own_size(picture) if latent is None else size_of(latent)
    fitted = fit_picture(picture, size, fit)
    for note in describe_fit(picture, size, fit):
        host_log.tell(note)
    needed = vae.memory_used_encode((1, 3, 1, size[1], size[0]), vae.vae_dtype)
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=needed)
    return FirstFrame(encode_picture(vae.first_stage_model, fitted.to(vae.device), hold=hold, normalised=False))


def own_size(picture: Tensor) -> tuple[int, int]:
    """The size of the video that a picture [H, W, 3] fits as it is. Raises ValueError where there is none."""
    height, width = picture.shape[:2]
    size = generated_size(width, height)
    try:
        grid_for(*size, multiple=SMALLEST_STEP)
    except ValueError as error:
        raise ValueError(f"{error}; or connect the LATENT, and the picture is fitted to it") from error
    return size


def size_of(latent: Mapping) -> tuple[int, int]:
    """Width and height of the video that a LATENT makes. Raises ValueError for one that makes none."""
    samples = latent["samples"]
    if samples.is_nested or samples.ndim != 5:
        raise ValueError("the LATENT is not that of a Wan 2.1 video: connect the one that goes to the sampler")
    pixels = latent.get("downscale_ratio_spacial") or PIXELS_PER_CELL
    height, width = (cells * pixels for cells in samples.shape[-2:])
    grid_for(width, height, multiple=SMALLEST_STEP)
    return width, height


def check_fits(first: FirstFrame, shape: tuple[int, ...]) -> None:
    """Refuse a first frame of another size than a LATENT of `shape` [B, C, T, H, W]. Raises ValueError."""
    if first.latent.shape[-2:] != tuple(shape[-2:]):
        own, wanted = (
            f"{width * PIXELS_PER_CELL}x{height * PIXELS_PER_CELL}"
            for height, width in (first.latent.shape[-2:], shape[-2:])
        )
        raise ValueError(
            f"the first frame is {own} and the LATENT {wanted}: connect this LATENT to First Frame (I2V) too, which "
            f"fits the picture to {wanted}, or make the LATENT {own}"
        )
