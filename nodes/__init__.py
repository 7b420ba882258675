"""The nodes: thin, over the engine in histream_core; `host` is the one adapter between the two."""

from . import renamed
from .host.api import ComfyExtension
from .model.demo_model import DemoModel
from .model.dual_resolution_cache import DualResolutionCache
from .model.engine import EngineNode, ReleaseWorkers
from .model.load_model import LoadModel
from .model.memory_plan import MemoryPlan
from .model.speed import SpeedNode
from .runs.branch_run import BranchRun
from .runs.clean_run import CleanRun
from .runs.extend_run import ExtendRun
from .runs.farm import FarmCollect, FarmSubmit
from .runs.list_runs import ListRuns
from .runs.resume_run import ResumeRun
from .sampling.anchor_window_sampler import AnchorWindowSampler, AnchorWindowSamplerSelect
from .sampling.first_frame import FirstFrameNode
from .sampling.prompt_timeline import PromptTimeline, TimelineSection
from .sampling.step_schedule import StepSchedule
from .video.demo_video import DemoVideo
from .video.drift_meter import DriftMeter
from .video.live import Live
from .video.ranges_to_video import RangesToVideo
from .video.streaming_vae_decode import StreamingVAEDecode
from .video.video_frames import VideoFrames
from .video.video_output import VideoOutputNode
from .video.video_to_video import VideoToVideo

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
    VideoToVideo,
    DemoVideo,
    Live,
    EngineNode,
    ReleaseWorkers,
    FarmSubmit,
    FarmCollect,
)
"""In order of worth; the ids in them are for ever."""


class HiStreamExtension(ComfyExtension):
    async def on_load(self):
        await renamed.register()

    async def get_node_list(self):
        return list(NODES)
