"""Checkpoints that a killed run can continue from: written beside, then moved into place."""

import os
from pathlib import Path

import torch


def save(path: Path, state: dict, **parts) -> None:
    """Write `state` (plain numbers) and the state dicts of `parts`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    torch.save({"state": state, **{name: part.state_dict() for name, part in parts.items()}}, beside)
    os.replace(beside, path)


def load(path: Path, state: dict, **parts) -> bool:
    """Fill `state` and `parts` from the file; False where there is none yet."""
    if not path.exists():
        return False
    found = torch.load(path, map_location="cpu", weights_only=True)
    state.update(found["state"])
    for name, part in parts.items():
        part.load_state_dict(found[name])
    return True
