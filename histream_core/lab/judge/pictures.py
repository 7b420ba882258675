"""The pictures that scenes are painted with, read from the folder of an unpacked @lobehub/fluent-emoji-3d."""

from __future__ import annotations

from pathlib import Path

import torch

from ...demo.scene_painter import Pictures
from ...demo.scenes import THINGS
from ...video.pictures import read_cutout


def read_pictures(folder: Path) -> Pictures:
    """Read the picture of every thing; colours are multiplied by opacity. Raises ValueError or OSError."""
    found = {}
    for thing, (name, _) in THINGS.items():
        path = folder / f"{name}.webp"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is not there, which shows a {thing}: npm pack @lobehub/fluent-emoji-3d, unpack it and give "
                "the folder with its pictures"
            )
        picture = read_cutout(path)
        opacity = picture[..., 3:]
        found[thing] = torch.cat([picture[..., :3] * opacity, opacity], dim=-1).permute(2, 0, 1).contiguous()
    return found
