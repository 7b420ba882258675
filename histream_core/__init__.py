"""HiStream (arXiv 2512.21338) as a headless engine: a plan goes in, finished video chunks come out.

The names that a program needs are here, and docs/library.md shows them at work. Each is imported when it is asked for,
so that importing this package loads nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cli.verbs.farm import shot_verbs
    from .network.forward import Text
    from .plan import PlanOptions, find_preset, make_plan
    from .runs.render import Order, Target, render, stream_frames
    from .runs.weights import Weights, load_demo, load_weights
    from .stream.noise import SeededNoise
    from .stream.prompts import Prompt
    from .video.formats import find_format

__version__ = "0.1.0"

_PLACES = {
    "Order": "runs.render",
    "PlanOptions": "plan",
    "Prompt": "stream.prompts",
    "SeededNoise": "stream.noise",
    "Target": "runs.render",
    "Text": "network.forward",
    "Weights": "runs.weights",
    "find_format": "video.formats",
    "find_preset": "plan",
    "load_demo": "runs.weights",
    "load_weights": "runs.weights",
    "make_plan": "plan",
    "render": "runs.render",
    "shot_verbs": "cli.verbs.farm",
    "stream_frames": "runs.render",
}

__all__ = [
    "Order",
    "PlanOptions",
    "Prompt",
    "SeededNoise",
    "Target",
    "Text",
    "Weights",
    "find_format",
    "find_preset",
    "load_demo",
    "load_weights",
    "make_plan",
    "render",
    "shot_verbs",
    "stream_frames",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
