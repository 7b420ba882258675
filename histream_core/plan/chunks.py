"""The plan of a run: a recipe from which every chunk is computed by its index. Pure values, no tensors.

A plan decides every number of a run except the noise: two runs of one plan with the same weights, prompts and seed
give the same video. Every ablation is a value in the plan, never a branch in the engine.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import overload

from .anchoring import FIRST_FRAMES, AnchorSource, check_anchors, check_source
from .blocks import Blocks, blocks_for
from .entry import Restyle
from .guidance import NO_GUIDANCE, Guidance
from .histories import CLEAN, EACH_STEP, Level, check_histories
from .levers import CLEAN_ANCHOR, LAST_STEP, POOLED_LOW, SPARSE, SURVIVORS, check_levers, check_second
from .order import BATCHED, CHUNKS, calls, check_order
from .positions import TemporalPolicy, check_jumps
from .schedule import MAX_STEPS, Scale, Schedule, SecondStep, Step, Steps, heightened
from .sinks import SinkRule, check_sinks
from .sizes import MAX_SIDE, PIXEL_FRAMES_PER_LATENT, PIXELS_PER_CELL, TOKENS_PER_CELL, Grid, pixel_frames
from .window import Window, check_rerotation

MAX_LATENT_FRAMES, MAX_HISTORY = 1_000_000_000, 5_001
"""Most latent frames of a plan, and of one whose chunks see the whole video: far more than any memory holds."""

MAX_FACTOR = 1e6

RESIZE_MODES = ("area-down", "bilinear", "bicubic", "area")
"""Ways to resize a latent; area-down: the mean of the cells downwards, bilinear upwards."""

ENDLESS = MAX_LATENT_FRAMES
"""Latent frames of a plan without an end, which no stream ever reaches. A chunk is computed by its index, so that their
number costs nothing; what goes through all chunks asks `Plan.endless` first."""

REMEMBERED = 256
"""Number of chunks that a plan keeps, so that they are not computed again."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Latent frames that are generated together, the frames they attend to, and the network calls they take."""

    index: int
    frames: range
    context: tuple[int, ...]
    steps: Steps
    """Denoising calls; empty where the clean latent is given (a first frame, a continuation)."""
    cache_steps: Steps
    """Calls at sigma 0 that write the finished chunk into the caches; empty for the last chunk."""
    cached: tuple[int, ...] = ()
    """The frames that the cache steps compute: all of the chunk, or only those that later chunks see."""
    kept: Step | None = None
    """The last step, if its keys and values stay in the cache instead of those of a cache step; else None."""
    keeps_all: bool = False
    """Whether the keys and values of every step stay, each in a cache of that step alone."""

    @property
    def visible_frames(self) -> int:
        """Number of latent frames that the chunk attends to, its own included."""
        return len(self.context) + len(self.frames)

    @property
    def first_pixel_frame(self) -> int:
        """Index in the video of the chunk's first pixel frame: latent frame 0 is one frame, every other is four."""
        return max(0, 1 + PIXEL_FRAMES_PER_LATENT * (self.frames.start - 1))


