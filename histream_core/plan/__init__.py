"""Plans: the chunks, steps and frames to generate, as pure values without tensors, files or models.

`make_plan` makes a `Plan` from a preset; its `chunks` list every network call of a run.
"""

from .chunks import Chunk, Plan, lengthen, replay, with_anchors
from .make import PlanOptions, make_plan
from .positions import TemporalPolicy
from .presets import MODES, PRESETS, Preset, find_preset
from .schedule import Scale, Schedule, Step, Steps
from .window import Window

__all__ = [
    "MODES",
    "PRESETS",
    "Chunk",
    "Plan",
    "PlanOptions",
    "Preset",
    "Scale",
    "Schedule",
    "Step",
    "Steps",
    "TemporalPolicy",
    "Window",
    "find_preset",
    "lengthen",
    "make_plan",
    "replay",
    "with_anchors",
]
