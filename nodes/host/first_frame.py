"""Pictures that videos begin with, as the host has them.

C channels, T latent frames, H W latent grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import comfy.model_management
from torch import Tensor

from ...histream_core.plan.chunks import PIXELS_PER_CELL, grid_for
from ...histream_core.runs.first_frame import encode_picture, fit_picture
from ...histream_core.runs.render import generated_size

SMALLEST_STEP = 16
"""Pixels: a side of any video is a multiple."""


@dataclass(frozen=True)
class FirstFrame:
    """A picture as the latent of the first chunk."""

    latent: Tensor
    """[1, C, T, H, W], as latents are between nodes, on the CPU."""

    @property
    def frames(self) -> int:
        """Latent frames that it stands for."""
        return self.latent.shape[2]


def encode(vae, image: Tensor, hold: int) -> FirstFrame:
    """The first frame in an IMAGE [1, H, W, 3], held for `hold` latent frames. Raises ValueError for what is none."""
    if len(image) != 1:
        raise ValueError(f"the IMAGE holds {len(image)} pictures, a video begins with one: take it by ImageFromBatch")
    height, width = image.shape[1:3]
    size = generated_size(width, height)
    grid_for(*size, multiple=SMALLEST_STEP)
    picture = fit_picture(image[0, :, :, :3].float(), size)
    needed = vae.memory_used_encode((1, 3, 1, size[1], size[0]), vae.vae_dtype)
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=needed)
    return FirstFrame(encode_picture(vae.first_stage_model, picture.to(vae.device), hold=hold, normalised=False))


def check_fits(first: FirstFrame, shape: tuple[int, ...]) -> None:
    """Refuse a first frame of another size than a LATENT of `shape` [B, C, T, H, W]. Raises ValueError."""
    if first.latent.shape[-2:] != tuple(shape[-2:]):
        own, wanted = (
            f"{width * PIXELS_PER_CELL}x{height * PIXELS_PER_CELL}"
            for height, width in (first.latent.shape[-2:], shape[-2:])
        )
        raise ValueError(
            f"the first frame is {own} and the LATENT {wanted}: scale the picture to {wanted}, or make the LATENT {own}"
        )
