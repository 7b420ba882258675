"""Dense optical flow between two pictures: Lucas-Kanade over a pyramid, in colour, and pictures carried along by it.

Classical and small: learned flows (RAFT, which StreamDiffusionV2 uses) need weights that would have to be downloaded.
Pictures are [H, W, C] float in [0, 1]; flows are [2, H, W] in pixels, x to the right and y down.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_SIDE = 8  # of the smallest picture of a pyramid
ROUNDS = 5  # at each level of it
WINDOW = 9  # pixels over which motion is taken to be the same
BACKDROP = 17  # pixels over which brightness is taken away, so that a flicker is not read as motion
DAMPING = 1e-4  # added to squared gradients, against steps that are too long
FLAT = 1e-4  # squared gradient below which a surface is taken to stand still, as any motion would fit
OCCLUSION = 0.01, 0.5
"""How far there and back may be off, squared: a share of both squared lengths, and pixels besides."""


def find_flow(now: Tensor, other: Tensor) -> Tensor:
    """Where each pixel of `now` lies in `other`: other(p + flow(p)) = now(p). Raises ValueError for sizes."""
    if now.shape != other.shape or now.ndim != 3 or min(now.shape[:2]) < LEAST_SIDE:
        raise ValueError(
            f"pictures {list(now.shape)} and {list(other.shape)} have no flow: give two of one size, "
            f"at least {LEAST_SIDE} pixels wide and high"
        )
    pyramid = [tuple(picture.permute(2, 0, 1)[None] for picture in (now, other))]
    while min(pyramid[-1][0].shape[-2:]) >= 2 * LEAST_SIDE:
        pyramid.append(tuple(F.avg_pool2d(picture, 2) for picture in pyramid[-1]))
    flow = now.new_zeros(1, 2, *pyramid[-1][0].shape[-2:])
    for level in reversed(pyramid):
        flow = _refine(*(picture - _mean(picture, BACKDROP) for picture in level), _enlarge(flow, level[0].shape[-2:]))
    return flow[0]


def carry(picture: Tensor, flow: Tensor) -> Tensor:
    """`picture` [H, W, C] seen from where `flow` points: the pixel at p shows picture(p + flow(p))."""
    return _sample(picture.permute(2, 0, 1)[None], flow[None])[0].permute(1, 2, 0)


def visible(flow: Tensor, back: Tensor) -> Tensor:
    """Which pixels [H, W] `flow` finds again: it ends inside the picture, and `back` leads from there to the start."""
    height, width = flow.shape[-2:]
    x, y = _places(flow[None])[0]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    returned = _sample(back[None], flow[None])[0]
    share, pixels = OCCLUSION
    return inside & (_square(flow + returned) < share * (_square(flow) + _square(returned)) + pixels)


def _refine(now: Tensor, other: Tensor, flow: Tensor) -> Tensor:
    """A flow [1, 2, H, W] made better at one level of the pyramid."""
    padded = F.pad(now, (1, 1, 1, 1), mode="replicate")
    dx, dy = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    xx, yy, xy = _agreed(dx * dx) + DAMPING, _agreed(dy * dy) + DAMPING, _agreed(dx * dy)
    for _ in range(ROUNDS):
        left = now - _sample(other, flow)
        x, y = _agreed(dx * left), _agreed(dy * left)
        step = torch.cat([yy * x - xy * y, xx * y - xy * x], dim=1) / (xx * yy - xy * xy)
        flow = _mean(flow + step.clamp(-1, 1), 3)
    return flow * ((xx + yy - 2 * DAMPING) / FLAT).clamp(max=1)


def _enlarge(flow: Tensor, size: tuple[int, int]) -> Tensor:
    rows, columns = (new / old for new, old in zip(size, flow.shape[-2:], strict=True))
    scale = flow.new_tensor([columns, rows])[:, None, None]
    return F.interpolate(flow, size, mode="bilinear", align_corners=False) * scale


def _mean(picture: Tensor, window: int = WINDOW) -> Tensor:
    """Each pixel's mean over the square window around it, as far as that lies inside."""
    return F.avg_pool2d(picture, window, stride=1, padding=window // 2, count_include_pad=False)


def _agreed(picture: Tensor) -> Tensor:
    """The mean over the window and over all channels, which move together: [1, 1, H, W]."""
    return _mean(picture).mean(1, keepdim=True)


def _places(flow: Tensor) -> Tensor:
    """Where a flow [1, 2, H, W] points, [1, 2, H, W]."""
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return flow + torch.stack([x, y]).to(flow)


def _sample(picture: Tensor, flow: Tensor) -> Tensor:
    """`picture` [1, C, H, W] at the places a flow points to; beyond the edge lies the edge."""
    height, width = flow.shape[-2:]
    size = flow.new_tensor([width - 1, height - 1])
    grid = _places(flow).permute(0, 2, 3, 1) * 2 / size - 1
    return F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _square(flow: Tensor) -> Tensor:
    return (flow * flow).sum(0)
