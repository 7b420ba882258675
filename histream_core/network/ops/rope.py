"""Rotary positions on three axes (time, height, width): tables of rotations, and how they are applied.

B batch, L tokens, N heads, D head dim, T latent frames.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..transfer import upload

THETA = 10000.0


def axes_dims(head_dim: int) -> tuple[int, int, int]:
    """Channels of one head for time, height and width: 44, 42, 42 of Wan's 128."""
    spatial = 2 * (head_dim // 6)
    return head_dim - 2 * spatial, spatial, spatial


def ntk_theta(factor: float, dim: int) -> float:
    """Base of the rotary frequencies of an axis of `dim` channels, stretched `factor` times (NTK-aware RoPE)."""
    if factor == 1:
        return THETA
    if dim <= 2 or factor <= 0:
        raise ValueError(f"an axis of {dim} channels cannot be stretched {factor:g} times: use NTK factor 1")
    return THETA * factor ** (dim / (dim - 2))


def _rotations(positions: Tensor, dim: int, theta: float) -> Tensor:
    """Rotation matrices [len(positions), dim / 2, 2, 2] in float32, computed from float64 angles.

    Float32 angles would be off by 1e-3 at frame 10,000; bfloat16 cannot tell frame 300 from 301.
    """
    frequencies = 1.0 / theta ** torch.linspace(0, (dim - 2) / dim, dim // 2, dtype=torch.float64)
    angles = torch.outer(positions.to(torch.float64), frequencies)
    rows = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], dim=-1)
    return rows.unflatten(-1, (2, 2)).float()


class Rope:
    """Rotations for one grid of tokens. `ntk` stretches the two spatial axes, and not time."""

    def __init__(self, head_dim: int, grid: tuple[int, int], *, ntk: float = 1.0, device=None):
        """`grid` is (height, width) in tokens, half the latent grid."""
        self.time_dim, height_dim, width_dim = axes_dims(head_dim)
        self.grid = grid
        self.device = device
        height, width = grid
        rows = _rotations(torch.arange(height), height_dim, ntk_theta(ntk, height_dim)).to(device)
        columns = _rotations(torch.arange(width), width_dim, ntk_theta(ntk, width_dim)).to(device)
        self._space = torch.cat(
            [rows[:, None].expand(-1, width, -1, -1, -1), columns[None].expand(height, -1, -1, -1, -1)], dim=2
        )

    def table(self, times: list[int]) -> Tensor:
        """Rotations of every token of frames that stand at `times`: [T * grid, 1, D / 2, 2, 2], float32."""
        time = upload(_rotations(torch.tensor(times), self.time_dim, THETA), self.device)
        height, width = self.grid
        time = time[:, None, None].expand(-1, height, width, -1, -1, -1)
        space = self._space[None].expand(len(times), -1, -1, -1, -1, -1)
        return torch.cat([time, space], dim=3).flatten(0, 2).unsqueeze(1)

    def back(self, time: int) -> Tensor:
        """Rotations that undo those of a frame at `time`: [grid, 1, D / 2, 2, 2]."""
        return self.table([time]).transpose(-1, -2)

    def jump(self, time: int) -> Tensor:
        """Rotations that move a frame's rotated keys by `time`, which may be negative: [grid, 1, D / 2, 2, 2]."""
        height, width = self.grid
        turn = upload(_rotations(torch.tensor([time]), self.time_dim, THETA), self.device)
        still = torch.eye(2, device=self.device).expand(1, self._space.shape[2], 2, 2)
        return torch.cat([turn, still], dim=1).expand(height * width, -1, -1, -1).unsqueeze(1)


Rotate = Callable[[Tensor, Tensor], Tensor]
"""The signature of `rotate`, which fused kernels can stand in for."""


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Apply rotations [L, 1, D / 2, 2, 2], or such of each batch item, to queries or keys [B, L, N, D]; in float32."""
    pairs = torch.unflatten(x.to(table.dtype), -1, (-1, 1, 2))
    turned = table[..., 0] * pairs[..., 0]
    turned.addcmul_(table[..., 1], pairs[..., 1])
    return turned.flatten(-2).to(x.dtype)
