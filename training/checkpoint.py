"""Checkpoints that a killed run can continue from: written beside, then moved into place."""

from pathlib import Path
from typing import Protocol

import torch


class Stateful(Protocol):
    """Anything that can be saved and become what was saved."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> object: ...


def save(path: Path, state: dict, **parts: Stateful) -> None:
    """Write `state` (plain numbers and words) and the state dicts of `parts`."""
    write(path, {"state": state, **{name: part.state_dict() for name, part in parts.items()}})


def write(path: Path, found: dict) -> None:
    """Write tensors, numbers and words, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    torch.save(found, beside)
    beside.replace(path)


def load(path: Path, state: dict, **parts: Stateful) -> bool:
    """Fill `state` and `parts` from the file; False where there is none yet."""
    if not path.exists():
        return False
    found = read(path)
    state.update(found["state"])
    for name, part in parts.items():
        part.load_state_dict(found[name])
    return True


def read(path: Path) -> dict:
    """Everything in a checkpoint, on the CPU. Raises OSError where there is none."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: run the stage that makes it first")
    return torch.load(path, map_location="cpu", weights_only=True)
