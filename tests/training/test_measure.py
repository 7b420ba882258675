"""The share that a network leaves unexplained: 0 for the clip itself, 1 for the mean clip."""

from typing import ClassVar

import pytest
import torch

from histream_core.plan.schedule import Scale
from training.data import Clips
from training.forcing import Prediction
from training.measure import of_chunks, of_pictures


@pytest.mark.parametrize("sigma", [1.0, 0.6])
def test_the_clip_leaves_nothing_the_mean_clip_all_and_a_wrong_object_its_own_cells_alone(sigma):
    clean, noise = (torch.randn(6, 16, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    geometry = torch.zeros(6, 2, 1, 8, 8)
    geometry[:, 0, :, 2:5, 2:5] = 1
    clips = Clips(torch.zeros(6, 1, dtype=torch.long), clean, geometry)

    def answering(estimate):
        return lambda noisy, level, tokens: (noisy - estimate) / sigma

    wrong = torch.where(geometry[:, :1] > 0, clean + 1, clean)
    assert of_pictures(answering(clean), clips, noise, sigma) == pytest.approx((0, 0), abs=1e-10)
    assert of_pictures(answering(clean.mean(0)), clips, noise, sigma) == pytest.approx((1, 1), abs=1e-5)
    objects, others = of_pictures(answering(wrong), clips, noise, sigma)
    assert objects > 0.5
    assert others == pytest.approx(0, abs=1e-10)


class Knowing:
    """A student that answers the true clip at LOW, and at HIGH what its own LOW estimate was, shifted by one."""

    grids: ClassVar = {Scale.LOW: (4, 4), Scale.HIGH: (8, 8)}

    def own_low(self, clips, start, rng):
        return ["of the first", "of the later"]

    def predict(self, clips, start, scale, rng, low):
        assert low == ((None, None) if scale is Scale.LOW else ["of the first", "of the later"])
        clips, frames = clips.at(self.grids[scale]), slice(3, 6)
        rows = torch.stack([clips.latents[:, :, frames]] * 2, dim=1) + (scale is Scale.HIGH)
        sigma = torch.tensor([[1.0, 0.857] if scale is Scale.LOW else [0.5, 0.25]])
        first = Prediction(rows + 9, rows, sigma, torch.zeros_like(rows), slice(0, 3))
        return [first, Prediction(rows, rows, sigma, torch.zeros_like(rows), frames)]


def test_each_step_of_the_later_chunk_is_measured_on_its_own_frames():
    """Seen to fail with the frames of the first chunk."""
    clean = torch.randn(6, 16, 6, 8, 8, generator=torch.Generator().manual_seed(1))
    geometry = torch.zeros(6, 2, 6, 8, 8)
    geometry[:, 0, :, 2:5, 2:5] = 1
    clips = Clips(torch.zeros(6, 1, dtype=torch.long), clean, geometry)
    found = dict(of_chunks(Knowing(), clips, 3, None))
    assert list(found) == ["low at 1", "low at 0.857", "high at 0.5", "high at 0.25"]
    assert found["low at 1"] == found["low at 0.857"] == (0, 0)
    assert min(*found["high at 0.5"], *found["high at 0.25"]) > 0.5
