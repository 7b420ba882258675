"""The draft of each chunk of a run, shown at the terminal: kept, or drawn again with another seed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from ..plan.chunks import Chunk, Plan
from ..plan.draft import check_draft
from ..plan.sizes import PIXEL_FRAMES_PER_LATENT
from ..plan.speed import DEFAULTS
from ..runs.store.folder import DRAFT, inside
from ..runs.weights import Weights
from ..stream.noise import MAX_SEED
from ..vae.decode import to_frames
from ..video.pictures import write_png
from ..video.pixels import to_uint8


def check_review(plan: Plan) -> None:
    """Raise ValueError for --review where nobody can answer, or there is nothing to look at."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ValueError(
            "--review asks about each chunk at the terminal, and there is none: leave it out, or look at many seeds at "
            "once with histream sheet --drafts 12"
        )
    check_draft(plan)


class TerminalReview:
    """Shows a chunk's LOW estimate as a picture in the run's folder, and asks whether to keep it."""

    def __init__(self, weights: Weights, folder: Path, num_chunks: int) -> None:
        self._decoder = replace(weights, speed=DEFAULTS).open_decoder()
        self._device, self._num_chunks = weights.decode_device, num_chunks
        self._path = inside(folder / DRAFT)

    def __call__(self, chunk: Chunk, clean: Tensor, seed: int) -> int | None:
        """The seed to draw a chunk with anew; None to keep it. Raises KeyboardInterrupt where the answers end."""
        write_png(self._path, self._strip(clean))
        try:
            return ask_for_seed(f"chunk {chunk.index + 1} of {self._num_chunks}, seed {seed}: {self._path}", seed)
        finally:
            self._path.unlink(missing_ok=True)

    def _strip(self, clean: Tensor) -> np.ndarray:
        """The last picture of each latent frame, side by side [H, W, 3], decoded without what came before."""
        frames = to_frames(self._decoder.decode(clean[:1].to(self._device)))[0]
        self._decoder.reset()
        return np.concatenate(to_uint8(frames[::PIXEL_FRAMES_PER_LATENT]), axis=1)


def ask_for_seed(shown: str, seed: int) -> int | None:
    """Ask at the terminal until the answer is one: None for yes, the next seed for no, or the seed that is typed."""
    following = (seed + 1) % (MAX_SEED + 1)
    while True:
        sys.stderr.write(f"\n{shown}\nkeep it? [y]es, [n]o: seed {following}, or another seed: ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise KeyboardInterrupt
        answer = line.strip().lower()
        if answer in ("y", "yes", ""):
            return None
        if answer in ("n", "no"):
            return following
        if answer.isdecimal() and int(answer) <= MAX_SEED and int(answer) != seed:
            return int(answer)
