"""Where one section of a video ends and the next begins, for editors: an edit decision list (CMX 3600) and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction

from ..writers import frame_rate

RECORD_HOUR = 1
"""Time lines of editors begin at one hour; the file itself begins at zero."""


@dataclass(frozen=True)
class Section:
    """A stretch of a video that was made from one prompt with one seed."""

    prompt: str
    seed: int
    start: int
    """First frame."""
    stop: int
    """The frame after the last one."""
    file: str | None = None
    """Where it is a file of its own too, which begins with its first frame."""


def check_sections(sections: Sequence[Section]) -> None:
    """Refuse sections that do not follow one another from frame 0 without a gap. Raises ValueError."""
    if not sections:
        raise ValueError("there is no section to list")
    expected = 0
    for number, section in enumerate(sections, 1):
        if section.start != expected or section.stop <= section.start:
            raise ValueError(
                f"section {number} has frames {section.start} to {section.stop}: "
                f"it must begin at {expected} and hold one frame at least"
            )
        expected = section.stop


def timecode(frame: int, fps: float, *, hour: int = 0) -> str:
    """HH:MM:SS:FF without dropped numbers; 23.976 is counted as 24, as editors do."""
    base = round(frame_rate(fps))
    seconds, frames = divmod(frame, base)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{(hour + hours) % 24:02d}:{minutes:02d}:{seconds:02d}:{frames:02d}"


def edl(sections: Sequence[Section], *, file_name: str, fps: float, title: str = "HiStream") -> str:
    """The cut list as CMX 3600: one event per section, all from one file. Raises ValueError, see `check_sections`.

    The last time code of each pair is the frame after the event, as the format has it. Prompt, seed and a section's
    own file are comments, on one line each. The list says at what rate to read it: CMX 3600 itself has no place for
    that.
    """
    check_sections(sections)
    lines = [f"TITLE: {_plain(title)}", "FCM: NON-DROP FRAME", f"* FRAME RATE: {float(frame_rate(fps)):g}", ""]
    for number, section in enumerate(sections, 1):
        source = [timecode(frame, fps) for frame in (section.start, section.stop)]
        record = [timecode(frame, fps, hour=RECORD_HOUR) for frame in (section.start, section.stop)]
        lines += [
            f"{number:03d}  {'AX':<8} {'V':<5} {'C':<8} {' '.join(source + record)}",
            f"* FROM CLIP NAME: {_plain(file_name)}",
            f"* COMMENT: SEED {section.seed}",
            f"* COMMENT: PROMPT {_plain(section.prompt)}",
            *([f"* COMMENT: FILE {_plain(section.file)}"] if section.file else []),
            "",
        ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """On one line: a line break in a comment would begin something else."""
    return " ".join(text.split())


def cut_list(sections: Sequence[Section], *, file_name: str, fps: float) -> str:
    """The cut list as JSON: file, rate (also as an exact fraction), sections with first frame, the one after, prompt,
    seed, time codes, and the section's own file if it has one. Raises ValueError, see `check_sections`.
    """
    check_sections(sections)
    rate: Fraction = frame_rate(fps)
    rows = [
        {
            "index": index,
            **{name: value for name, value in asdict(section).items() if value is not None},
            "start_timecode": timecode(section.start, fps),
            "stop_timecode": timecode(section.stop, fps),
        }
        for index, section in enumerate(sections)
    ]
    head = {"file": file_name, "fps": float(rate), "rate": str(rate), "num_frames": sections[-1].stop}
    return json.dumps({**head, "sections": rows}, indent=2, ensure_ascii=False) + "\n"
