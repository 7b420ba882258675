"""Windows of a frame, which show an object in fewer tokens: more of them are seen for the same work."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.data import COVER
from training.rng import Rng


@dataclass(frozen=True, slots=True)
class Crop:
    """A square window of each clip, on whole tokens of 2 x 2 cells; it does not wrap around."""

    corner: Tensor
    """Its first row and column, [B, 2], even."""
    cells: int
    """Cells a side."""

    def __call__(self, frames: Tensor) -> Tensor:
        """The windows [B, ..., cells, cells] of frames [B, ..., H, W]."""
        side, clip = (torch.arange(count, device=frames.device) for count in (self.cells, len(frames)))
        rows, columns = (self.corner[:, axis, None] + side for axis in (0, 1))
        cells = frames.movedim((-2, -1), (1, 2))[clip[:, None, None], rows[:, :, None], columns[:, None, :]]
        return cells.movedim((1, 2), (-2, -1))


def around_objects(geometry: Tensor, cells: int, rng: Rng) -> Crop:
    """A window around a random cell of each clip's object in `geometry` [B, K, T, G, G]; anywhere without one."""
    covered = (geometry[:, COVER] > 0).flatten(1).float()
    covered = torch.where(covered.sum(1, keepdim=True) > 0, covered, torch.ones_like(covered))
    grid = geometry.shape[-1]
    cell = torch.multinomial(covered, 1, generator=rng.numbers)[:, 0] % (grid * grid)
    middle = torch.stack([cell // grid, cell % grid], dim=1)
    return Crop((middle - cells // 2).clamp(0, grid - cells) // 2 * 2, cells)
