"""What to generate and in which order: pure values, no tensors.

A plan decides every number of a run but the noise: two runs of one plan with the same weights, prompts and seed
give the same video. Every ablation is a value in it, never a branch in the engine.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from .blocks import Blocks, blocks_for
from .levers import CLEAN_ANCHOR, LAST_STEP, POOLED_LOW, SPARSE, SURVIVORS, check_levers
from .positions import TemporalPolicy
from .presets import MODES, Preset
from .schedule import Scale, Schedule, Step, Steps

Grid = tuple[int, int]
"""Height and width, in latent cells (an eighth of the pixels)."""

PIXELS_PER_CELL = 8
PIXEL_FRAMES_PER_LATENT = 4
TOKENS_PER_CELL = 4
"""A token covers 2x2 latent cells."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which earlier frames a chunk sees: the anchor's `anchor_frames` and the `local_frames` just before it.

    `local_frames` None is the full history.
    """

    chunk_frames: int = 3
    anchor_frames: int = 1
    local_frames: int | None = 2

    def __post_init__(self):
        if self.chunk_frames < 1:
            raise ValueError(f"chunk_frames {self.chunk_frames} makes no chunk: use 3, or at least 1")
        if self.anchor_frames < 0 or (self.local_frames or 0) < 0:
            raise ValueError("anchor and local frames cannot be negative: use anchor 1 and local 2")

    def context(self, start: int, anchor: int = 0, scene: int = 0) -> tuple[int, ...]:
        """The frames seen by the chunk at frame `start`, in temporal order, none of them before frame `scene`.

        `anchor` is the first of its anchor.
        """
        if self.local_frames is None:
            return tuple(range(scene, start))
        anchors = range(anchor, min(anchor + self.anchor_frames, start))
        seen = {*anchors, *range(max(0, start - self.local_frames), start)}
        return tuple(sorted(frame for frame in seen if frame >= scene))

    def pages(self, num_frames: int) -> tuple[int, int]:
        """Cache pages for anchors and for the ring behind them, in a video of `num_frames` latent frames."""
        if self.local_frames is None:
            return 0, num_frames
        return self.anchor_frames, self.local_frames + self.chunk_frames

    def past_frames(self, num_frames: int) -> int:
        """Frames that a chunk sees besides itself and the anchors, at most, in a video of that length."""
        return max(0, self.pages(num_frames)[1] - self.chunk_frames)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Latent frames generated together, the frames they look at, and the network calls they take."""

    index: int
    frames: range
    context: tuple[int, ...]
    steps: Steps
    """Denoising calls; none where the clean latent is given (a first frame, a continuation)."""
    cache_steps: Steps
    """Calls at sigma 0 that write the finished chunk into the caches; none for the last chunk."""
    cached: tuple[int, ...] = ()
    """The frames that those calls compute: all of the chunk, or those that later chunks see."""
    kept: Step | None = None
    """The last step, where its keys and values stay in its cache in place of those of a cache step."""

    @property
    def first_pixel_frame(self) -> int:
        """The number of its first frame in the video: latent frame 0 is one frame, every other four."""
        return max(0, 1 + PIXEL_FRAMES_PER_LATENT * (self.frames.start - 1))


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides the numbers of a run, but weights, prompts and noise."""

    chunks: tuple[Chunk, ...]
    num_frames: int
    """Latent frames asked for; the last chunk is generated whole and cropped to it."""
    grids: Mapping[Scale, Grid]
    """Latent size at every scale that some step uses."""
    ntk: Mapping[Scale, float]
    window: Window
    temporal: TemporalPolicy
    resize: str = "bilinear"
    levers: tuple[str, ...] = ()
    """What is approximated, of LEVERS; what the chunks say follows from it, but for where LOW keys come from."""
    anchors: tuple[int, ...] = (0,)
    """The first frame of each anchor. It takes the place of the one before for all chunks behind its own."""
    anchor_match: float = 0.0
    """How far chunks are pulled to the statistics of their prompt's first one: 0 not at all, 1 all the way."""

    def __post_init__(self):
        if not 0 <= self.anchor_match <= 1:
            raise ValueError(f"an anchor match of {self.anchor_match:g} is no share: use 0 for none, 0.5, or at most 1")

    @property
    def pooled_low(self) -> bool:
        """Whether what is kept of a pass at HIGH is kept at LOW too, averaged."""
        return POOLED_LOW in self.levers

    def blocks(self, scale: Scale) -> Blocks | None:
        """Of queries and keys, where chunks that see a past see a part of it; None where they see all."""
        sparse = SPARSE in self.levers and scale is Scale.HIGH
        return blocks_for(self.tokens_per_frame(scale)) if sparse else None

    @property
    def keeps_steps(self) -> bool:
        """Whether keys of last steps are kept, so that a run that goes on has to know what these began with."""
        return LAST_STEP in self.levers or CLEAN_ANCHOR in self.levers

    @property
    def cached_scales(self) -> tuple[Scale, ...]:
        """The scales whose caches take a pass of their own."""
        return tuple(scale for scale in self.grids if not (self.pooled_low and scale is Scale.LOW))

    @property
    def pixel_frames(self) -> int:
        return pixel_frames(self.num_frames)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.grids[Scale.HIGH]
        return width * PIXELS_PER_CELL, height * PIXELS_PER_CELL

    @property
    def cached_frames(self) -> int:
        """Latent frames the caches must be able to name: whole chunks, also where the end is cropped."""
        return self.chunks[-1].frames.stop

    @property
    def pages(self) -> tuple[int, int]:
        """Cache pages for anchors and for the ring behind them: while an anchor gives way there are two."""
        anchors, ring = self.window.pages(self.cached_frames)
        return anchors * min(2, len(self.anchors)), ring

    @property
    def moving_anchor(self) -> bool:
        """True where the video is long enough for an anchor to be moved along."""
        return any(
            self.temporal.anchor_time(chunk.frames.start, anchor) != self.temporal.chunk_time(anchor)
            for chunk in self.chunks
            for anchor in [self.anchor(chunk.frames.start)]
        )

    def anchor(self, start: int) -> int:
        """The first frame of the anchor that the chunk at frame `start` sees."""
        return anchor_before(self.anchors, start)

    @property
    def scenes(self) -> tuple[int, ...]:
        """The first frame of each scene: of what came before it, nothing is seen any more."""
        starts = [chunk.frames.start for chunk in self.chunks if not chunk.context]
        return tuple(start for start in starts if not start or self.window.context(start, self.anchor(start)))

    def context(self, start: int) -> tuple[int, ...]:
        """The frames seen by the chunk that starts at frame `start`, in temporal order."""
        return self.window.context(start, self.anchor(start), scene_at(self.scenes, start))

    def tokens_per_frame(self, scale: Scale) -> int:
        return tokens_per_frame(self.grids[scale])

    def num_steps(self) -> int:
        """Denoising calls in all; what a progress bar counts."""
        return sum(len(chunk.steps) for chunk in self.chunks)


