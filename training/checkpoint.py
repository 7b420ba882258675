"""Checkpoints that a killed run continues from; each is written to a new file and then moved into place."""

from pathlib import Path
from typing import Protocol

import torch

from histream_core.weights.torch_files import load_torch
from training import processes


class Stateful(Protocol):
    """An object with a state that can be saved and loaded."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> object: ...


def save(path: Path, state: dict, **parts: Stateful) -> None:
    """Write `state` (plain numbers and strings) and the state dicts of `parts`; of several processes the first does."""
    found = {"state": state, **{name: part.state_dict() for name, part in parts.items()}}
    if processes.rank() == 0:
        write(path, found)
    processes.wait()


def write(path: Path, found: dict) -> None:
    """Write tensors, numbers and strings atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    torch.save(found, beside)
    beside.replace(path)


def load(path: Path, state: dict, **parts: Stateful) -> bool:
    """Fill `state` and `parts` from the file; return False where there is none yet."""
    if not path.exists():
        return False
    found = read(path)
    state.update(found["state"])
    for name, part in parts.items():
        part.load_state_dict(found[name])
    return True


def read(path: Path) -> dict:
    """Load a whole checkpoint to the CPU. Raises OSError where there is none."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: run the stage that makes it first")
    return load_torch(path)
