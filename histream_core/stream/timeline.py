"""A timeline of prompts: the time at which each prompt begins, and how it takes over from the one before.

    [00:00-00:04] a red circle moves right on a blue background
    [00:04-00:08, blend 3] a green square moves left on a blue background
    [00:08, scene] a yellow circle moves up on a black background

A prompt can only change where a chunk begins, so times are moved to the nearest chunk. B batch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor

from ..network.forward import Text
from ..plan.chunks import Plan, with_anchors
from ..plan.sizes import whole_length
from .prompts import Prompt, blend_prompts

CHANGES = {
    "recache": "what is remembered is computed anew under the new prompt, so that it stops speaking of the old one",
    "cut": "the new prompt holds from here on, what is remembered stays as it is",
    "scene": "as cut, and nothing that came before is seen any more; the first frame is the new anchor",
    "blend": "the prompt goes over into the new one in a straight line, a step for each of some chunks",
    "spherical": "as blend, along an arc, which keeps the strength of the prompts",
}
"""Kinds of change from one prompt to the next."""

BLENDS = ("blend", "spherical")

_LINE = re.compile(r"\[([^\]]*)\]\s*(.*)")
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)")
_BLEND = re.compile(rf"({'|'.join(BLENDS)})(?:\s+(\d+))?")
_EXAMPLE = "[00:04-00:08] a red circle"


@dataclass(frozen=True, slots=True)
class Change:
    """How a prompt takes over from the one before."""

    kind: str = "recache"
    """A key of CHANGES."""
    num_chunks: int = 3
    """Number of chunks that a blend takes; the last of them has only the new prompt."""
    new_anchor: bool = False
    """Whether the first frame under the new prompt becomes the anchor of all later chunks."""

    def __post_init__(self):
        if self.kind not in CHANGES:
            raise ValueError(f'a prompt cannot change by "{self.kind}": use one of {", ".join(CHANGES)}')
        if self.num_chunks < 1:
            raise ValueError(f"a blend over {self.num_chunks} chunks is none: use 3, or at least 1")
        if self.new_anchor and self.kind in BLENDS:
            raise ValueError(f"a new anchor needs a change at once, not a {self.kind}: use cut or recache")


@dataclass(frozen=True, slots=True)
class Cue:
    """A prompt, the time at which it begins, and the kind of change."""

    seconds: float
    prompt: str
    change: Change = Change()
    stop: float | None = None
    """The time at which the prompt ends; None if the timeline does not say."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Cues placed in a plan: the chunk that each begins at, the plan with their anchors, and lines to print."""

    cues: tuple[Cue, ...]
    chunks: tuple[int, ...]
    plan: Plan
    lines: tuple[str, ...]
    """One line per cue: the frame at which it begins, and the requested frame if that is another one."""

    @property
    def words(self) -> str:
        return " | ".join(cue.prompt for cue in self.cues)

    @property
    def scenes(self) -> list[int]:
        """The first latent frames of the timeline's scenes; see `plan.with_anchors`."""
        return [start for cue, start in self._later() if cue.change.kind == "scene"]

    @property
    def anchors(self) -> list[int]:
        """The first latent frames of the timeline's new anchors; see `plan.with_anchors`."""
        return [start for cue, start in self._later() if cue.change.new_anchor]

    def _later(self) -> Iterator[tuple[Cue, int]]:
        """Yield each cue that does not begin the video, with the latent frame that it begins at."""
        for cue, index in zip(self.cues, self.chunks, strict=True):
            if index:
                yield cue, self.plan.chunks[index].frames.start

    def prompts(self, texts: Sequence[Tensor], before: Tensor | None = None) -> tuple[Prompt, ...]:
        """The prompts for a `Stream`; `texts` are the embeddings [B, tokens, channels] of the cues.

        `before` is the text that the first cue takes over from; None if the cue begins the video. Raises ValueError
        for texts that cannot be blended.
        """
        found: list[Prompt] = []
        for cue, text, chunk in zip(self.cues, texts, self.chunks, strict=True):
            found += _prompts_of(cue, text, chunk, before)
            before = text
        return tuple(found)