def anchor_before(anchors: Sequence[int], start: int) -> int:
    """The last of `anchors`, first frames in order, before frame `start`; 0 where there is none."""
    return anchors[max(0, bisect_left(anchors, start) - 1)]


def scene_at(scenes: Sequence[int], frame: int) -> int:
    """The last of `scenes`, first frames in order from 0 on, that has begun at a frame."""
    return scenes[bisect_right(scenes, frame) - 1]


def tokens_per_frame(grid: Grid) -> int:
    return grid[0] * grid[1] // TOKENS_PER_CELL


def pixel_frames(latent_frames: int) -> int:
    """A latent frame is 4 pixel frames, but the first is one."""
    return 1 + PIXEL_FRAMES_PER_LATENT * (latent_frames - 1)


def latent_frames(pixel_frames: int) -> int:
    """Latent frames of a clip of 4n + 1 pixel frames; raises ValueError that names the nearest such lengths."""
    if pixel_frames < 1:
        raise ValueError(f"a video of {pixel_frames} frames is empty: ask for 81, or at least 1")
    extra = (pixel_frames - 1) % PIXEL_FRAMES_PER_LATENT
    if extra:
        below = pixel_frames - extra
        raise ValueError(
            f"{pixel_frames} frames is not of the form 4n + 1: use {below} or {below + PIXEL_FRAMES_PER_LATENT}"
        )
    return 1 + pixel_frames // PIXEL_FRAMES_PER_LATENT


