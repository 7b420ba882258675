"""Rotary positions: equal to the textbook's, exact at any distance, stretched by NTK factors."""

import pytest
import torch

from histream_core.network.ops.rope import Rope, axes_dims, ntk_theta, rotate


def complex_rope(x, times, grid, theta):
    """Rotary positions as in the textbook: complex numbers, float64, token by token."""
    dims = axes_dims(x.shape[-1])
    tokens = [(t, row, column) for t in times for row in range(grid[0]) for column in range(grid[1])]
    angles = [
        [
            position / base ** (2 * i / dim)
            for position, dim, base in zip(token, dims, theta, strict=True)
            for i in range(dim // 2)
        ]
        for token in tokens
    ]
    turns = torch.polar(
        torch.ones(len(tokens), sum(dims) // 2, dtype=torch.float64), torch.tensor(angles, dtype=torch.float64)
    )
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns[:, None]).flatten(-2)


@pytest.mark.parametrize("ntk", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("head_dim", [24, 128])
def test_rotations_are_those_of_the_textbook(ntk, head_dim):
    grid, times = (2, 3), [0, 7, 300]
    x = torch.randn(2, len(times) * 6, 2, head_dim)
    theta = [10000.0, *(10000.0 * ntk ** (dim / (dim - 2)) for dim in axes_dims(head_dim)[1:])]
    ours = rotate(x, Rope(head_dim, grid, ntk=ntk).table(times))
    torch.testing.assert_close(ours.double(), complex_rope(x, times, grid, theta), atol=1e-5, rtol=1e-5)


def test_wan_splits_128_channels_into_44_and_twice_42():
    assert axes_dims(128) == (44, 42, 42)


def test_no_stretch_is_plain_wan():
    assert ntk_theta(1.0, 42) == 10000.0
    assert ntk_theta(2.0, 42) > 20000.0


@pytest.mark.parametrize("far", [300, 10_000, 30_000_000])
def test_attention_scores_depend_on_distance_alone_however_far(far):
    """bfloat16 positions collide beyond 256 frames; float64 angles do not. Seen to fail with float32 angles."""
    rope = Rope(128, (1, 1))
    q, k = torch.randn(2, 1, 1, 1, 128)

    def score(time):
        return (rotate(q, rope.table([time + 3])) * rotate(k, rope.table([time]))).sum()

    torch.testing.assert_close(score(far), score(0), atol=2e-5, rtol=0)


def test_an_axis_that_cannot_be_stretched_is_refused():
    with pytest.raises(ValueError, match="axis of 2 channels cannot be stretched 2 times: use NTK factor 1"):
        Rope(6, (2, 2), ntk=2.0)
