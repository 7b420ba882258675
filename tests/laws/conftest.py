"""A tiny model and its texts, for the laws that are compared with the reference."""

import pytest
import torch
from tiny import lively


@pytest.fixture(scope="module")
def model():
    return lively()


@pytest.fixture(scope="module")
def texts():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 5, 12, generator=generator) for _ in range(3)]
