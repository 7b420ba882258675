"""A timeline of prompts: the time at which each prompt begins, and how it takes over from the one before.

    [00:00-00:04] a red circle moves right on a blue background
    [00:04-00:08, blend 3] a green square moves left on a blue background
    [00:08, scene] a yellow circle moves up on a black background

A prompt can only change where a chunk begins, so times are moved to the nearest chunk. B batch.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor

from ..network.forward import Text
from ..plan.anchoring import Starts
from ..plan.chunks import Chunk, Plan, with_anchors
from ..plan.histories import no_recache
from ..plan.sizes import whole_length
from .prompts import Prompt, blend_prompts

CHANGES = {
    "recache": "what is remembered is computed anew under the new prompt, so that it stops speaking of the old one",
    "cut": "the new prompt holds from here on, what is remembered stays as it is",
    "scene": "as cut, and nothing that came before is seen any more; the first frame is the new anchor",
    "blend": "the prompt goes over into the new one in a straight line, a step for each of some chunks",
    "spherical": "as blend, along an arc, which keeps the strength of the prompts",
    "jump": "as cut, and for its first chunk all that came before stands far away in time, so that it is left behind",
}
"""Kinds of change from one prompt to the next."""

BLENDS = ("blend", "spherical")

MAX_BLEND = 64
"""Most chunks that a blend takes: each has a text of its own in memory."""

MAX_CUES = 1000
MAX_SECONDS = 360_000
"""Latest time in a timeline: 100 hours."""

MAX_LETTERS = 2**20
"""Longest timeline."""

_LINE = re.compile(r"\[([^\]]*)\]\s*(.*)")
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)")
_BLEND = re.compile(rf"({'|'.join(BLENDS)})(?:\s+(\d+))?")
_CONTROL = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x84\\x86-\\x9f\\ud800-\\udfff]")
NEW_ANCHOR = "new anchor"
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
        if self.num_chunks > MAX_BLEND:
            raise ValueError(f"a blend over {self.num_chunks} chunks is too long: use {MAX_BLEND} or fewer")
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
    def starts(self) -> Starts:
        """The first latent frames of the timeline's new anchors, scenes and jumps; see `plan.with_anchors`."""
        later = [*self._later()]
        scenes, jumps = ([start for cue, start in later if cue.change.kind == kind] for kind in ("scene", "jump"))
        return Starts([start for cue, start in later if cue.change.new_anchor], scenes, jumps)

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
    _check_recache(cues[0 if first_chunk else 1 :], plan)
    chunks = find_chunks(cues, plan, fps, first_chunk)
    found = Placed(tuple(cues), tuple(chunks), plan, tuple(describe_cues(cues, chunks, plan, fps)))
    starts = found.starts
    anchors, jumps = [*plan.anchors, *starts.anchors], [*plan.jumps, *starts.jumps]
    return replace(found, plan=with_anchors(plan, anchors, starts.scenes, jumps))


