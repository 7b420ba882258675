"""Motion-aware noise: measures how much a source moves and decides with how much noise its chunks begin.

T frames; C channels, or the colours; H W in pixels or on the latent grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..plan.entry import Entry, Restyle


class Motion:
    """The motion of a source so far: the share of the last chunk, and its last frame [C, H, W]."""

    def __init__(self, restyle: Restyle) -> None:
        self.restyle, self.share = restyle, restyle.share
        self._last: Tensor | None = None

    def next(self, frames: Tensor) -> Entry:
        """The entry of the next chunk; `frames` [T, C, H, W] are its source, in pixels in [-1, 1] or as latents."""
        if self._last is not None and self._last.shape != frames.shape[1:]:
            self._last = None  # latents of another resolution
        rule = self.restyle.motion
        if rule:
            moved = min(1.0, self._most_motion(frames) / rule.full)
            self.share = rule.next_share(self.restyle.share, self.share, moved)
        self._last = frames[-1]
        return self.restyle.entry(self.share)

    def change(self, restyle: Restyle) -> None:
        """Go on with another strength: it is the top of the rule for motion, or else the share of every chunk."""
        self.restyle = restyle
        if restyle.motion is None:
            self.share = restyle.share

    def _most_motion(self, frames: Tensor) -> float:
        """The largest root mean square of the differences between successive frames; 0 for a first single one."""
        before = frames[:1] if self._last is None else self._last[None]
        frames = torch.cat([before, frames]).double()
        return float((frames[1:] - frames[:-1]).square().flatten(1).mean(1).sqrt().max())
