"""Options of `histream plan`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from ...parallel.devices import DEVICES, LINKS
from ...plan.presets import MODES
from ...plan.sharing import MAX_GPUS
from ...plan.storage import DTYPES
from ..options.adding import DEMO, add_size_options
from ..options.common import decimal, whole
from ..options.memory import add_kv_option
from ..options.plans import add_anchor, add_guidance, add_histories, add_sinks
from ..options.speed import LEVERS, add_speed_options
from . import Later

MODELS = ("wan-1.3b", "wan-14b")
"""Published sizes of the transformer."""


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add the verb."""
    verb = verbs.add_parser("plan")
    verb.add_argument("--model", metavar="M", default="wan-1.3b", help=f"{', '.join(MODELS)}, {DEMO} or a file")
    verb.add_argument("--preset", metavar="NAME", help="how the weights are sampled (default: what fits the model)")
    verb.add_argument("--mode", metavar="M", default="histream", help=f"{', '.join(MODES)} (default: histream)")
    add_size_options(verb, size="1920x1088")
    verb.add_argument("--dtype", choices=sorted(DTYPES), help="compute in this type (default: bf16; demo: fp32)")
    add_guidance(verb, negative=False)
    add_histories(verb)
    add_sinks(verb)
    add_anchor(verb)
    add_kv_option(verb)
    add_speed_options(verb, [*LEVERS, "vae_strips"])
    verb.add_argument("--vram", metavar="GB", type=decimal, help="say what would not fit into a card of that size")
    verb.add_argument(
        "--gpus", metavar="N", type=whole, help=f"predict the frames a second on 1 to N GPUs, at most {MAX_GPUS}"
    )
    verb.add_argument("--link", choices=list(LINKS), help="how these GPUs are connected (default: nvlink)")
    verb.add_argument("--device", metavar="NAME", help=f"what they are: {', '.join(DEVICES)} (default: H100)")
    verb.set_defaults(run=Later("costs", "run_plan"))
    yield verb
