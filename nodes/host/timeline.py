"""Timelines of prompts on a CONDITIONING: other samplers see the first prompt, ours all of them.

B batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import comfy.sampler_helpers
import comfy.utils
import torch
from torch import Tensor

from ...histream_core.demo.sentence import drawn
from ...histream_core.demo.trained import other_size
from ...histream_core.plan.chunks import Plan
from ...histream_core.plan.guidance import Guidance
from ...histream_core.plan.make import make_plan
from ...histream_core.plan.presets import Preset
from ...histream_core.plan.sizes import FPS
from ...histream_core.stream.prompts import Prompt, led_away
from ...histream_core.stream.timeline import Cue, Placed, check_cues, place
from ..settings import ModelSettings
from . import log as host_log
from .checks import NEGATIVE_PROMPT, check_conditioning

KEY = "histream_timeline"
"""Where a `Timeline` lies among the options of a CONDITIONING."""

NOTES = "histream_notes"
"""Where a text encoder says, among the options of a CONDITIONING, what its model was not trained on."""

STAGINGS = "histream_stagings"
"""Where the demo's text encoder keeps, among the options of a CONDITIONING, the prompt's embedding and those of the
prompt with every size and place that it leaves open, [1 + N, tokens, channels]."""

SCENES = "histream_scenes"
"""Where a LATENT says how many frames it has and which of them begin scenes."""

LOOK_AHEAD = 30
"""Seconds behind the last prompt that a timeline is looked at without a video."""


@dataclass(frozen=True)
class Audience:
    """Properties of the video that prompts are for."""

    width: int
    """Channels of the text that the model reads."""
    batch: int = 1
    fps: float = FPS
    first_chunk: int = 0
    """The chunk at which time 0 is."""
    seed: int | None = None
    """The seed that decides what prompts of the demo leave open; None: the middle."""


@dataclass(frozen=True)
class Timeline:
    """Prompts, and when they begin."""

    cues: tuple[Cue, ...]
    positives: tuple[Sequence, ...]
    """The CONDITIONING of each, of one plain prompt."""

    def place(self, plan: Plan) -> Placed:
        """Its prompts in a plan at 16 frames per second. Raises ValueError for what does not fit."""
        return place(self.cues, plan, FPS)

    def texts(self, batch: int, width: int, seed: int | None = None) -> list[Tensor]:
        """The embedding of each prompt [B, tokens, channels], staged by the seed if there is one.

        Raises ValueError for what is no plain prompt.
        """
        found = []
        for positive in self.positives:
            guided = positive and isinstance(positive[0], Mapping)  # as the host's guiders keep it
            conds = positive if guided else comfy.sampler_helpers.convert_cond(positive)
            text, known = check_conditioning(conds, batch, width), conds[0].get(STAGINGS)
            if seed is not None and known is not None and torch.equal(text, known[:1]):  # else another node changed it
                text = torch.stack([drawn(known[1:], seed + item) for item in range(batch)])
            found.append(comfy.utils.repeat_to_batch_size(text, batch))
        return found


def with_timeline(timeline: Timeline) -> list:
    """The CONDITIONING that carries a timeline. Raises ValueError for prompts that do not follow one another."""
    check_cues(timeline.cues)
    (text, options), *rest = timeline.positives[0]
    return [[text, options | {KEY: timeline}], *rest]


def timeline_of(positive: Sequence | None) -> Timeline | None:
    """The timeline on a CONDITIONING, also as the host's guiders keep it; None where there is none."""
    if not positive:
        return None
    options = positive[0] if isinstance(positive[0], Mapping) else positive[0][1]
    return options.get(KEY)


def with_scenes(latent: Mapping, plan: Plan) -> dict:
    """The LATENT that says where its scenes begin, for whoever decodes it."""
    found = {SCENES: (latent["samples"].shape[2], plan.scenes)} if len(plan.scenes) > 1 else {}
    return {key: value for key, value in latent.items() if key != SCENES} | found


def scenes_of(latent: Mapping) -> tuple[int, ...]:
    """The frames of a LATENT that begin scenes; none where frames were taken out or added since it was made."""
    num_frames, scenes = latent.get(SCENES, (0, ()))
    return scenes if latent["samples"].shape[2] == num_frames else ()


def notes_of(positive: Sequence | None) -> list[str]:
    """The notes of the text encoders of all prompts on a CONDITIONING, each once."""
    timeline = timeline_of(positive)
    parts = timeline.positives if timeline else (positive or (),)
    options = [item if isinstance(item, Mapping) else item[1] for part in parts for item in part]
    return list(dict.fromkeys(note for found in options for note in found.get(NOTES, ())))


def say_limits(settings: ModelSettings, plan: Plan, positive: Sequence | None) -> None:
    """Say, before the first step and as long as the node runs, what weights were not trained on."""
    notes = [*notes_of(positive), *(notes_of(settings.negative) if plan.guidance.is_on else ())]
    host_log.keep([*dict.fromkeys(notes), *(other_size(plan.size) if settings.demo else ())])


def prompts_in(
    positive: Sequence, plan: Plan, audience: Audience, *, words: str = "", before: Tensor | None = None
) -> tuple[Placed, tuple[Prompt, ...]]:
    """The prompts of a CONDITIONING, and where they stand in a plan; several are listed in the host's log.

    `words` is the prompt as the artist wrote it, `before` the text that it takes over from. Raises ValueError for what
    does not fit the video.
    """
    timeline = timeline_of(positive) or Timeline((Cue(0.0, words),), (positive,))
    found = place(timeline.cues, plan, audience.fps, audience.first_chunk)
    for line in found.lines if len(found.chunks) > 1 else ():
        host_log.say(line)
    return found, found.prompts(timeline.texts(audience.batch, audience.width, audience.seed), before)


def with_negative(
    prompts: tuple[Prompt, ...], guidance: Guidance, negative: Sequence | None, audience: Audience
) -> tuple[Prompt, ...]:
    """The prompts with a negative one, a CONDITIONING, where there is guidance. Raises ValueError."""
    if not guidance.is_on:
        return prompts
    check_negative(guidance, negative)
    conds = comfy.sampler_helpers.convert_cond(negative)
    text = check_conditioning(conds, audience.batch, audience.width, which=NEGATIVE_PROMPT)
    return led_away(prompts, comfy.utils.repeat_to_batch_size(text, audience.batch))


def check_negative(guidance: Guidance, negative: Sequence | None) -> None:
    """Raise ValueError for guidance without a negative prompt, for the reverse, and for several of them."""
    if guidance.is_on and not negative:
        raise ValueError(f"{guidance} leads away from a negative prompt, and there is none: connect one to negative")
    if negative and not guidance.is_on:
        raise ValueError(
            "a negative prompt is connected, and cfg and nag are 1: set nag to 5 for few-step weights, or cfg to 5 for "
            "others"
        )
    if timeline_of(negative):
        raise ValueError("a negative prompt holds for the whole video: connect a plain one, without a timeline")


def look(timeline: Timeline, preset: Preset) -> list[str]:
    """Lines that say where the prompts would begin in a video of this preset, at 16 frames per second."""
    seconds = timeline.cues[-1].stop or timeline.cues[-1].seconds + LOOK_AHEAD
    plan = make_plan(preset, "histream", size=(64, 64), num_latent_frames=2 + round(seconds * FPS / 4))
    return list(timeline.place(plan).lines)
