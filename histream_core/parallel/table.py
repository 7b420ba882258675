"""The table of predicted rates of a video on 1 to so many GPUs, as plain values and in lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..cost.cost import Cost
from ..plan.histories import level_name
from ..plan.sharing import ONE, SPLITS, why_not
from .devices import Machine
from .predict import best_rate, check_gpus, choose

WIDTH = 14


def predictions(cost: Cost, gpus: int, machine: Machine) -> dict[str, Any]:
    """Predicted frames a second of a plan's video for each number of GPUs and each split, and what `auto` takes."""
    check_gpus(gpus)
    return {
        "predicted": True,
        "device": machine.device.name,
        "device_fitted_to": machine.device.source,
        "link": machine.link.name,
        "link_rates": machine.link.source,
        "rows": [_row(cost, number, machine) for number in range(1, gpus + 1)],
    }


def _row(cost: Cost, gpus: int, machine: Machine) -> dict[str, Any]:
    config, taken = cost.config, choose(cost, gpus, machine)
    rates = {split: best_rate(cost, split, gpus, machine) for split in SPLITS}
    alone = rates[ONE]
    assert alone is not None  # one GPU can do it all
    return {
        "gpus": gpus,
        "splits": {
            split: {"fps": rate.fps, "ranks": rate.sharing.ranks, "vae_apart": rate.sharing.vae_apart}
            for split, rate in rates.items()
            if rate
        },
        "impossible": {
            split: why
            for split in SPLITS
            if (why := why_not(cost.plan, split, gpus, config.num_heads, config.num_layers))
        },
        "farm_fps": gpus * alone.fps,
        "auto": taken.sharing.split,
        "levels": [level_name(level) for level in taken.levels],
        "why": taken.why,
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The table in lines."""
    rows = found["rows"]
    yield f"predicted frames a second on {found['device']}, link {found['link']}; * is what split auto takes"
    yield "GPUs" + "".join(f"{split:>{WIDTH}}" for split in (*SPLITS, "farm"))
    for row in rows:
        cells = {split: f"{way['fps']:.2f}{'*' * (split == row['auto'])}" for split, way in row["splits"].items()}
        cells["farm"] = f"{row['farm_fps']:.2f}"
        yield f"{row['gpus']:4}" + "".join(f"{cells.get(split, '-'):>{WIDTH}}" for split in (*SPLITS, "farm"))
    yield f"auto on {rows[-1]['gpus']}: {rows[-1]['why']}"
    if levels := rows[-1]["levels"]:
        yield f"passes that sequence ranks share: {', '.join(levels)}"
    for split in SPLITS:
        if said := [row["impossible"][split] for row in rows[1:] if split in row["impossible"]]:
            yield said[0]
    yield "farm: a video on each GPU, all of them together"
    yield f"predicted, not measured: {found['device']} fitted to {found['device_fitted_to']}"
    yield f"link {found['link']}: {found['link_rates']}; docs/scale.md"