def whole_length(num_frames: int) -> int:
    """The next 4n + 1, which is what the VAE can make. Raises ValueError for none."""
    if num_frames < 1:
        raise ValueError(f"a video of {num_frames} frames is empty: ask for 81, or at least 1")
    return 1 + -(-(num_frames - 1) // PIXEL_FRAMES_PER_LATENT) * PIXEL_FRAMES_PER_LATENT


def grid_for(width: int, height: int, *, multiple: int = 32) -> Grid:
    """The latent grid of a pixel size; raises ValueError that names the nearest sizes that would work.

    Multiples of 32 keep the half grid of Dual-Resolution Caching whole; 16 is enough without it.
    """
    for name, pixels in (("width", width), ("height", height)):
        if pixels < multiple or pixels % multiple:
            below = max(multiple, pixels // multiple * multiple)
            fixes = " or ".join(str(fix) for fix in dict.fromkeys((below, below + multiple * (pixels >= multiple))))
            raise ValueError(f"{name} {pixels} is not a multiple of {multiple}: use {fixes}")
    return height // PIXELS_PER_CELL, width // PIXELS_PER_CELL


def plan_chunks(
    num_frames: int,
    schedule: Schedule,
    window: Window,
    *,
    given_frames: int = 0,
    first_frame: bool = False,
    first_chunk_scale: float = 1.0,
    levers: Collection[str] = (),
    anchors: Sequence[int] = (0,),
    scenes: Sequence[int] = (0,),
) -> tuple[Chunk, ...]:
    """Split `num_frames` latent frames into chunks that each see the anchor and their neighbours.

    With `first_frame` the grid is 1 + 3k: chunk 0 is that one frame, or a whole chunk where so many frames are given,
    and the first chunk that is denoised takes the first steps. The first `given_frames` are not denoised, only cached;
    they must be whole chunks. A length that is not whole chunks gets one chunk more, to be cropped.
    `first_chunk_scale` is the attention scale of HIGH in chunk 0. `levers`, some of LEVERS, change what is kept of the
    chunks. `anchors` and `scenes` are those of `Plan`; the first chunk of each scene is like that of a video.

    >>> [(c.frames, c.context) for c in plan_chunks(9, ((Step(1.0, Scale.HIGH),),), Window())]
    [(range(0, 3), ()), (range(3, 6), (0, 1, 2)), (range(6, 9), (0, 4, 5))]
    """
    if num_frames < 1:
        raise ValueError(f"a video of {num_frames} latent frames is empty: ask for 21, or at least 1")
    size = window.chunk_frames
    held = first_frame and given_frames == size
    stops = range(1 if first_frame and not held else size, num_frames + size, size)
    starts = (0, *stops)
    if given_frames not in starts:
        raise ValueError(
            f"{given_frames} given latent frames are not whole chunks: give {', '.join(map(str, starts[:4]))}, ..."
        )
    if given_frames >= num_frames:
        raise ValueError(f"{given_frames} latent frames are given but only {num_frames} asked for: ask for more frames")
    scales = sorted({step.scale for steps in schedule for step in steps}, key=lambda scale: scale is Scale.LOW)
    levers = check_levers(levers)
    chunks = []
    for index, (start, stop) in enumerate(zip(starts, stops, strict=False)):
        steps = schedule[0 if start in scenes else min(max(0, index - first_frame), len(schedule) - 1)]
        cache_steps = tuple(Step(0.0, scale) for scale in scales)
        if start in scenes:
            steps, cache_steps = (_heighten(calls, first_chunk_scale) for calls in (steps, cache_steps))
        chunk = Chunk(
            index,
            frames=range(start, stop),
            context=window.context(start, anchor_before(anchors, start), scene_at(scenes, start)),
            steps=steps if stop > given_frames else (),
            cache_steps=cache_steps if stop < num_frames and stop not in scenes else (),
        )
        chunks.append(_with_levers(chunk, window, levers, anchors))
    return tuple(chunks)


def _with_levers(chunk: Chunk, window: Window, levers: Collection[str], anchors: Sequence[int]) -> Chunk:
    """A chunk with all its cache steps, as the levers would have it."""
    if not chunk.cache_steps:
        return chunk
    later = window.context(chunk.frames.stop, anchor_before(anchors, chunk.frames.stop))
    cached = tuple(frame for frame in chunk.frames if frame in later or SURVIVORS not in levers)
    drop = {Scale.LOW} if POOLED_LOW in levers else set()
    holds_anchor = any(0 <= frame - anchor < window.anchor_frames for frame in chunk.frames for anchor in anchors)
    kept = None
    if chunk.steps and (LAST_STEP in levers or (CLEAN_ANCHOR in levers and not holds_anchor)):
        kept = chunk.steps[-1]
        drop.add(kept.scale)
    cache_steps = tuple(step for step in chunk.cache_steps if step.scale not in drop)
    return replace(chunk, cache_steps=cache_steps, cached=cached if cache_steps else (), kept=kept)


def make_plan(
    preset: Preset,
    mode: str,
    *,
    width: int,
    height: int,
    num_frames: int,
    schedule: Schedule | None = None,
    window: Window | None = None,
    temporal: TemporalPolicy | None = None,
    low_scale: float = 0.5,
    ntk_low: float | None = None,
    ntk_high: float | None = None,
    resize: str = "bilinear",
    given_frames: int = 0,
    first_frame: bool = False,
    levers: Collection[str] = (),
    anchor_match: float = 0.0,
) -> Plan:
    """Plan a video of `num_frames` latent frames in one of MODES; every argument that is given beats the preset.

    Raises ValueError for sizes, lengths and settings that cannot work, naming ones that would.
    """
    if mode not in MODES:
        raise ValueError(f'mode "{mode}" does not exist: use one of {", ".join(MODES)}')
    schedule = schedule or preset.schedule(mode)
    levers = check_levers(levers)
    has_low = any(step.scale is Scale.LOW for steps in schedule for step in steps)
    if POOLED_LOW in levers and not has_low:
        raise ValueError(f"{POOLED_LOW} needs steps at LOW, and there are none: leave it out")
    high = grid_for(width, height, multiple=32 if has_low and low_scale != 1 else 16)
    grids = {Scale.HIGH: high} | ({Scale.LOW: _scaled(high, low_scale)} if has_low else {})
    hd = mode != "sd"
    asked = {Scale.LOW: (ntk_low, preset.ntk_low), Scale.HIGH: (ntk_high, preset.ntk_high)}
    ntk = {
        scale: asked[scale][0] or (preset.ntk(tokens_per_frame(grid), asked[scale][1]) if hd else 1.0)
        for scale, grid in grids.items()
    }
    window = window or Window(preset.chunk_frames, preset.anchor_frames, preset.local_frames)
    if mode == "history":
        window = replace(window, local_frames=None)
    return Plan(
        chunks=plan_chunks(
            num_frames,
            schedule,
            window,
            given_frames=given_frames,
            first_frame=first_frame,
            first_chunk_scale=preset.first_chunk_attention_scale(tokens_per_frame(high)) if hd else 1.0,
            levers=levers,
        ),
        num_frames=num_frames,
        grids=grids,
        ntk=ntk,
        window=window,
        temporal=temporal or preset.temporal(),
        resize=resize,
        levers=levers,
        anchor_match=anchor_match,
    )


def replay(plan: Plan, num_chunks: int) -> Plan:
    """The same plan where the clean latents of the first `num_chunks` chunks are given instead of denoised.

    Where a chunk's `kept` step stays in the caches, that step is computed again on the noisy latent that it began with.
    """
    if not 0 <= num_chunks <= len(plan.chunks):
        raise ValueError(f"{num_chunks} chunks cannot be given: the plan has {len(plan.chunks)}")
    chunks = tuple(replace(chunk, steps=()) if chunk.index < num_chunks else chunk for chunk in plan.chunks)
    return replace(plan, chunks=chunks)


def lengthen(plan: Plan, num_frames: int, steps: Steps | None = None) -> Plan:
    """The same plan for more latent frames, in which new chunks take `steps`, by default those of the last chunk.

    Raises ValueError where it would not be longer, and for a plan of one chunk without `steps`: it does not say what
    a later chunk takes.
    """
    if num_frames <= plan.num_frames:
        raise ValueError(
            f"{pixel_frames(num_frames)} frames are not more than the {plan.pixel_frames} there are: ask for more"
        )
    if len(plan.chunks) == 1 and steps is None:
        raise ValueError("a plan of one chunk does not tell the steps of later ones: give them")
    return _planned_again(plan, num_frames, plan.scenes, steps)


def with_anchors(plan: Plan, anchors: Sequence[int], scenes: Sequence[int] = ()) -> Plan:
    """The same plan with these frames as the first ones of its anchors; 0 is always one of them.

    A chunk that begins at a new anchor still sees the one before; all later ones see the new one. `scenes` are anchors
    too, and nothing before them is seen from there on; those that the plan has stay where their anchor stays. Raises
    ValueError for a frame that no chunk begins at, for anchors that come too close, and for a window without an anchor.
    """
    anchors = tuple(sorted({0, *anchors, *scenes}))
    scenes = tuple(sorted({*scenes, *(scene for scene in plan.scenes if scene in anchors)}))
    if (anchors, scenes) == (plan.anchors, plan.scenes):
        return plan
    _check_anchors(plan, anchors)
    return _planned_again(plan, plan.num_frames, scenes, anchors=anchors)


def _check_anchors(plan: Plan, anchors: Sequence[int]) -> None:
    window, starts = plan.window, [chunk.frames.start for chunk in plan.chunks]
    if window.local_frames is None or not window.anchor_frames:
        why = "every chunk sees the whole video" if window.local_frames is None else "there are no anchor frames"
        raise ValueError(f"{why}, so there is no anchor to be changed: leave the new anchor out")
    for index, anchor in enumerate(anchors[1:], start=1):
        earliest = anchors[index - 1] + window.anchor_frames
        if index > 1:  # its room in the caches is that of the last but one, of which nothing may be seen any more
            earliest = max(earliest, anchors[index - 2] + window.anchor_frames + window.local_frames)
        if anchor < earliest:
            raise ValueError(
                f"a new anchor at latent frame {anchor} comes too soon after the one at {anchors[index - 1]}: "
                f"let it be at {earliest} or later"
            )
        if anchor not in starts:
            near = min(starts, key=lambda start: abs(start - anchor))
            raise ValueError(f"no chunk begins at latent frame {anchor}, so it cannot be a new anchor: use {near}")


def _planned_again(
    plan: Plan,
    num_frames: int,
    scenes: Sequence[int],
    steps: Steps | None = None,
    *,
    anchors: Sequence[int] | None = None,
) -> Plan:
    """The plan for so many frames: its chunks take the steps that they had, later ones `steps`, or those of the last.

    Where a scene begins, or does so no more, a chunk takes those of the first chunk, or of later ones.
    """
    old, anchors = plan.chunks, anchors or plan.anchors
    calls = (*old[0].steps, *old[0].cache_steps)
    later = [chunk.steps for chunk in old if chunk.frames.start not in plan.scenes]
    new = plan_chunks(
        num_frames,
        (next((chunk.steps for chunk in old if chunk.steps), ()), steps or [old[0].steps, *later][-1]),
        plan.window,
        first_frame=len(old[0].frames) < plan.window.chunk_frames,
        first_chunk_scale=next((call.attention_scale for call in calls if call.scale is Scale.HIGH), 1.0),
        anchors=anchors,
        scenes=scenes,
    )
    changed = {*plan.scenes} ^ {*scenes}
    begun = (
        chunk if chunk.frames.start in changed else replace(chunk, steps=was.steps)
        for was, chunk in zip(old, new, strict=False)
    )
    chunks = tuple(_with_levers(chunk, plan.window, plan.levers, anchors) for chunk in (*begun, *new[len(old) :]))
    return replace(plan, chunks=chunks, num_frames=num_frames, anchors=anchors)


def _scaled(grid: Grid, scale: float) -> Grid:
    low = tuple(int(cells * scale) for cells in grid)
    if not 0 < scale <= 1 or any(
        cells * scale != fit or fit % 2 or not fit for cells, fit in zip(grid, low, strict=True)
    ):
        raise ValueError(
            f"low_scale {scale:g} of a {grid[1]}x{grid[0]} latent is not an even number of cells: "
            "use 0.5 with a size whose sides are multiples of 32"
        )
    return low


def _heighten(steps: Steps, factor: float) -> Steps:
    return tuple(replace(step, attention_scale=factor) if step.scale is Scale.HIGH else step for step in steps)
