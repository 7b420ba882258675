"""Random generators of a training run in one object, so that a resumed run draws the same numbers."""

import random

import torch
from torch import Tensor

from training import processes


class Rng:
    """Python's generator for choices, and one of torch's on the training device for numbers."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        """Seed both; further processes of a run draw other numbers."""
        seed += 1_000_003 * processes.rank()
        self.device = torch.device(device)
        self.choices = random.Random(seed)
        self.numbers = torch.Generator(self.device).manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.numbers, device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.numbers, device=self.device)

    def below(self, limit: int, *shape: int) -> Tensor:
        """Random integers from 0 to `limit` - 1."""
        return torch.randint(limit, shape, generator=self.numbers, device=self.device)

    def state_dict(self) -> dict:
        """The state of this process, and those of all where a run has several."""
        version, words, spare = self.choices.getstate()
        mine = {"choices": [version, list(words), spare], "numbers": self.numbers.get_state()}
        return mine if processes.count() == 1 else {"processes": processes.gather(mine)}

    def load_state_dict(self, state: dict) -> None:
        state = state["processes"][processes.rank()] if "processes" in state else state
        version, words, spare = state["choices"]
        self.choices.setstate((version, tuple(words), spare))
        self.numbers.set_state(state["numbers"])
