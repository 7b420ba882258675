"""What an artist chose, as values: how a MODEL is to be sampled, in which steps, with which window.

They travel on a MODEL and on a HISTREAM_SCHEDULE socket and become a plan when the size of the video is known.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from ..histream_core.plan.chunks import Plan
from ..histream_core.plan.make import PlanOptions, make_plan
from ..histream_core.plan.positions import TemporalPolicy
from ..histream_core.plan.presets import Preset, find_preset
from ..histream_core.plan.schedule import Schedule, parse_schedule
from ..histream_core.plan.sizes import PIXELS_PER_CELL
from ..histream_core.plan.window import Window

AUTO = "auto"
"""Widget value: whatever the MODEL says about itself."""

MAX_SEED = 0xFFFFFFFFFFFFFFFF

FALLBACK_PRESET = "self-forcing"
"""Of a MODEL that says nothing: most few-step causal Wan weights want these numbers."""

PRESET_KEY = "histream"
"""Where Load Model and Dual-Resolution Cache leave a `ModelSettings` on a MODEL."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How the two resolutions of a MODEL are made; None: as its preset says."""

    preset: str | None = None
    low_scale: float = 0.5
    ntk_low: float | None = None
    ntk_high: float | None = None
    temporal: str | None = None
    span: int | None = None
    resize: str = "bilinear"
    kv: str = "full"
    """One of TIERS: how keys and values lie in memory."""

    def temporal_policy(self, preset: Preset) -> TemporalPolicy:
        policy = preset.temporal()
        return replace(policy, kind=self.temporal or policy.kind, span=self.span or policy.span)


@dataclass(frozen=True, slots=True)
class StepChoice:
    """Which steps every chunk goes through: a mode of a preset, or a table of the artist's own."""

    mode: str = "histream"
    preset: str | None = None
    table: str = ""
    shift_low: float | None = None
    shift_high: float | None = None

    def resolve(self, settings: ModelSettings) -> tuple[Preset, Schedule]:
        """The preset in force and its steps; raises ValueError for a table that cannot be read."""
        preset = find_preset(self.preset or settings.preset or FALLBACK_PRESET)
        preset = replace(
            preset,
            shift_low=self.shift_low or preset.shift_low,
            shift_high=self.shift_high or preset.shift_high,
        )
        if not self.table.strip():
            return preset, preset.schedule(self.mode)
        return preset, parse_schedule(self.table, shift_low=preset.shift_low, shift_high=preset.shift_high)


@dataclass(frozen=True, slots=True)
class WindowChoice:
    """Which earlier frames a chunk sees; None: as the preset says."""

    chunk_frames: int | None = None
    anchor_frames: int | None = None
    local_frames: int | None = None
    anchor_match: float = 0.0
    """How far chunks are pulled to the statistics of the first one."""

    def window(self, preset: Preset) -> Window:
        def chosen(value: int | None, default: int | None) -> int | None:
            return default if value is None else value

        return Window(
            chosen(self.chunk_frames, preset.chunk_frames),
            chosen(self.anchor_frames, preset.anchor_frames),
            chosen(self.local_frames, preset.local_frames),
        )


@dataclass(frozen=True, slots=True)
class VideoChoice:
    """What becomes of a video while it is made: where its run is kept, as which file, and what a stop leaves."""

    folder: str = "histream/run"
    """Under the host's output folder; each run gets a number behind it."""
    format: str = "h264-mp4"
    depth: int | None = None
    fps: float = 16.0
    crop: bool = True
    """Whether 1088 rows become the 1080 that were wanted."""
    section_files: bool = False
    snapshots: int = 0
    """Chunks between two snapshots of the caches; 0: none."""
    resume: bool = True
    """Whether a run that is the same in all is gone on with."""
    discard: bool = False
    """Whether a run that is cancelled is removed."""
    sound: bytes | None = field(default=None, repr=False)
    """What goes into the file as it is, packed by `pack_sound`."""


def plan_for(
    settings: ModelSettings,
    steps: StepChoice,
    window: WindowChoice,
    shape: Sequence[int],
    *,
    levers: Collection[str] = (),
    given_frames: int = 0,
) -> Plan:
    """The plan of a LATENT of `shape` [B, 16, T, H, W]; raises ValueError with sizes or numbers that would work.

    `given_frames` are the latent frames that a first frame stands for.
    """
    if len(shape) != 5 or shape[1] != 16:
        raise ValueError(
            f"the LATENT has shape {list(shape)}, not [batch, 16, frames, height, width]: "
            "use EmptyHunyuanLatentVideo or another empty latent of Wan 2.1"
        )
    preset, schedule = steps.resolve(settings)
    chosen = window.window(preset)
    if given_frames not in (0, 1, chosen.chunk_frames):
        raise ValueError(
            f"the first frame is held for {given_frames} latent frames and a chunk has {chosen.chunk_frames}: "
            f"set hold to 1 or {chosen.chunk_frames}"
        )
    return make_plan(
        preset,
        steps.mode,
        size=(shape[4] * PIXELS_PER_CELL, shape[3] * PIXELS_PER_CELL),
        num_latent_frames=shape[2],
        options=PlanOptions(
            schedule=schedule,
            window=chosen,
            temporal=settings.temporal_policy(preset),
            low_scale=settings.low_scale,
            ntk_low=settings.ntk_low,
            ntk_high=settings.ntk_high,
            resize=settings.resize,
            levers=levers,
            anchor_match=window.anchor_match,
            given_frames=given_frames,
            first_frame=given_frames > 0,
        ),
    )