def place(cues: Sequence[Cue], plan: Plan, fps: float, first_chunk: int = 0) -> Placed:
    """Find the chunks that the cues begin at; time 0 is the beginning of chunk `first_chunk`.

    Raises ValueError for cues that do not fit the video.
    """
    chunks = find_chunks(cues, plan, fps, first_chunk)
    found = Placed(tuple(cues), tuple(chunks), plan, tuple(describe_cues(cues, chunks, plan, fps)))
    return replace(found, plan=with_anchors(plan, [*plan.anchors, *found.anchors], found.scenes))


def parse_timeline(text: str, change: Change | None = None) -> tuple[Cue, ...]:
    """The cues in a text: a line for each, "[start-stop, how] prompt"; stop and how may be left out.

    Times are seconds, minutes:seconds or hours:minutes:seconds. A line without a time continues the prompt before
    it. `change` is the default for lines that do not name one. Raises ValueError that names the line and what to
    write.
    """
    cues: list[Cue] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match:
            cues.append(_parse_cue(match[1], match[2].strip(), change or Change(), f"line {number} of the timeline"))
        elif cues:
            cues[-1] = replace(cues[-1], prompt=f"{cues[-1].prompt} {line.strip()}".strip())
        else:
            raise ValueError(f"line {number} of the timeline has no time: begin it like {_EXAMPLE}")
    check_cues(cues)
    return tuple(cues)


def check_cues(cues: Sequence[Cue]) -> None:
    """Raise ValueError unless the cues follow one another from time 0 without a gap."""
    if not cues:
        raise ValueError(f"the timeline is empty: write a line for each prompt, like {_EXAMPLE}")
    if cues[0].seconds:
        raise ValueError(f"the timeline begins at {clock(cues[0].seconds)}: let its first section begin at 0:00")
    for number, cue in enumerate(cues, start=1):
        if not cue.prompt.strip():
            raise ValueError(f"section {number} of the timeline has no prompt: write one behind [{clock(cue.seconds)}]")
        if cue.stop is not None and cue.stop <= cue.seconds:
            raise ValueError(f"section {number} of the timeline ends at {clock(cue.stop)}, before it begins: swap them")
    for number, (cue, following) in enumerate(pairwise(cues), start=2):
        late = f"section {number} of the timeline begins at {clock(following.seconds)}: let it begin"
        if cue.stop is not None and following.seconds != cue.stop:
            raise ValueError(f"{late} at {clock(cue.stop)}, where the one before ends")
        if following.seconds <= cue.seconds:
            raise ValueError(f"{late} later than {clock(cue.seconds)}, where the one before begins")


def clock(seconds: float) -> str:
    """Format a time as minutes and seconds: 1:04 or 1:04.5."""
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{int(minutes)}:{rest:06.3f}".rstrip("0").rstrip(".") if rest % 1 else f"{int(minutes)}:{int(rest):02d}"


def find_chunks(cues: Sequence[Cue], plan: Plan, fps: float, first_chunk: int = 0) -> list[int]:
    """The chunk that each cue begins at: the one that begins nearest to its time.

    Time 0 is the beginning of chunk `first_chunk`. Raises ValueError for a cue after the end of the video, for two
    cues in one chunk, and for a blend that the next cue would cut off.
    """
    starts = {chunk.index: chunk.first_pixel_frame for chunk in plan.chunks[first_chunk:]}
    if first_chunk not in starts:
        raise ValueError(
            f"there is no chunk {first_chunk} for another prompt: begin at one of chunks 0 to {len(plan.chunks) - 1}, "
            "or make the video longer"
        )
    begin, found = starts[first_chunk], []
    for number, cue in enumerate(cues, start=1):
        frame = begin + cue.seconds * fps
        if frame >= plan.num_pixel_frames:
            longer = whole_length(math.floor(frame) + 1)
            raise ValueError(
                f"section {number} of the timeline begins at {clock(cue.seconds)} and the video ends at "
                f"{clock((plan.num_pixel_frames - begin) / fps)}: ask for {longer} frames or more, or leave it out"
            )
        chunk = min(starts, key=lambda index: abs(starts[index] - frame))
        if found:
            before = cues[number - 2].change if first_chunk or number > 2 else Change()  # nothing to change from
            free = found[-1] + (before.num_chunks if before.kind in BLENDS else 1)
            if chunk < free:
                raise ValueError(_too_early(number, cue, before, starts.get(free), begin, fps))
        found.append(chunk)
    return found


