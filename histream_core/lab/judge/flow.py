"""Dense optical flow between two pictures, by pyramidal Lucas-Kanade in colour or by OpenCV's DIS; warping by a flow.

Learned flows (RAFT, which StreamDiffusionV2 uses) need weights that would have to be downloaded.
Pictures are [H, W, C] float in [0, 1]; flows are [2, H, W] in pixels, x to the right and y down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...video.pixels import to_uint8
from . import DIS, LUCAS_KANADE

FindFlow = Callable[[Tensor, Tensor], Tensor]
"""Maps two pictures to the flow from the first to the second."""

LEAST_SIDE = 8  # pixels, of the smallest picture of a pyramid
LEAST_SIDE_DIS = 16  # pixels: OpenCV 5.0 dies on some smaller pictures
ROUNDS = 5  # iterations at each level
WINDOW = 9  # pixels; motion is taken to be constant within it
BACKGROUND_WINDOW = 17  # pixels; the mean over it is subtracted, so that flicker is not read as motion
DAMPING = 1e-4  # added to squared gradients, against too large steps
FLAT = 1e-4  # squared gradient below which flow fades to 0, as any motion would fit
OCCLUSION = 0.01, 0.5
"""Tolerance of the forward-backward check: a share of both squared lengths, plus square pixels."""
LARGE = 20_000
"""Values of a picture from which sums over shifted pictures take less time than torch's own pooling."""


def find_flow(now: Tensor, other: Tensor) -> Tensor:
    """Flow from `now` to `other`: other(p + flow(p)) = now(p). Raises ValueError for unequal or too small sizes."""
    _check_pair(now, other)
    pyramid = [tuple(picture.permute(2, 0, 1)[None] for picture in (now, other))]
    while min(pyramid[-1][0].shape[-2:]) >= 2 * LEAST_SIDE:
        pyramid.append(tuple(F.avg_pool2d(picture, 2) for picture in pyramid[-1]))
    flow = now.new_zeros(1, 2, *pyramid[-1][0].shape[-2:])
    for level in reversed(pyramid):
        sharp, other_sharp = (picture - _mean(picture, BACKGROUND_WINDOW) for picture in level)
        flow = _refine(sharp, other_sharp, _enlarge(flow, sharp.shape[-2:]))
    return flow[0]


def find_dis_flow(now: Tensor, other: Tensor) -> Tensor:
    """Flow as of `find_flow`, by OpenCV's Dense Inverse Search on grey pictures of 8 bits. Raises ValueError as it."""
    cv2: Any = import_module("cv2")
    _check_pair(now, other)
    if min(now.shape[:2]) < LEAST_SIDE_DIS:
        raise ValueError(
            f"pictures of {now.shape[1]}x{now.shape[0]} are too small for flow dis, which takes {LEAST_SIDE_DIS} or "
            "more: use --flow lucas-kanade"
        )
    grey = [cv2.cvtColor(to_uint8(picture[None])[0], cv2.COLOR_RGB2GRAY) for picture in (now, other)]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return torch.from_numpy(search.calc(*grey, None)).permute(2, 0, 1)


def choose_flow(name: str | None = None) -> tuple[str, FindFlow]:
    """A way of FLOWS by its name, with its function; None: OpenCV's where it can be imported. Raises ValueError."""
    usable = _has_opencv()
    name = name or (DIS if usable else LUCAS_KANADE)
    if name == DIS and not usable:
        raise ValueError("flow dis needs OpenCV: pip install 'histream[flow]', or choose lucas-kanade")
    return name, find_dis_flow if name == DIS else find_flow


def _has_opencv() -> bool:
    """Whether OpenCV can be imported; an installed one may lack a library of the system."""
    try:
        import_module("cv2")
    except ImportError:
        return False
    return True


