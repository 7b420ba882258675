"""The share that a network of single frames leaves unexplained: 0 for the clip itself, 1 for the mean clip."""

import pytest
import torch

from training.data import Clips
from training.measure import unexplained


@pytest.mark.parametrize("sigma", [1.0, 0.6])
def test_the_clip_leaves_nothing_the_mean_clip_all_and_a_wrong_object_its_own_cells_alone(sigma):
    clean, noise = (torch.randn(6, 16, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    geometry = torch.zeros(6, 2, 1, 8, 8)
    geometry[:, 0, :, 2:5, 2:5] = 1
    clips = Clips(torch.zeros(6, 1, dtype=torch.long), clean, geometry)

    def answering(estimate):
        return lambda noisy, level, tokens: (noisy - estimate) / sigma

    wrong = torch.where(geometry[:, :1] > 0, clean + 1, clean)
    assert unexplained(answering(clean), clips, noise, sigma) == pytest.approx((0, 0), abs=1e-10)
    assert unexplained(answering(clean.mean(0)), clips, noise, sigma) == pytest.approx((1, 1), abs=1e-5)
    objects, others = unexplained(answering(wrong), clips, noise, sigma)
    assert objects > 0.5
    assert others == pytest.approx(0, abs=1e-10)
