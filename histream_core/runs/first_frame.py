"""A picture that a video begins with: read, made to fit, and encoded to the clean latent of the first chunk.

Causal text-to-video weights take it as if they had made it: it is cached, is the anchor, and all that follows sees it.
H W in pixels.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from ..vae.encode import encode_first_frame
from .render import generated_size


def read_picture(path: str | Path) -> Tensor:
    """The picture in a file, or the first one of a video, [H, W, 3] in [0, 1]. Raises ValueError or OSError."""
    import av

    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
    except (av.error.FFmpegError, IndexError, StopIteration) as error:
        if isinstance(error, OSError) and not isinstance(error, ValueError):
            raise
        raise ValueError(f"{path} is no picture: give a PNG or JPEG file") from error
    return torch.from_numpy(frame.to_ndarray(format="rgb24")).float() / 255


def fit_picture(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """The picture [H, W, 3] for a video of that width and height: 1080 rows get 4 more at the top and the bottom.

    Raises ValueError for another size.
    """
    height, width = picture.shape[:2]
    if generated_size(width, height) != tuple(size):
        raise ValueError(
            f"the first frame is {width}x{height} and the video {size[0]}x{size[1]}: scale or crop the picture to "
            f"{size[0]}x{size[1]}"
        )
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    edges = (left, size[0] - width - left, top, size[1] - height - top)
    return torch.nn.functional.pad(picture.movedim(-1, 0)[None], edges, mode="replicate")[0].movedim(0, -1)


def encode_picture(vae: nn.Module, picture: Tensor, *, hold: int = 1, normalised: bool = True) -> Tensor:
    """The latent [1, C, hold, H / 8, W / 8] of a chunk that `picture` [H, W, 3] fills; float32, on the CPU.

    The VAE computes in float32, whatever its weights are: the error of a rounded first frame would grow. Raises
    ValueError for sides that are no multiples of 8, and for a VAE that is there for decoding alone.
    """
    check_encoder(vae)
    if next(vae.parameters()).dtype != torch.float32:
        vae = copy.deepcopy(vae).float()
    picture = picture.to(next(vae.parameters()).device)
    return encode_first_frame(vae, picture, hold=hold, normalised=normalised).cpu()


def check_encoder(vae: nn.Module) -> None:
    """Refuse a VAE that is there for decoding alone. Raises ValueError."""
    if not hasattr(vae, "conv1"):
        raise ValueError(
            f"the VAE is a {type(vae).__name__}, which is here for decoding alone: a first frame needs the "
            "Wan 2.1 VAE, wan_2.1_vae.safetensors"
        )