def _check_pair(now: Tensor, other: Tensor) -> None:
    if now.shape != other.shape or now.ndim != 3 or min(now.shape[:2]) < LEAST_SIDE:
        raise ValueError(
            f"pictures {list(now.shape)} and {list(other.shape)} have no flow: give two of one size, "
            f"at least {LEAST_SIDE} pixels wide and high"
        )


def warp(picture: Tensor, flow: Tensor) -> Tensor:
    """Backward warp of `picture` [H, W, C]: the pixel at p shows picture(p + flow(p))."""
    return _sample(picture.permute(2, 0, 1)[None], flow[None])[0].permute(1, 2, 0)


def visible(flow: Tensor, back: Tensor) -> Tensor:
    """Mask [H, W] of pixels whose flow ends inside the picture and is undone by `back`: those that are not occluded."""
    height, width = flow.shape[-2:]
    x, y = _targets(flow[None])[0]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    returned = _sample(back[None], flow[None])[0]
    share, pixels = OCCLUSION
    return inside & (_square(flow + returned) < share * (_square(flow) + _square(returned)) + pixels)


def _refine(now: Tensor, other: Tensor, flow: Tensor) -> Tensor:
    """Refine a flow [1, 2, H, W] at one level of the pyramid."""
    padded = F.pad(now, (1, 1, 1, 1), mode="replicate")
    dx, dy = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    xx, yy, xy = _window_mean(dx * dx) + DAMPING, _window_mean(dy * dy) + DAMPING, _window_mean(dx * dy)
    for _ in range(ROUNDS):
        left = now - _sample(other, flow)
        x, y = _window_mean(dx * left), _window_mean(dy * left)
        step = torch.cat([yy * x - xy * y, xx * y - xy * x], dim=1) / (xx * yy - xy * xy)
        flow = _mean(flow + step.clamp(-1, 1), 3)
    return flow * ((xx + yy - 2 * DAMPING) / FLAT).clamp(max=1)


def _enlarge(flow: Tensor, size: Sequence[int]) -> Tensor:
    rows, columns = (new / old for new, old in zip(size, flow.shape[-2:], strict=True))
    scale = flow.new_tensor([columns, rows])[:, None, None]
    return F.interpolate(flow, list(size), mode="bilinear", align_corners=False) * scale


def _mean(picture: Tensor, window: int = WINDOW) -> Tensor:
    """Mean over the square window around each pixel, without what lies outside the picture.

    Both ways add the same values in the same order, and give the same bits on a CPU.
    """
    reach = window // 2
    if picture.numel() < LARGE:
        return F.avg_pool2d(picture, window, stride=1, padding=reach, count_include_pad=False)
    height, width = picture.shape[-2:]
    padded = F.pad(picture.contiguous(), (reach,) * 4)
    total = padded.new_zeros(picture.shape)
    for y in range(window):
        for x in range(window):
            total += padded[..., y : y + height, x : x + width]
    return total / (_inside(height, reach)[:, None] * _inside(width, reach)).to(total)


def _inside(length: int, reach: int) -> Tensor:
    """How many pixels of a window around each pixel of a line [L] lie inside."""
    place = torch.arange(length)
    return (place + reach).clamp(max=length - 1) - (place - reach).clamp(min=0) + 1


def _window_mean(picture: Tensor) -> Tensor:
    """Mean over the window and over all channels, which share one motion: [1, 1, H, W]."""
    return _mean(picture).mean(1, keepdim=True)


def _targets(flow: Tensor) -> Tensor:
    """Positions that a flow [1, 2, H, W] points to, [1, 2, H, W]."""
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return flow + torch.stack([x, y]).to(flow)


def _sample(picture: Tensor, flow: Tensor) -> Tensor:
    """Sample `picture` [1, C, H, W] where a flow points to; outside, the nearest edge pixel counts."""
    height, width = flow.shape[-2:]
    size = flow.new_tensor([width - 1, height - 1])
    grid = _targets(flow).permute(0, 2, 3, 1) * 2 / size - 1
    return F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _square(flow: Tensor) -> Tensor:
    return (flow * flow).sum(0)
