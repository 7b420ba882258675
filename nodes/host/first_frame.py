"""The pictures that a video begins with: an IMAGE of the host as the latents of the first chunks.

C channels, T latent frames, H W latent grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
from torch import Tensor

from ...histream_core.plan.chunks import Plan
from ...histream_core.plan.sizes import PIXELS_PER_CELL, generated_size, grid_for, pixel_frames
from ...histream_core.plan.window import Window
from ...histream_core.vae.encode import check_encoder, encode_frames, encode_picture
from ...histream_core.video.pictures import describe_fit, fit_picture
from . import log as host_log
from .sizes import latent_size


@dataclass(frozen=True)
class FirstFrame:
    """The clean latents of the first chunks, encoded from one picture or from several."""

    latent: Tensor
    """[1, C, T, H, W], as latents are between nodes, on the CPU."""
    picture: bool = True
    """Whether they are one picture, that may be held for a whole chunk."""

    @property
    def frames(self) -> int:
        """Number of latent frames that are given."""
        return self.latent.shape[2]


@dataclass(frozen=True)
class FirstPicture:
    """A picture that is encoded once it is known that it can be held for so long."""

    vae: Any
    picture: Tensor
    """[H, W, 3]"""
    size: tuple[int, int]
    """Width and height of the video."""
    fit: str
    hold: int
    encoded: dict[tuple[int, int], FirstFrame] = field(default_factory=dict)
    """The picture as it was encoded, by the size that is generated."""

    def within(self, window: Window, size: tuple[int, int]) -> FirstFrame:
        """The first frame of a video generated at `size`.

        Raises ValueError for one that is not held for one latent frame or a chunk.
        """
        if self.hold not in (1, window.chunk_frames):
            raise ValueError(
                f"the first frame is held for {self.hold} latent frames and a chunk has {window.chunk_frames}: "
                f"set hold to 1 or {window.chunk_frames}"
            )
        return self.at(size)

    def at(self, size: tuple[int, int]) -> FirstFrame:
        """The first frame of a video generated at `size`, encoded once."""
        if size not in self.encoded:
            load(self.vae, size)
            picture = fit_picture(self.picture, size, self.fit, self.size).to(self.vae.device)
            latent = encode_picture(self.vae.first_stage_model, picture, hold=self.hold, normalised=False)
            self.encoded[size] = FirstFrame(latent)
        return self.encoded[size]


@dataclass(frozen=True)
class FirstFrames:
    """Pictures of a video to go on from; a window takes the last ones, and only those are encoded."""

    vae: Any
    pictures: Tensor
    """[F, H, W, 3]"""
    size: tuple[int, int]
    fit: str
    encoded: dict[tuple[int, tuple[int, int]], FirstFrame] = field(default_factory=dict)
    """The frames that windows have taken, by the number of latent frames and the size that is generated."""

    def within(self, window: Window, size: tuple[int, int]) -> FirstFrame:
        """The last pictures, as many as a window holds, of a video generated at `size`."""
        latents = window.latents_of(len(self.pictures))
        count = pixel_frames(latents)
        host_log.tell(f"the video begins with the last {count} of {len(self.pictures)} pictures")
        key = latents, size
        if key not in self.encoded:
            load(self.vae, size)
            last = (picture[..., :3].float() for picture in self.pictures[-count:])
            fitted = (fit_picture(picture, size, self.fit, self.size) for picture in last)
            latent = encode_frames(self.vae.first_stage_model, fitted, normalised=False)
            self.encoded[key] = FirstFrame(latent, picture=latents == 1)
        return self.encoded[key]


def encode(vae, image: Tensor, hold: int, fit: str, latent: Mapping | None = None) -> FirstPicture | FirstFrames:
    """The first frame in an IMAGE [1, H, W, 3], held for `hold` latent frames; or several. A window encodes them.

    They are fitted in the way `fit` to the size of `latent`; without one they keep their own size. Raises ValueError
    for no picture, for several that are to be held, and for sizes that no video has.
    """
    if not len(image):
        raise ValueError("the IMAGE holds no picture: connect one, or the frames of a video to go on from")
    if len(image) > 1 and hold > 1:
        raise ValueError(f"the IMAGE holds {len(image)} pictures, and only one can be held: set hold to 1")
    picture = image[0, :, :, :3].float()
    size = own_size(picture) if latent is None else size_of(latent)
    fit_picture(picture, size, fit)  # refuses what cannot be fitted; the sampler knows what is generated
    for note in describe_fit(picture, size, fit):
        host_log.tell(note)
    check_encoder(vae.first_stage_model)
    return FirstFrames(vae, image, size, fit) if len(image) > 1 else FirstPicture(vae, picture, size, fit, hold)


def load(vae, size: tuple[int, int]) -> None:
    """Load the VAE, with room to encode pictures of `size`."""
    needed = vae.memory_used_encode((1, 3, 1, size[1], size[0]), vae.vae_dtype)
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=needed)


def own_size(picture: Tensor) -> tuple[int, int]:
    """The size of the video that a picture [H, W, 3] fits as it is. Raises ValueError where there is none."""
    height, width = picture.shape[:2]
    size = generated_size(width, height)
    try:
        grid_for(*size, multiple=PIXELS_PER_CELL)
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
    grid_for(width, height, multiple=PIXELS_PER_CELL)
    return width, height


def check_fits(first: FirstFrame, plan: Plan, size: tuple[int, int]) -> None:
    """Refuse a first frame of another size than the plan of a LATENT of `size` generates. Raises ValueError."""
    if latent_size(first.latent.shape) != plan.size:
        own, wanted = (f"{width}x{height}" for width, height in (latent_size(first.latent.shape), size))
        raise ValueError(
            f"the first frame is {own} and the LATENT {wanted}: connect this LATENT to First Frame (I2V) too, which "
            f"fits the picture to {wanted}, or make the LATENT {own}"
        )