def describe_cues(cues: Sequence[Cue], chunks: Sequence[int], plan: Plan, fps: float) -> list[str]:
    """One line per cue: the frame at which it begins, and the requested frame if that is another one."""
    begin, lines = plan.chunks[chunks[0]].first_pixel_frame, []
    for cue, index in zip(cues, chunks, strict=True):
        frame = plan.chunks[index].first_pixel_frame
        asked = begin + cue.seconds * fps
        moved = f", the nearest to {clock(cue.seconds)} (frame {asked:.6g})" if frame != asked else ""
        lines.append(f'"{cue.prompt}" begins at frame {frame} ({clock(frame / fps)}, chunk {index}){moved}')
    end = cues[-1].stop
    if end is not None and round(end * fps) + begin > plan.num_pixel_frames:
        wanted = whole_length(math.ceil(end * fps) + begin)
        lines.append(
            f"the timeline ends at {clock(end)}, the video has {plan.num_pixel_frames} frames: {wanted} get there"
        )
    return lines


def _prompts_of(cue: Cue, text: Tensor, chunk: int, before: Tensor | None) -> list[Prompt]:
    """The prompt of a cue, or the prompts of its blend."""
    change = cue.change
    if before is None or change.kind not in BLENDS:
        recache = before is not None and change.kind == "recache"
        return [Prompt(Text(text), chunk, recache, words=cue.prompt)]
    _check_blend(before, text)
    steps = blend_prompts(
        before, text, first_chunk=chunk, num_chunks=change.num_chunks, spherical=change.kind == "spherical"
    )
    return [replace(step, words=cue.prompt) for step in steps]


def _parse_cue(head: str, prompt: str, change: Change, where: str) -> Cue:
    times, *words = (part.strip() for part in head.split(","))
    start, *stop = (_parse_clock(part.strip(), where) for part in times.split("-", 1))
    return Cue(start, prompt, _parse_change(words, change, where), stop[0] if stop else None)


def _parse_clock(text: str, where: str) -> float:
    match = _CLOCK.fullmatch(text)
    if not match:
        raise ValueError(f'{where} has the time "{text}": write it like 00:04, 1:30 or 4.5')
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _parse_change(words: Collection[str], change: Change, where: str) -> Change:
    for word in (" ".join(word.lower().split()) for word in words):
        blend = _BLEND.fullmatch(word)
        if blend:
            change = replace(change, kind=blend[1], num_chunks=int(blend[2] or change.num_chunks), new_anchor=False)
        elif word in CHANGES:
            change = replace(change, kind=word)
        elif word != "new anchor":
            raise ValueError(f'{where} says "{word}": use cut, recache, blend 3, spherical 3, scene or new anchor')
    return replace(change, new_anchor=True) if "new anchor" in words else change


def _too_early(number: int, cue: Cue, before: Change, earliest: int | None, begin: int, fps: float) -> str:
    what = f"section {number} of the timeline begins at {clock(cue.seconds)}, "
    what += f"within the {before.kind} of the one before" if before.kind in BLENDS else "in the chunk of the one before"
    if earliest is None:
        return f"{what}, which lasts until the end of the video: ask for more frames, or leave it out"
    return f"{what}: let it begin at {clock((earliest - begin) / fps)} or later"


def _check_blend(old: Tensor, new: Tensor) -> None:
    if old.shape != new.shape:
        raise ValueError(
            f"prompts of {old.shape[1]} and {new.shape[1]} tokens cannot be blended: use cut or recache between them"
        )
