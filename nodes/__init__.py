"""The nodes: thin, over the engine in histream_core; `host` is the one adapter between the two."""

from .anchor_window_sampler import AnchorWindowSampler, AnchorWindowSamplerSelect
from .api import ComfyExtension
from .demo_model import DemoModel
from .dual_resolution_cache import DualResolutionCache
from .load_model import LoadModel
from .step_schedule import StepSchedule
from .streaming_vae_decode import StreamingVAEDecode
from .video_frames import VideoFrames

NODES = (
    LoadModel,
    DualResolutionCache,
    StepSchedule,
    AnchorWindowSampler,
    AnchorWindowSamplerSelect,
    StreamingVAEDecode,
    VideoFrames,
    DemoModel,
)
"""In order of worth; the ids in them are for ever."""


class HiStreamExtension(ComfyExtension):
    async def get_node_list(self):
        return list(NODES)
