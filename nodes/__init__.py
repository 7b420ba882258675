"""The nodes: thin, over the engine in histream_core; `host` is the one adapter between the two."""

from . import renamed
from .anchor_window_sampler import AnchorWindowSampler, AnchorWindowSamplerSelect
from .api import ComfyExtension
from .branch_run import BranchRun
from .clean_run import CleanRun
from .demo_model import DemoModel
from .drift_meter import DriftMeter
from .dual_resolution_cache import DualResolutionCache
from .extend_run import ExtendRun
from .first_frame import FirstFrameNode
from .list_runs import ListRuns
from .load_model import LoadModel
from .memory_plan import MemoryPlan
from .prompt_timeline import PromptTimeline, TimelineSection
from .ranges_to_video import RangesToVideo
from .resume_run import ResumeRun
from .speed import SpeedNode
from .step_schedule import StepSchedule
from .streaming_vae_decode import StreamingVAEDecode
from .video_frames import VideoFrames
from .video_output import VideoOutputNode

NODES = (
    LoadModel,
    DualResolutionCache,
    StepSchedule,
    SpeedNode,
    AnchorWindowSampler,
    AnchorWindowSamplerSelect,
    PromptTimeline,
    FirstFrameNode,
    StreamingVAEDecode,
    VideoOutputNode,
    MemoryPlan,
    ResumeRun,
    ExtendRun,
    BranchRun,
    TimelineSection,
    VideoFrames,
    RangesToVideo,
    ListRuns,
    CleanRun,
    DriftMeter,
    DemoModel,
)
"""In order of worth; the ids in them are for ever."""


class HiStreamExtension(ComfyExtension):
    async def on_load(self):
        await renamed.register()

    async def get_node_list(self):
        return list(NODES)
