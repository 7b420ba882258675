"""Plans from presets: a value that is not given is taken from the preset."""

from dataclasses import dataclass, replace

from .anchoring import FIRST_FRAMES, AnchorSource
from .chunks import Plan
from .entry import Restyle
from .guidance import NO_GUIDANCE, Guidance
from .histories import CLEAN
from .levers import POOLED_LOW, check_levers
from .order import CHUNKS
from .positions import TemporalPolicy
from .presets import MODES, Preset
from .schedule import Scale, Schedule
from .sinks import SinkRule
from .sizes import Grid, grid_for, low_grid, tokens_per_frame
from .window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """Options of a plan besides preset, mode, size and length; None: as the preset says."""

    schedule: Schedule | None = None
    window: Window | None = None
    temporal: TemporalPolicy | None = None
    low_scale: float = 0.5
    """Side of the LOW grid relative to the HIGH grid; 1 turns Dual-Resolution Caching off."""
    ntk_low: float | None = None
    ntk_high: float | None = None
    resize: str | None = None
    levers: tuple[str, ...] = ()
    anchor_match: float = 0.0
    given_frames: int = 0
    first_frame: bool = False
    restyle: Restyle | None = None
    histories: str = CLEAN
    order: str = CHUNKS
    sinks: SinkRule | None = None
    anchor_source: AnchorSource = FIRST_FRAMES
    guidance: Guidance = NO_GUIDANCE
    """This field and the nine above it have the meaning they have in `Plan`."""


DEFAULT_OPTIONS = PlanOptions()


def make_plan(
    preset: Preset,
    mode: str,
    *,
    size: tuple[int, int],
    num_latent_frames: int,
    options: PlanOptions = DEFAULT_OPTIONS,
) -> Plan:
    """Plan a video of `size` (width and height in pixels) and `num_latent_frames`, in one of MODES.

    Raises ValueError for impossible sizes, lengths and settings; the message has values that would work.
    """
    schedule = _schedule(preset, mode, options)
    levers = check_levers(options.levers)
    grids = _grids(size, schedule, options.low_scale)
    if POOLED_LOW in levers and Scale.LOW not in grids:
        raise ValueError(f"{POOLED_LOW} needs steps at LOW, and there are none: leave it out")
    high_definition = mode != "sd"
    scale = preset.first_chunk_attention_scale(tokens_per_frame(grids[Scale.HIGH])) if high_definition else 1.0
    return Plan(
        num_latent_frames=num_latent_frames,
        schedule=schedule,
        window=window_of(preset, mode, options.window),
        grids=grids,
        ntk=_ntk(preset, grids, options, high_definition=high_definition),
        temporal=options.temporal or preset.temporal(),
        resize=options.resize or preset.resize,
        levers=levers,
        anchor_match=options.anchor_match,
        first_chunk_attention=scale,
        given_frames=options.given_frames,
        first_frame=options.first_frame,
        restyle=options.restyle,
        histories=options.histories,
        order=options.order,
        sinks=options.sinks,
        anchor_source=options.anchor_source,
        guidance=options.guidance,
        second_weights=preset.second_weights,
    )


def size_to_generate(
    preset: Preset, mode: str, size: tuple[int, int], options: PlanOptions = DEFAULT_OPTIONS
) -> tuple[int, int]:
    """The smallest size that can be generated and holds a picture of `size` (width and height in pixels)."""
    if all(side % 32 == 0 for side in size):
        return size
    multiple = _multiple(_schedule(preset, mode, options), options.low_scale)
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


def describe_crop(generated: tuple[int, int], size: tuple[int, int]) -> list[str]:
    """Describe in a line what is generated for a picture of `size`; no line where it is that size."""
    if generated == tuple(size):
        return []
    return [f"{generated[0]}x{generated[1]} is generated and cropped to {size[0]}x{size[1]} at the centre"]


def _schedule(preset: Preset, mode: str, options: PlanOptions) -> Schedule:
    if mode not in MODES:
        raise ValueError(f'mode "{mode}" does not exist: use one of {", ".join(MODES)}')
    return options.schedule or preset.schedule(mode)


def window_of(preset: Preset, mode: str, window: Window | None = None) -> Window:
    """The window of a plan: `window`, else that of the preset; without an end in the mode that sees the history."""
    window = window or Window(preset.chunk_frames, preset.anchor_frames, preset.local_frames)
    return replace(window, local_frames=None) if mode == "history" else window


def _grids(size: tuple[int, int], schedule: Schedule, low_scale: float) -> dict[Scale, Grid]:
    high = grid_for(*size, multiple=_multiple(schedule, low_scale))
    return {Scale.HIGH: high} | ({Scale.LOW: low_grid(high, low_scale)} if _has_low(schedule) else {})


def _has_low(schedule: Schedule) -> bool:
    return any(step.scale is Scale.LOW for steps in schedule for step in steps)


def _multiple(schedule: Schedule, low_scale: float) -> int:
    """Number of pixels of which a side must be a multiple."""
    return 32 if _has_low(schedule) and low_scale != 1 else 16


def _ntk(
    preset: Preset, grids: dict[Scale, Grid], options: PlanOptions, *, high_definition: bool
) -> dict[Scale, float]:
    """NTK factors: the given ones, else the preset's, else 1; all in the form of the preset."""
    given = {Scale.LOW: options.ntk_low, Scale.HIGH: options.ntk_high}
    usual = {Scale.LOW: preset.ntk_low, Scale.HIGH: preset.ntk_high}
    return {
        scale: preset.ntk(tokens_per_frame(grid), given[scale] or usual[scale])
        if high_definition or given[scale]
        else 1.0
        for scale, grid in grids.items()
    }