@dataclass(frozen=True)
class Plan:
    """The recipe of a run: everything that decides its numbers, except weights, prompts and noise.

    Chunks are computed from it (`chunk_at`, `chunks`); change a plan with `dataclasses.replace` on a field. `make_plan`
    makes one from a preset. A chunk is `window.chunk_frames` latent frames, counted from 0; the last one is generated
    whole and cropped. Raises ValueError for impossible lengths, with numbers that would work.
    """

    num_latent_frames: int
    """ENDLESS for a stream without an end."""
    schedule: Schedule
    """Steps of the first, second, ... chunk; the last entry serves all later ones. The first chunk of a scene takes
    the first entry."""
    window: Window
    grids: Mapping[Scale, Grid]
    """Latent size at every scale that a step uses."""
    ntk: Mapping[Scale, float]
    """NTK scaling factor of the spatial rotary axes at every scale."""
    temporal: TemporalPolicy
    resize: str = "bilinear"
    levers: tuple[str, ...] = ()
    """Names of the enabled approximations (keys of LEVERS)."""
    anchors: tuple[int, ...] = (0,)
    """The first frame of each anchor. An anchor replaces the one before it for all chunks after its own."""
    scenes: tuple[int, ...] = (0,)
    """The first frame of each scene; chunks of a scene see no frame before it."""
    jumps: tuple[int, ...] = ()
    """The first frames of chunks that stand by JUMP later for themselves, so that they leave behind what they see."""
    anchor_match: float = 0.0
    """How far a chunk is moved towards the statistics of its prompt's first chunk: 0 not at all, 1 completely."""
    first_chunk_attention: float = 1.0
    """Attention scale of the calls at HIGH in the first chunk of a scene, unless a call has its own scale."""
    given_frames: int = 0
    """Latent frames at the beginning that are given clean and only cached; whole chunks."""
    first_frame: bool = False
    """Whether the given frames are one picture. Then chunk 0 is that one frame, or a whole chunk if `given_frames` is a
    whole chunk, and the first chunk that is denoised takes the first entry of the schedule."""
    restyle: Restyle | None = None
    """How the chunks begin with a source, and with how much noise; None: with noise alone."""
    cropped_frames: int = 0
    """Pixel frames at the end that are not part of the video, 0 to 3: a source may have any number of frames."""
    replayed_chunks: int = 0
    """Chunks at the beginning that an earlier attempt has made: their clean latents are given. A chunk's `kept` step is
    computed again, from the noisy latent that it started from; with a history for each step all of its steps are."""
    histories: str = CLEAN
    """The history that a chunk sees, one of HISTORIES."""
    order: str = CHUNKS
    """The order in which steps are computed, one of ORDERS."""
    sinks: SinkRule | None = None
    """When a frame of the anchor is replaced; None: never. What a chunk then sees follows from finished frames, and
    `Chunk.context` lists the frames that it would see with the first anchor."""
    anchor_source: AnchorSource = FIRST_FRAMES
    """The content of the anchor while the video goes on."""
    guidance: Guidance = NO_GUIDANCE
    """How far the video is led away from a negative prompt."""
    second_weights: bool = False
    """Whether cache passes are computed by a second set of weights, as in SGF+."""

    def __post_init__(self):
        _check_sizes(self)
        _check_steps(self)
        _check_lengths(self)
        _check_starts(self)
        check_levers(self.levers)
        if self.second_weights:
            check_second(self.levers, self.histories)
        if self.temporal.kind == "rerotate":
            check_rerotation(self.temporal, self.window)
        if self.histories != CLEAN:
            check_histories(self.histories, self.levers, self._entered, self.given_frames)
        if self.order != CHUNKS:
            check_order(self)
        if self.sinks:
            check_sinks(self)
        if self.jumps:
            check_jumps(self)
        if self.anchor_source != FIRST_FRAMES:
            check_source(self)
        if not 0 <= self.anchor_match <= 1:
            raise ValueError(f"an anchor match of {self.anchor_match:g} is no share: use 0 for none, 0.5, or at most 1")

    @cached_property
    def chunks(self) -> "Chunks":
        """All chunks; each is computed when it is asked for."""
        return Chunks(self)

    @cached_property
    def largest_chunk(self) -> tuple[int, int]:
        """Most latent frames of a chunk, and most that one attends to. Not for an endless plan."""
        return max(len(chunk.frames) for chunk in self.chunks), max(chunk.visible_frames for chunk in self.chunks)

    @property
    def num_chunks(self) -> int:
        later = self.num_latent_frames - self.first_chunk_frames
        return 1 + max(0, -(-later // self.window.chunk_frames))

    @property
    def first_chunk_frames(self) -> int:
        """Number of latent frames in chunk 0."""
        alone = self.first_frame and self.given_frames != self.window.chunk_frames
        return 1 if alone else self.window.chunk_frames

    @property
    def given_chunks(self) -> int:
        """Number of chunks at the beginning that are given."""
        later = self.given_frames - self.first_chunk_frames
        return 1 + later // self.window.chunk_frames if self.given_frames else 0

    def chunk_at(self, index: int) -> Chunk:
        """Chunk `index`, counted from 0: its frames, the frames it sees, and its network calls."""
        frames = self._frames_at(index)
        begins_scene = frames.start in self.scenes
        entry = 0 if begins_scene else min(max(0, index - self.first_frame), len(self.schedule) - 1)
        steps, cache_steps = self.schedule[entry], tuple(map(self.cache_step, self._scales))
        if self.restyle:
            steps = self.restyle.enter(steps)
        if begins_scene:
            steps, cache_steps = (heightened(calls, self.first_chunk_attention) for calls in (steps, cache_steps))
        unchanged = self.restyle is not None and not self.restyle.share
        remembered = not unchanged and frames.stop < self.num_latent_frames and frames.stop not in self.scenes
        each_step = self.histories == EACH_STEP
        chunk = Chunk(
            index,
            frames=frames,
            context=() if unchanged else self.context(frames.start),
            steps=steps if frames.stop > self.given_frames else (),
            cache_steps=cache_steps if remembered and not each_step else (),
            keeps_all=remembered and each_step,
        )
        chunk = self._with_levers(chunk)
        return replace(chunk, steps=()) if index < self.replayed_chunks and not each_step else chunk

    def cache_step(self, scale: Scale) -> Step:
        """The pass that writes clean frames into the cache of a scale."""
        return SecondStep(0.0, scale) if self.second_weights else Step(0.0, scale)

    @property
    def _entered(self) -> tuple[Steps, ...]:
        """The steps of the schedule that are taken: the later ones where chunks begin with a source."""
        return tuple((self.restyle.enter(steps) if self.restyle else ()) or steps for steps in self.schedule)

    @property
    def _scales(self) -> list[Scale]:
        """The scales of the caches, in the order in which they are filled."""
        return sorted(self.grids, key=lambda scale: scale is Scale.LOW)

    def _frames_at(self, index: int) -> range:
        size = self.window.chunk_frames
        stop = self.first_chunk_frames + index * size
        return range(stop - size if index else 0, stop)

    def _with_levers(self, chunk: Chunk) -> Chunk:
        """`chunk`, which has all its cache steps, with the plan's levers applied."""
        if not chunk.cache_steps:
            return chunk
        later, levers = self.remembered(chunk.frames.stop), self.levers
        cached = tuple(frame for frame in chunk.frames if frame in later or SURVIVORS not in levers)
        drop = {Scale.LOW} if self.pooled_low else set()
        kept = None
        if chunk.steps and (LAST_STEP in levers or (CLEAN_ANCHOR in levers and not self.holds_anchor(chunk))):
            kept = chunk.steps[-1]
            drop.add(kept.scale)
        cache_steps = tuple(step for step in chunk.cache_steps if step.scale not in drop)
        return replace(chunk, cache_steps=cache_steps, cached=cached if cache_steps else (), kept=kept)

    def holds_anchor(self, chunk: Chunk) -> bool:
        """Whether a frame of `chunk` is part of an anchor."""
        size = self.kept_anchor_frames
        return any(0 <= frame - anchor < size for frame in chunk.frames for anchor in self.anchors)

    def begins_chunk(self, frame: int) -> bool:
        """Whether a chunk begins at latent frame `frame`."""
        behind = frame - self.first_chunk_frames
        return not frame or (behind >= 0 and not behind % self.window.chunk_frames)

    @property
    def pooled_low(self) -> bool:
        """Whether LOW keeps averaged keys of the passes at HIGH instead of keys of its own cache passes."""
        return POOLED_LOW in self.levers

    def blocks(self, scale: Scale) -> Blocks | None:
        """Block sizes of sparse attention at a scale; None where attention is over the whole window."""
        sparse = SPARSE in self.levers and scale is Scale.HIGH
        return blocks_for(self.tokens_per_frame(scale)) if sparse else None

    @property
    def keeps_steps(self) -> bool:
        """Whether keys of last steps are kept; continuing a run then needs the noisy latents they started from."""
        return LAST_STEP in self.levers or CLEAN_ANCHOR in self.levers

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The levels that have a cache each: the scales, or with a history for each step the steps."""
        if self.histories == EACH_STEP:
            return tuple((step.scale, index) for index, step in enumerate(self._entered[-1]))
        return tuple(self.grids)

    @property
    def rows(self) -> int:
        """Most rows of a network call."""
        return len(self.levels) if self.order == BATCHED else 1

    @property
    def cached_scales(self) -> tuple[Scale, ...]:
        """The scales whose caches are filled by cache passes of their own."""
        return tuple(scale for scale in self.grids if not (self.pooled_low and scale is Scale.LOW))

    @property
    def num_pixel_frames(self) -> int:
        return pixel_frames(self.num_latent_frames) - self.cropped_frames

    @property
    def endless(self) -> bool:
        """Whether the plan has no end, so that nothing may go through all its chunks."""
        return self.num_latent_frames >= ENDLESS

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.grids[Scale.HIGH]
        return width * PIXELS_PER_CELL, height * PIXELS_PER_CELL

    @property
    def generated_frames(self) -> int:
        """Number of latent frames in all whole chunks, before the end is cropped; the caches index all of them."""
        return self.first_chunk_frames + (self.num_chunks - 1) * self.window.chunk_frames

    @property
    def pages(self) -> tuple[int, int]:
        """Cache pages for anchors and for the ring behind them; two anchors fit if an anchor is ever replaced."""
        anchors, ring = self.window.pages(self.generated_frames)
        anchors = anchors and self.kept_anchor_frames
        return anchors * min(2, len(self.anchors)), ring

    @property
    def moving_anchor(self) -> bool:
        """Whether the video is long enough for an anchor to be given later times, see TemporalPolicy."""
        last_seen = (*self.anchors[1:], self._frames_at(self.num_chunks - 1).start)
        size = self.window.anchor_frames
        if any(0 <= jump - anchor < size for jump in self.jumps for anchor in self.anchors):
            return True
        return self.anchor_source != FIRST_FRAMES or any(
            self.temporal.anchor_time(start, anchor) != self.temporal.chunk_time(anchor)
            for anchor, start in zip(self.anchors, last_seen, strict=True)
        )

    @property
    def moving_pages(self) -> int:
        """Cache pages of un-rotated keys: of all anchors that are moved in time, and of a frame that may become one."""
        anchors, _ = self.pages
        return anchors + (self.sinks is not None) if self.moving_anchor and anchors else 0

    def anchor(self, start: int) -> int:
        """The first frame of the anchor that the chunk at frame `start` sees."""
        return anchor_before(self.anchors, start)

    @property
    def kept_anchor_frames(self) -> int:
        """Number of frames that are kept for one anchor."""
        return self.anchor_source.walk or self.window.anchor_frames

    def context(self, start: int) -> tuple[int, ...]:
        """The frames seen by the chunk that starts at frame `start`, in temporal order."""
        anchor = self.anchor(start)
        if self.anchor_source.walk:
            anchor = min(self.anchor_source.shown(start, anchor, self.window.anchor_frames))
        return self.window.context(start, anchor, scene_at(self.scenes, start))

    def remembered(self, start: int) -> tuple[int, ...]:
        """The frames before frame `start` that the chunk there or a later one sees, in temporal order."""
        seen = self.context(start)
        if not self.anchor_source.walk:
            return seen
        return tuple(sorted({*seen, *self.anchor_source.kept(start, self.anchor(start))}))

    def tokens_per_frame(self, scale: Scale) -> int:
        height, width = self.grids[scale]
        return height * width // TOKENS_PER_CELL

    def num_steps(self) -> int:
        """Denoising calls in all; what a progress bar counts. Not for an endless plan."""
        return sum(len(chunk.steps) for chunk in self.chunks)

    def num_calls(self) -> int:
        """Network calls in all: steps, or rows that are computed together, cache passes, and kept steps of replayed
        chunks. Not for an endless plan."""
        if self.order != CHUNKS:
            return sum(1 for _ in calls(self))
        again = sum(bool(chunk.kept) and not chunk.steps for chunk in self.chunks)
        return again + sum(len(chunk.steps) + len(chunk.cache_steps) for chunk in self.chunks)


class Chunks(Sequence[Chunk]):
    """The chunks of a plan as a sequence; a slice is a tuple. The chunks used last are kept."""

    def __init__(self, plan: Plan) -> None:
        self._indices = range(plan.num_chunks)
        self._chunk_at = lru_cache(maxsize=REMEMBERED)(plan.chunk_at)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Chunk: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Chunk, ...]: ...
    def __getitem__(self, index: int | slice) -> Chunk | tuple[Chunk, ...]:
        found = self._indices[index]
        return self._chunk_at(found) if isinstance(found, int) else tuple(map(self._chunk_at, found))


def anchor_before(anchors: Sequence[int], start: int) -> int:
    """The last of `anchors` (first frames, ascending) that is before frame `start`; 0 if there is none."""
    return anchors[max(0, bisect_left(anchors, start) - 1)]


def scene_at(scenes: Sequence[int], frame: int) -> int:
    """The first frame of the scene that `frame` belongs to; `scenes` are first frames, ascending from 0."""
    return scenes[bisect_right(scenes, frame) - 1]


def replay(plan: Plan, num_chunks: int) -> Plan:
    """The plan of a continued run: the clean latents of its first `num_chunks` chunks are given."""
    if not 0 <= num_chunks <= plan.num_chunks:
        raise ValueError(f"{num_chunks} chunks cannot be given: the plan has {plan.num_chunks}")
    return replace(plan, replayed_chunks=num_chunks)


def lengthen(plan: Plan, num_latent_frames: int) -> Plan:
    """Return `plan` with more latent frames.

    Raises ValueError if that is not longer, or if the steps of later chunks are not known.
    """
    if num_latent_frames <= plan.num_latent_frames:
        raise ValueError(
            f"{pixel_frames(num_latent_frames)} frames are not more than the {plan.num_pixel_frames} there are: "
            "ask for more"
        )
    if not plan.schedule[-1]:
        raise ValueError("the run is one chunk with steps of your own: make a run of two chunks or more to extend it")
    return replace(plan, num_latent_frames=num_latent_frames, cropped_frames=0)


def with_anchors(
    plan: Plan, anchors: Sequence[int], scenes: Sequence[int] = (), jumps: Sequence[int] | None = None
) -> Plan:
    """The plan with other anchors, given by their first frames; 0 is always one of them.

    A chunk that begins at a new anchor still sees the old anchor; all later chunks see the new one. `scenes` are the
    first frames of new scenes; they become anchors too. A scene that the plan has already stays if its anchor stays.
    `jumps` are the first frames of all chunks that jump in time; None: as before.
    Raises ValueError for a frame that no chunk begins at, for anchors too close together, and for a window without an
    anchor.
    """
    anchors = tuple(sorted({0, *anchors, *scenes}))
    scenes = tuple(sorted({*scenes, *(scene for scene in plan.scenes if scene in anchors)}))
    jumps = plan.jumps if jumps is None else tuple(sorted({*jumps}))
    if (anchors, scenes) != (plan.anchors, plan.scenes):
        check_anchors(plan, anchors)
    return replace(plan, anchors=anchors, scenes=scenes, jumps=jumps)


def _check_sizes(plan: Plan) -> None:
    """Raise ValueError for grids, steps and factors that no network can compute with."""
    most = MAX_SIDE // PIXELS_PER_CELL
    for grid in plan.grids.values():
        if any(not 2 <= cells <= most or cells % 2 for cells in grid):
            raise ValueError(f"a grid of {grid[1]}x{grid[0]} cells cannot be: its sides are even, from 2 to {most}")
    if Scale.HIGH not in plan.grids or plan.ntk.keys() != plan.grids.keys():
        raise ValueError("a plan has a grid at HIGH, and an NTK factor for each grid: give both")
    factors = {f"NTK {scale.value}": factor for scale, factor in plan.ntk.items()}
    factors["attention scale"] = plan.first_chunk_attention
    for name, factor in factors.items():
        if not 0 < factor <= MAX_FACTOR:
            raise ValueError(f"a factor of {factor:g} ({name}) cannot be: use 1")
    if plan.resize not in RESIZE_MODES:
        raise ValueError(f'"{plan.resize}" is no way to resize: use {", ".join(RESIZE_MODES)}')


def _check_steps(plan: Plan) -> None:
    """Raise ValueError for steps that no network can take."""
    if not 0 < len(plan.schedule) <= MAX_STEPS or max(map(len, plan.schedule)) > MAX_STEPS:
        raise ValueError(f"a schedule has 1 to {MAX_STEPS} chunks of at most {MAX_STEPS} steps")
    for step in (step for steps in plan.schedule for step in steps):
        if step.scale not in plan.grids:
            raise ValueError(f"a step is at {step.scale.value}, which has no grid: give its size")
        if not 0 < step.sigma <= 1 or not 0 < step.attention_scale <= MAX_FACTOR:
            raise ValueError(
                f"a step at sigma {step.sigma:g}, attention {step.attention_scale:g} cannot be: use 1 and 1"
            )


def _check_starts(plan: Plan) -> None:
    """Raise ValueError for anchors and scenes that do not begin with chunks, one after the other from 0 on."""
    for name, starts in (("anchors", plan.anchors), ("scenes", plan.scenes)):
        if not starts or starts[0] != 0 or any(one >= other for one, other in pairwise(starts)):
            raise ValueError(f"the first frames of {name} rise from 0 on, one after the other")
        if not all(map(plan.begins_chunk, starts)):
            raise ValueError(f"{name} begin where chunks begin")
    if not 0 <= plan.replayed_chunks <= plan.num_chunks:
        raise ValueError(f"{plan.replayed_chunks} chunks cannot be given: the plan has {plan.num_chunks}")


def _check_lengths(plan: Plan) -> None:
    num_frames, given = plan.num_latent_frames, plan.given_frames
    most = MAX_HISTORY if plan.window.local_frames is None else MAX_LATENT_FRAMES
    if num_frames > most:
        raise ValueError(f"a video of {num_frames} latent frames is too long: ask for {most} or fewer")
    if num_frames < 1:
        raise ValueError(f"a video of {num_frames} latent frames is empty: ask for 21, or at least 1")
    if not plan.begins_chunk(given):
        size, first = plan.window.chunk_frames, plan.first_chunk_frames
        fitting = ", ".join(str(frames) for frames in (0, first, first + size, first + 2 * size))
        raise ValueError(f"{given} given latent frames are not whole chunks: give {fitting}, ...")
    if not 0 <= plan.cropped_frames < min(PIXEL_FRAMES_PER_LATENT, pixel_frames(num_frames)):
        raise ValueError(
            f"{plan.cropped_frames} frames cannot be cropped from the end of {pixel_frames(num_frames)}: use 0 to 3"
        )
    if given >= num_frames:
        raise ValueError(f"{given} latent frames are given but only {num_frames} asked for: ask for more frames")
