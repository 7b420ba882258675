"""Clips whose prompt has just changed: windows show another prompt's clip, as behind a cut of a timeline."""

import torch

from training.data import Bank, Clips, Drawing
from training.dit_forward import CHUNK
from training.rng import Rng
from training.scene_bank import CYCLE, SceneBank


def draw_changed(bank: Bank | SceneBank, rng: Rng, count: int, start: int, drawing: Drawing, low: int) -> Clips:
    """Draw clips of `frames(start)` whose chunk at `start` is the first, or a later one, behind a change of prompts.

    The first one begins the new clip, as its caption says; a later one sees the clip before as its anchor alone.
    """
    before = bank.draw(rng, count, [*range(CHUNK), *range(start - CHUNK, start)], drawing, low)
    since = 0 if start == CHUNK else CHUNK * rng.choices.choice((0, 1, rng.choices.randint(1, start // CHUNK - 1)))
    # a round later a clip is where it begins, and has a past
    times = [*range(CHUNK), *range(CYCLE + since - CHUNK, CYCLE + since + CHUNK)]
    clips = bank.draw(rng, count, times, drawing, low)
    window = before.latents if not since else _anchored(before, clips)
    return Clips(clips.tokens, clips.latents, clips.geometry, index=clips.index, roll=clips.roll, seen=window)


def _anchored(before: Clips, clips: Clips) -> torch.Tensor:
    return torch.cat([before.latents[:, :, :CHUNK], clips.latents[:, :, CHUNK : 2 * CHUNK]], dim=2)
