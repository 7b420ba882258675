"""The artist's choices as values: settings of a MODEL, steps, window and video.

They travel on a MODEL and on a HISTREAM_SCHEDULE socket and become a plan when the size of the video is known.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from ..histream_core.network.forward import check_sets
from ..histream_core.parallel.engine import Engine
from ..histream_core.plan.chunks import Plan
from ..histream_core.plan.entry import Restyle
from ..histream_core.plan.guidance import NO_GUIDANCE, Guidance
from ..histream_core.plan.make import PlanOptions, make_plan, size_to_generate
from ..histream_core.plan.positions import TemporalPolicy
from ..histream_core.plan.presets import Preset, find_preset
from ..histream_core.plan.schedule import Schedule, parse_schedule
from ..histream_core.plan.sizes import PIXELS_PER_CELL
from ..histream_core.plan.window import Window

AUTO = "auto"
"""Widget value: take the preset from the MODEL."""

MAX_SEED = 0xFFFFFFFFFFFFFFFF

FALLBACK_PRESET = "self-forcing"
"""The preset of a MODEL without settings: it suits most few-step causal Wan weights."""

PRESET_KEY = "histream"
"""Key under which Load Model and Dual-Resolution Cache store a `ModelSettings` on a MODEL."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Settings of the two resolutions of a MODEL; None: from its preset."""

    preset: str | None = None
    low_scale: float = 0.5
    ntk_low: float | None = None
    ntk_high: float | None = None
    temporal: str | None = None
    span: int | None = None
    resize: str | None = None
    kv: str = "full"
    """The memory tier of keys and values, one of TIERS."""
    demo: bool = False
    """Whether it is the bundled demo model."""
    second: bool = False
    """Whether it has a second set of weights, for cache passes."""
    engine: Engine | None = None
    """The devices that compute a run together; None: one, by the host's own attention."""
    guidance: Guidance = NO_GUIDANCE
    """How far videos are led away from `negative`."""
    negative: Sequence | None = field(default=None, repr=False, compare=False)
    """The negative prompt, a CONDITIONING."""

    def temporal_policy(self, preset: Preset) -> TemporalPolicy:
        """The rule for times; one with a span of its own is clamped, as on the command line."""
        if self.span:
            return TemporalPolicy(span=self.span)
        policy = preset.temporal()
        return replace(policy, kind=self.temporal or policy.kind)


@dataclass(frozen=True, slots=True)
class StepChoice:
    """The steps of every chunk: a mode of a preset, or the artist's own table."""

    mode: str = "histream"
    preset: str | None = None
    table: str = ""
    shift_low: float | None = None
    shift_high: float | None = None
    restyle: Restyle | None = None
    """How chunks begin with a source, for a run that restyles a video."""

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
    """The earlier frames that a chunk sees; None: from the preset."""

    chunk_frames: int | None = None
    anchor_frames: int | None = None
    local_frames: int | None = None
    anchor_match: float = 0.0
    """How far chunks are moved to the statistics of their prompt's first chunk, from 0 to 1."""

    def window(self, preset: Preset) -> Window:
        return Window(
            preset.chunk_frames if self.chunk_frames is None else self.chunk_frames,
            preset.anchor_frames if self.anchor_frames is None else self.anchor_frames,
            preset.local_frames if self.local_frames is None else self.local_frames,
        )


@dataclass(frozen=True, slots=True)
class VideoChoice:
    """The output of a run: its folder, the format of its file, and what stays after a stop."""

    folder: str = "histream/run"
    """Under the host's output folder; each run gets a number behind it."""
    format: str = "h264-mp4"
    depth: int | None = None
    fps: float = 16.0
    crop: bool = True
    """Whether 1088 rows or columns are cropped to 1080."""
    section_files: bool = False
    snapshots: int = 0
    """Chunks between two snapshots of the caches; 0: none."""
    resume: bool = True
    """Whether an equal run that exists is resumed."""
    discard: bool = False
    """Whether a run that is cancelled is removed."""
    sound: bytes | None = field(default=None, repr=False)
    """Sound that is copied into the file, packed by `pack_sound`."""


def generated_size(settings: ModelSettings, steps: StepChoice, size: tuple[int, int]) -> tuple[int, int]:
    """The smallest size that can be generated and holds a picture of `size`; raises ValueError as `plan_for`."""
    preset, schedule = steps.resolve(settings)
    options = PlanOptions(schedule=schedule, low_scale=settings.low_scale)
    return size_to_generate(preset, steps.mode, size, options)


def plan_for(
    settings: ModelSettings,
    steps: StepChoice,
    window: WindowChoice,
    shape: Sequence[int],
    *,
    levers: Collection[str] = (),
) -> Plan:
    """The plan of a LATENT of `shape` [B, 16, T, H, W], which may be larger, to be cropped to the size of the LATENT.

    Raises ValueError with sizes or numbers that would work.
    """
    if len(shape) != 5 or shape[1] != 16:
        raise ValueError(
            f"the LATENT has shape {list(shape)}, not [batch, 16, frames, height, width]: "
            "use EmptyHunyuanLatentVideo or another empty latent of Wan 2.1"
        )
    preset, schedule = steps.resolve(settings)
    plan = make_plan(
        preset,
        steps.mode,
        size=generated_size(settings, steps, (shape[4] * PIXELS_PER_CELL, shape[3] * PIXELS_PER_CELL)),
        num_latent_frames=shape[2],
        options=PlanOptions(
            schedule=schedule,
            window=window.window(preset),
            temporal=settings.temporal_policy(preset),
            low_scale=settings.low_scale,
            ntk_low=settings.ntk_low,
            ntk_high=settings.ntk_high,
            resize=settings.resize,
            levers=tuple(levers),
            anchor_match=window.anchor_match,
            restyle=steps.restyle,
            guidance=settings.guidance,
        ),
    )
    check_sets(plan, settings.second)
    return plan


@dataclass(frozen=True, slots=True)
class ShotChoice:
    """The options of all shots of a list that do not name them; a model without VAE and text encoder is the demo's."""

    model: str
    vae: str | None
    text_encoder: str | None
    frames: int
    size: tuple[int, int]
    fps: float
    seed: int
    """The seed of the first shot; each other one has the next."""
