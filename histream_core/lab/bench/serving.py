"""Frames per second of a causal video model on several GPUs, from five numbers for each model and chip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...live.budget import FRAMES, Cost
from .published import COMM, GPUS, STEPS, Published

TOLERANCE = 0.02
"""Relative error from which the fit counts errors by their size instead of by their square."""
STARTS = ((60.0, 90.0, 10.0, 50.0, COMM), (60.0, 60.0, 30.0, 20.0, COMM), (100.0, 200.0, 10.0, 80.0, COMM))
FIRST_STRIDE, LAST_STRIDE = 16.0, 0.1

Split = Callable[[int, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Milliseconds of the slowest GPU: of layers and of milliseconds of encoding [..., 1], decoding [..., 1] and all layers
[..., steps]; [..., GPUs, steps] comes back."""


@dataclass(frozen=True, slots=True)
class FiveNumbers:
    """Milliseconds for four pixel frames: encoding, decoding, a call's fixed part, a row of it, one transfer."""

    encode: float
    decode: float
    fixed: float
    row: float
    comm: float

    @property
    def cost(self) -> Cost:
        """These costs on one GPU, in seconds, as the product's budget takes them."""
        return Cost(self.encode / 1e3, self.fixed / 1e3, self.row / 1e3, self.decode / 1e3)

    def array(self) -> np.ndarray:
        return np.array([self.encode, self.decode, self.fixed, self.row, self.comm])


def best_split(layers: int, encode: np.ndarray, decode: np.ndarray, network: np.ndarray) -> np.ndarray:
    """The slowest GPU of the best contiguous partition: the first GPU also encodes, the last one also decodes.

    Dynamic programming over the number of layers that the GPUs so far hold; a GPU may hold none.
    """
    done = np.arange(layers + 1) / layers
    stage = np.where(done >= done[:, None], done - done[:, None], np.inf)
    network = np.maximum(network, 1e-9)[..., None]
    so_far = encode[..., None] + network * done
    last = network * (1 - done) + decode[..., None]
    slowest = [encode + network[..., 0] + decode]
    for gpus in GPUS[1:]:
        if gpus > 2:
            so_far = np.maximum(so_far[..., None], network[..., None] * stage).min(-2)
        slowest.append(np.maximum(so_far, last).min(-1))
    return np.stack(slowest, -2)


def equal_split(layers: int, encode: np.ndarray, decode: np.ndarray, network: np.ndarray) -> np.ndarray:
    """The slowest GPU where each holds as many layers as the others, the VAE forgotten."""
    slowest = [encode + network + decode]
    for gpus in GPUS[1:]:
        per_gpu = network * -(-layers // gpus) / layers
        slowest.append(np.maximum(encode, decode) + per_gpu)
    return np.stack(slowest, -2)


def frame_rates(layers: int, numbers: np.ndarray, split: Split = best_split) -> np.ndarray:
    """Frames per second [..., GPUs, steps] with stream batch, of five numbers [..., 5]."""
    encode, decode, fixed, row, comm = (numbers[..., index, None] for index in range(5))
    slowest = split(layers, encode, decode, fixed + row * np.array(STEPS))
    return 1e3 * FRAMES / (slowest + comm[..., None] * (np.array(GPUS) > 1)[:, None])


def unbatched_rates(numbers: np.ndarray) -> np.ndarray:
    """Frames per second [..., steps] on one GPU with a call for each step."""
    encode, decode, fixed, row, _ = (numbers[..., index, None] for index in range(5))
    return 1e3 * FRAMES / (encode + decode + np.array(STEPS) * (fixed + row))


def errors(published: Published, numbers: FiveNumbers, split: Split = best_split) -> np.ndarray:
    """Relative errors [GPUs, steps] of computed frames per second."""
    return frame_rates(published.layers, numbers.array(), split) / np.array(published.fps) - 1


def fit(published: Published, gpus: Sequence[int] = GPUS) -> FiveNumbers:
    """The five numbers that reproduce the figures of these numbers of GPUs best, and those without stream batch.

    The best of three pattern searches without chance. Decoding costs no less than encoding, and a transfer is near
    COMM where the figures do not tell.
    """
    found = [_search(published, gpus, np.array(start)) for start in STARTS]
    return FiveNumbers(*(float(number) for number in min(found, key=lambda pair: pair[0])[1]))


def _search(published: Published, gpus: Sequence[int], place: np.ndarray) -> tuple[float, np.ndarray]:
    """Go to the best of all neighbours, one or two numbers changed, with half the stride where none is better."""
    moves = np.array([move for move in np.ndindex((3,) * 5) if 0 < sum(x != 1 for x in move) <= 2]) - 1.0
    stride, best = FIRST_STRIDE, _misfit(published, gpus, place[None])[0]
    while stride > LAST_STRIDE:
        near = place + stride * moves
        found = _misfit(published, gpus, near)
        if found.min() < best - 1e-9:
            place, best = near[found.argmin()], found.min()
        else:
            stride /= 2
    return float(best), place


def _misfit(published: Published, gpus: Sequence[int], numbers: np.ndarray) -> np.ndarray:
    """The sum over figures of pseudo-Huber losses, and of a weak preference for COMM."""
    rows = [GPUS.index(count) for count in gpus]
    error = frame_rates(published.layers, numbers)[:, rows] / np.array(published.fps)[rows] - 1
    misfit = _loss(error).sum((1, 2)) + (numbers[:, 4] / COMM - 1) ** 2
    if published.unbatched:
        misfit = misfit + _loss(unbatched_rates(numbers) / np.array(published.unbatched) - 1).sum(1)
    return np.where((numbers < 0).any(1) | (numbers[:, 0] > numbers[:, 1]), np.inf, misfit)


def _loss(error: np.ndarray) -> np.ndarray:
    return np.sqrt(1 + (error / TOLERANCE) ** 2) - 1
