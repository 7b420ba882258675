"""Reader of manifests of format 1, which listed every chunk of a plan: finds the recipe that gives these chunks.

Nothing is written in this format any more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...files.values import parse, plain
from ...plan.chunks import Chunk, Plan
from ...plan.positions import TemporalPolicy
from ...plan.presets import MODES, PRESETS
from ...plan.schedule import Scale, Schedule, Steps
from ...plan.sizes import Grid
from ...plan.window import Window

FORMAT = 1


@dataclass(frozen=True, slots=True)
class ListedPlan:
    """A plan in format 1."""

    chunks: tuple[Chunk, ...]
    num_frames: int
    grids: Mapping[Scale, Grid]
    ntk: Mapping[Scale, float]
    window: Window
    temporal: TemporalPolicy
    resize: str
    levers: tuple[str, ...]
    anchors: tuple[int, ...]
    anchor_match: float


def with_recipe(run: Any) -> Any:
    """The content of a manifest with its plan as a recipe. Raises ValueError if no recipe gives its chunks."""
    if not isinstance(run, dict):
        return run  # refused by name when it is parsed
    listed = parse(ListedPlan, run.get("plan"), "run.plan")
    plan = recipe(listed, later_steps(run.get("settings")))
    if plan.num_chunks != len(listed.chunks) or tuple(plan.chunks) != listed.chunks:
        raise ValueError("run.plan lists chunks that do not follow from one plan")
    return run | {"plan": plain(plan)}


def later_steps(settings: Any) -> Steps:
    """The steps of later chunks in the run's mode, needed for a run of one chunk; empty for the user's own steps."""
    names = [settings.get(name) for name in ("preset", "mode")] if isinstance(settings, dict) else [None, None]
    preset, mode = (name if isinstance(name, str) else "" for name in names)
    return PRESETS[preset].schedule(mode)[-1] if preset in PRESETS and mode in MODES else ()


def recipe(listed: ListedPlan, later: Steps) -> Plan:
    """The plan that the chunks were made from; `later` are the steps of later chunks if there is only one chunk."""
    if not listed.chunks:
        raise ValueError("run.plan has no chunks")
    first, window = listed.chunks[0], listed.window
    given = 0 if first.steps else len(first.frames)
    return Plan(
        num_latent_frames=listed.num_frames,
        schedule=_schedule(listed, later, given=given > 0),
        window=window,
        grids=listed.grids,
        ntk=listed.ntk,
        temporal=listed.temporal,
        resize=listed.resize,
        levers=listed.levers,
        anchors=listed.anchors,
        scenes=_scenes(listed),
        anchor_match=listed.anchor_match,
        first_chunk_attention=_first_chunk_attention(first),
        given_frames=given,
        first_frame=given > 0,
    )


def _scenes(listed: ListedPlan) -> tuple[int, ...]:
    """First frames of scenes: a scene begins at a chunk that sees nothing although its window reaches back."""
    starts = [chunk.frames.start for chunk in listed.chunks if not chunk.context]
    return tuple(start for start in starts if not start or (start in listed.anchors and _reaches_back(listed, start)))


def _reaches_back(listed: ListedPlan, start: int) -> bool:
    before = max(anchor for anchor in listed.anchors if anchor < start)
    return bool(listed.window.context(start, before))


def _first_chunk_attention(first: Chunk) -> float:
    calls = (*first.steps, *first.cache_steps)
    return next((call.attention_scale for call in calls if call.scale is Scale.HIGH), 1.0)


def _schedule(listed: ListedPlan, later: Steps, *, given: bool) -> Schedule:
    """The steps of the first, second, ... chunk that is denoised, without repeats at the end."""
    chunks: Sequence[Chunk] = listed.chunks[given:]
    scenes = _scenes(listed)
    first = tuple(replace(step, attention_scale=1.0) for step in chunks[0].steps) if chunks else ()
    found = [first]
    for index in range(1, len(chunks)):  # the first chunk of a scene takes the first steps, so it does not show its own
        told = (chunk.steps for chunk in chunks[index:] if chunk.frames.start not in scenes)
        found.append(next(told, later or found[-1]))
    if len(found) == 1:
        found.append(later)
    while len(found) > 1 and found[-1] == found[-2]:
        found.pop()
    return tuple(found)
