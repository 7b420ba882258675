"""The nodes: thin, over the engine in histream_core; `host` is the one adapter between the two."""

from .anchor_window_sampler import AnchorWindowSampler, AnchorWindowSamplerSelect
from .api import ComfyExtension
from .dual_resolution_cache import DualResolutionCache
from .step_schedule import StepSchedule

NODES = (
    DualResolutionCache,
    StepSchedule,
    AnchorWindowSampler,
    AnchorWindowSamplerSelect,
)
"""In order of worth; the ids in them are for ever."""


class HiStreamExtension(ComfyExtension):
    async def get_node_list(self):
        return list(NODES)
