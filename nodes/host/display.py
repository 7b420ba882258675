"""Display of a run while it is made: the line under the node, the progress bar, and pictures.

B batch, C channels, T latent frames, H W latent grid.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle

import comfy.utils
from torch import Tensor

from ...histream_core.plan.sizes import PIXELS_PER_CELL
from ...histream_core.runs.progress import Progress
from . import log as host_log
from .preview import Previewer, as_preview


@contextmanager
def told(where: Callable[[], str]) -> Iterator[None]:
    """Where the block does not come to its end, let the line under the node say where that was, and no time left.

    `where` returns nothing where no line is there.
    """
    try:
        yield
    except BaseException:
        if line := where():
            host_log.tell(f"stopped: {line}")
        raise


class Display:
    """The progress bar and the pictures of one run; call it as the report of its progress."""

    def __init__(self, num_parts: int, open_previewer: Callable[[], Previewer | None] = lambda: None) -> None:
        """`num_parts` of the bar: denoising steps, and chunks that are decoded. The previewer is opened at need."""
        self.num_parts, self.num_done = num_parts, 0
        self._open_previewer, self._previewer = open_previewer, None
        self._bar = comfy.utils.ProgressBar(num_parts)
        self._pictures: Iterator = iter(())
        self._video_size: int | None = None
        self._calls = self._steps = 0
        self._told: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        """Before a network call say how far the run is; after a denoising step move the bar on."""
        calls, steps = sum(progress.calls.values()), progress.pace.position
        ended = calls > self._calls
        self._calls = calls
        if not ended:
            self._tell(progress)
        elif steps > self._steps:
            self.count()
        self._steps = steps

    def count(self) -> None:
        """Move the bar on by one part, and what was finished last by a picture."""
        self.num_done += 1
        self._update(next(self._pictures, None))

    def show(self, clean: Tensor, progress: Progress) -> None:
        """Show a finished chunk [B, C, T, H, W]."""
        if self._previewer is None:
            self._previewer = self._open_previewer() or (lambda _: [])
        self._video_size = PIXELS_PER_CELL * max(clean.shape[-2:])
        self.show_pictures(self._previewer(clean), progress)

    def show_pictures(self, pictures: Sequence, progress: Progress) -> None:
        """Show the last picture of a finished chunk now, and all of them in turn while the next one is made."""
        self._tell(progress)
        self._pictures = cycle(pictures)
        self._update(pictures[-1] if pictures else None)

    def where(self) -> str:
        """How far the run is, without the time left; empty before anything was told."""
        return self._told.pace.where() if self._told else ""

    def _tell(self, progress: Progress) -> None:
        self._told = progress
        host_log.tell(progress.describe())

    def _update(self, picture) -> None:
        preview = as_preview(picture, self._video_size) if picture else None
        self._bar.update_absolute(self.num_done, self.num_parts, preview)
