"""The end of a video that a run goes on from: its last frames, which become the first chunks of the run.

H W in pixels here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from ..plan.sizes import PIXEL_FRAMES_PER_LATENT, pixel_frames
from ..plan.window import Window
from ..video.pictures import CROP, FITS, extend_picture, fit_picture
from ..video.reading import frames_of
from .restyle import SourceVideo, size_for


@dataclass(frozen=True)
class LastFrames:
    """The last frames of a video file, fitted to the size of the video that goes on from them."""

    video: SourceVideo
    latents: int
    """Number of latent frames that they are encoded to."""
    size: tuple[int, int]
    """Width and height that are generated."""
    fit: str = CROP
    """How frames of another size are fitted, one of FITS."""

    @classmethod
    def of(cls, video: SourceVideo, window: Window, size: tuple[int, int], fit: str = CROP) -> LastFrames:
        """The last frames, as many as a window holds, for a video that is generated in `size`."""
        return cls(video, window.latents_of(video.index.num_frames), size, fit)

    @property
    def num_frames(self) -> int:
        """How many frames they are: the video of the run begins with them."""
        return pixel_frames(self.latents)

    @property
    def num_before(self) -> int:
        """Number of frames of the video before them."""
        return self.video.index.num_frames - self.num_frames

    @property
    def as_large(self) -> bool:
        """Whether the frames are as large as the video, but for edges that are drawn out."""
        return size_for(*self.video.size) == tuple(self.size)

    def frames(self) -> Iterator[Tensor]:
        """Yield the frames [H, W, 3] in [0, 1]."""
        return self._fitted(self.num_before)

    def all_frames(self) -> Iterator[Tensor]:
        """Yield all frames of the video up to its end, [1, H, W, 3] in [0, 1], each fitted too."""
        return (frame[None] for frame in self._fitted(0))

    def _fitted(self, first: int) -> Iterator[Tensor]:
        for frame in frames_of(self.video.path, first, self.video.index.num_frames - first):
            yield extend_picture(frame, self.size) if self.as_large else fit_picture(frame, self.size, self.fit)

    def check_shorter(self, num_frames: int) -> None:
        """Refuse a video of `num_frames` frames that these frames leave no room in. Raises ValueError."""
        if num_frames <= self.num_frames:
            raise ValueError(
                f"the video begins with the last {self.num_frames} frames of {self.video.path}, and it has "
                f"{num_frames}: ask for {self.num_frames + PIXEL_FRAMES_PER_LATENT} frames or more"
            )

    def notes(self, *, whole: bool = False) -> list[str]:
        """Lines that say which frames both videos have, or with `whole` what comes first, and how they are fitted."""
        count, path = self.num_frames, self.video.path
        same = f"the first {count} frames are the last {count}" if count > 1 else "the first frame is the last one"
        lines = [f"{same} of {path}, as the VAE shows it: leave out one of both where they are joined"]
        if whole:
            lines = [f"the {self.video.index.num_frames} frames of {path} come first"]
        if not self.as_large:
            width, height = self.video.size
            lines.append(
                f"frames of {width}x{height} are fitted to {self.size[0]}x{self.size[1]} ({self.fit}): {FITS[self.fit]}"
            )
        return lines