def parse_timeline(text: str, change: Change | None = None) -> tuple[Cue, ...]:
    """The cues in a text: a line for each, "[start-stop, how] prompt"; stop and how may be left out.

    Times are seconds, minutes:seconds or hours:minutes:seconds. A line without a time continues the prompt before
    it. `change` is the default for lines that do not name one. Raises ValueError that names the line and what to
    write.
    """
    found: list[tuple[Cue, list[str]]] = []
    for number, line in _lines(text):
        match = _LINE.fullmatch(line)
        if match:
            if len(found) == MAX_CUES:
                raise ValueError(_too_many())
            found.append((_parse_cue(match[1], change or Change(), f"line {number} of the timeline"), [match[2]]))
        elif found:
            found[-1][1].append(line)
        else:
            raise ValueError(f"line {number} of the timeline has no time: begin it like {_EXAMPLE}")
    cues = tuple(replace(cue, prompt=" ".join(words).strip()) for cue, words in found)
    check_cues(cues)
    return cues


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a timeline that are not empty, with their numbers. Raises ValueError for what is no text."""
    if len(text) > MAX_LETTERS:
        raise ValueError(f"the timeline has {len(text)} letters: use {MAX_LETTERS} or fewer")
    control = _CONTROL.search(text)
    if control:
        number = text.count("\n", 0, control.start()) + 1
        raise ValueError(f"line {number} of the timeline has the control character {ord(control[0]):#04x}: remove it")
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        if line.strip():
            yield number, line.strip()


def check_cues(cues: Sequence[Cue]) -> None:
    """Raise ValueError unless the cues follow one another from time 0 without a gap."""
    if not cues:
        raise ValueError(f"the timeline is empty: write a line for each prompt, like {_EXAMPLE}")
    _check_bounds(cues)
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


def _check_bounds(cues: Sequence[Cue]) -> None:
    if len(cues) > MAX_CUES:
        raise ValueError(_too_many())
    for number, cue in enumerate(cues, start=1):
        times = (cue.seconds,) if cue.stop is None else (cue.seconds, cue.stop)
        if not all(0 <= time <= MAX_SECONDS for time in times):
            raise ValueError(
                f"section {number} of the timeline has a time that is not within 0:00 to {clock(MAX_SECONDS)}: write "
                "an earlier one"
            )


def _too_many() -> str:
    return f"the timeline has more than {MAX_CUES} sections: use fewer, and extend the run with the others"


def clock(seconds: float) -> str:
    """Format a time as minutes and seconds: 1:04 or 1:04.5."""
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{int(minutes)}:{rest:06.3f}".rstrip("0").rstrip(".") if rest % 1 else f"{int(minutes)}:{int(rest):02d}"


def _check_recache(cues: Sequence[Cue], plan: Plan) -> None:
    """Raise ValueError for a change that computes the window anew, where a plan cannot."""
    recached = next((cue for cue in cues if cue.change.kind == "recache"), None)
    if recached and (why := no_recache(plan)):
        raise ValueError(f"the section at {clock(recached.seconds)} recaches, and {why}: write cut, or blend 3")


def find_chunks(cues: Sequence[Cue], plan: Plan, fps: float, first_chunk: int = 0) -> list[int]:
    """The chunk that each cue begins at: the one that begins nearest to its time.

    Time 0 is the beginning of chunk `first_chunk`. Raises ValueError for a cue after the end of the video, for two
    cues in one chunk, and for a blend that the next cue would cut off.
    """
    chunks = plan.chunks
    if not 0 <= first_chunk < len(chunks):
        raise ValueError(
            f"there is no chunk {first_chunk} for another prompt: begin at one of chunks 0 to {len(chunks) - 1}, "
            "or make the video longer"
        )
    begin, found = chunks[first_chunk].first_pixel_frame, []
    for number, cue in enumerate(cues, start=1):
        frame = begin + cue.seconds * fps
        if frame >= plan.num_pixel_frames:
            longer = whole_length(math.floor(frame) + 1)
            raise ValueError(
                f"section {number} of the timeline begins at {clock(cue.seconds)} and the video ends at "
                f"{clock((plan.num_pixel_frames - begin) / fps)}: ask for {longer} frames or more, or leave it out"
            )
        chunk = _nearest(chunks, frame, first_chunk)
        if found:
            before = cues[number - 2].change if first_chunk or number > 2 else Change()  # nothing to change from
            free = found[-1] + (before.num_chunks if before.kind in BLENDS else 1)
            if chunk < free:
                earliest = chunks[free].first_pixel_frame if free < len(chunks) else None
                raise ValueError(_too_early(number, cue, before, earliest, begin, fps))
        found.append(chunk)
    return found


def _nearest(chunks: Sequence[Chunk], frame: float, first: int) -> int:
    """The chunk, from chunk `first` on, that begins nearest to a frame; the earlier one of two."""
    behind = bisect_left(chunks, frame, lo=first, key=lambda chunk: chunk.first_pixel_frame)
    near = range(max(first, behind - 1), min(behind + 1, len(chunks)))
    return min(near, key=lambda index: abs(chunks[index].first_pixel_frame - frame))


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


def _parse_cue(head: str, change: Change, where: str) -> Cue:
    """The cue that the brackets of a line describe, without its prompt."""
    times, *words = (part.strip() for part in head.split(","))
    start, *stop = (_parse_clock(part.strip(), where) for part in times.split("-", 1))
    return Cue(start, "", _parse_change(words, change, where), stop[0] if stop else None)


def _parse_clock(text: str, where: str) -> float:
    match = _CLOCK.fullmatch(text)
    if not match:
        raise ValueError(f'{where} has the time "{_short(text)}": write it like 00:04, 1:30 or 4.5')
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _parse_change(words: Collection[str], change: Change, where: str) -> Change:
    """The change that the words of a line ask for: at most one kind, and a new anchor."""
    words = [" ".join(word.lower().split()) for word in words]
    kinds = [word for word in words if word != NEW_ANCHOR]
    for word in kinds:
        blend = _BLEND.fullmatch(word)
        if blend:
            num_chunks = _number(blend[2]) if blend[2] else change.num_chunks
            change = replace(change, kind=blend[1], num_chunks=num_chunks, new_anchor=False)
        elif word in CHANGES:
            change = replace(change, kind=word)
        else:
            raise ValueError(
                f'{where} says "{_short(word)}": use cut, recache, blend 3, spherical 3, scene, jump or {NEW_ANCHOR}'
            )
    if len(kinds) > 1:
        raise ValueError(
            f'{where} says both "{kinds[0]}" and "{kinds[1]}": a prompt begins in one way, use one of them'
        )
    return replace(change, new_anchor=True) if NEW_ANCHOR in words else change


def _number(digits: str) -> int:
    """A whole number, however many digits it has; above a billion it is a billion."""
    return int(min(float(digits), 1e9))


def _short(text: str) -> str:
    """The beginning of a text, to be quoted in a message."""
    return text if len(text) <= 40 else f"{text[:40]}..."


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
