"""Training loop of all stages: limits, learning rate, checkpoints, loss curves.

A run is a folder: `checkpoint.pt` holds everything the next step depends on, `losses.jsonl` a line for every few steps.
Start the same command again and it continues; a run by `--steps` then gives the numbers it would have given.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Module

from training import processes
from training.checkpoint import Stateful, load, save

SAVE_EVERY = 120.0
"""Seconds between checkpoints."""
LOG_EVERY = 10
"""Steps averaged in one line of the loss curves; checkpoints lie between lines."""
WARM_UP = 50
DECAY = 0.4
"""Share of a run, at its end, in which the learning rate falls to 0."""
FREE = ("out", "steps", "minutes", "until", "device")
"""Settings that may change when a run is continued."""

Losses = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Moment:
    """Position of a step in a run."""

    step: int
    share: float
    """Share of the run that is done, 0 to 1; by the clock where the run is limited in minutes."""

    @property
    def rate(self) -> float:
        """Factor on the learning rate: warm-up, constant, linear decay to 0."""
        return min(1.0, (self.step + 1) / WARM_UP) * min(1.0, (1 - self.share) / DECAY + 0.005)


def add_arguments(parser: argparse.ArgumentParser, *, lr: float) -> None:
    """Add the options that all stages have."""
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; continued where there is one")
    limit = parser.add_mutually_exclusive_group(required=True)
    limit.add_argument("--steps", type=int, help="length of the run; the same steps give the same numbers")
    limit.add_argument("--minutes", type=float, help="length of the run by the clock")
    parser.add_argument("--until", type=int, metavar="STEP", help="stop there; learning rates are the whole run's")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16; weights stay in float32")


def seeded(args: argparse.Namespace, make: Callable[[], Module]) -> Module:
    """Build a module with `make` on the device of the run; equal seeds give equal weights."""
    torch.manual_seed(args.seed)
    return make().to(args.device)


def autocast(args: argparse.Namespace) -> torch.autocast:
    return torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.bf16)


def train(args: argparse.Namespace, parts: Mapping[str, Stateful], step: Callable[[Moment], Losses]) -> int:
    """Call `step` until the run is over, continuing from its checkpoint; return how many steps it has had.

    `parts` are saved and loaded: networks, optimisers, averages, random generators. Raises ValueError where the folder
    holds a run with other settings.
    """
    if (args.steps or args.minutes or 0) <= 0:
        raise ValueError("a run of no length trains nothing: give --steps 1 or more, or --minutes above 0")
    torch.set_flush_denormal(True)
    processes.join()
    settings = {key: str(value) for key, value in vars(args).items() if key not in FREE}
    if processes.count() > 1:
        settings["processes"] = str(processes.count())
    state = {"step": 0, "seconds": 0.0, "settings": settings}
    load(args.out / "checkpoint.pt", state, **parts)
    _check(args.out, state["settings"], settings)
    args.out.mkdir(parents=True, exist_ok=True)
    curves = _Curves(args.out / "losses.jsonl", state["step"])
    began = time.monotonic()
    before = saved = state["seconds"]
    while (share := _share(args, state)) < 1 and (args.until is None or state["step"] < args.until):
        curves.add(step(Moment(state["step"], share)))
        state["step"] += 1
        state["seconds"] = processes.first_value(before + time.monotonic() - began)
        if state["step"] % LOG_EVERY == 0:
            curves.write(state["step"], state["seconds"])
            if state["seconds"] - saved >= SAVE_EVERY:
                save(args.out / "checkpoint.pt", state, **parts)
                saved = state["seconds"]
    curves.write(state["step"], state["seconds"])
    save(args.out / "checkpoint.pt", state, **parts)
    if processes.rank() == 0:
        print(f"{args.out}: {state['step']} steps in {state['seconds']:.0f} s", flush=True)
    return state["step"]


def _share(args: argparse.Namespace, state: dict) -> float:
    return state["step"] / args.steps if args.steps is not None else state["seconds"] / (60 * args.minutes)


def _check(folder: Path, then: dict[str, str], now: dict[str, str]) -> None:
    for key in sorted({*then, *now}):
        if then.get(key) != now.get(key):
            raise ValueError(
                f"{folder} holds a run with {key} {then.get(key)}, asked for is {now.get(key)}: "
                "give the same settings to continue it, or another --out"
            )


class _Curves:
    """Loss curves of a run: a line of JSON with means for every LOG_EVERY steps."""

    def __init__(self, path: Path, step: int) -> None:
        """Open the file and drop lines beyond `step`, which a killed run left."""
        self.path, self.sums = path, {}
        if processes.rank() > 0:
            return
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in kept), "utf-8")

    def add(self, losses: Losses) -> None:
        for name, loss in losses.items():
            self.sums.setdefault(name, []).append(loss.detach())

    def write(self, step: int, seconds: float) -> None:
        if not self.sums or processes.rank() > 0:
            return
        means = {name: round(float(torch.stack(found).mean()), 6) for name, found in sorted(self.sums.items())}
        self.sums.clear()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "seconds": round(seconds, 1)} | means) + "\n")
        if step % (10 * LOG_EVERY) == 0:
            print(f"step {step} {seconds:.0f}s  " + "  ".join(f"{k} {v:.4f}" for k, v in means.items()), flush=True)
