"""Cut lists of a video for editors: an edit decision list (CMX 3600) and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction

from ..writers import frame_rate

RECORD_HOUR = 1
"""Hour at which an editor's timeline begins by convention; the file itself begins at zero."""


@dataclass(frozen=True)
class Section:
    """A part of a video that was made from one prompt with one seed."""

    prompt: str
    seed: int
    start: int
    """First frame."""
    stop: int
    """The frame after its last one."""
    file: str | None = None
    """A separate file of this section, if there is one."""


def check_sections(sections: Sequence[Section]) -> None:
    """Check that sections follow one another from frame 0 without a gap. Raises ValueError."""
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


def has_drop_frame(fps: float) -> bool:
    """Whether editors know drop-frame time codes of a rate: 29.97 and 59.94."""
    rate = frame_rate(fps)
    return rate.denominator == 1001 and round(rate) % 30 == 0


def timecode(frame: int, fps: float, *, hour: int = 0, drop: bool = False) -> str:
    """HH:MM:SS:FF, non-drop; 23.976 counts 24 frames in a second, as in editors.

    With `drop` HH:MM:SS;FF: two numbers (of 59.94 four) are left out in each minute but every tenth, so that the clock
    shows real time.
    """
    base = round(frame_rate(fps))
    if drop:
        left_out = base // 15
        tens, rest = divmod(frame, base * 600 - 9 * left_out)
        frame += 9 * left_out * tens + left_out * max(0, (rest - left_out) // (base * 60 - left_out))
    seconds, frames = divmod(frame, base)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{(hour + hours) % 24:02d}:{minutes:02d}:{seconds:02d}{';' if drop else ':'}{frames:02d}"


def edl(sections: Sequence[Section], *, file_name: str, fps: float, title: str = "HiStream") -> str:
    """The cut list as CMX 3600, with one event per section. Raises the error of `check_sections`.

    The second time code of each pair is that of the frame after the event, as the format defines it. Prompt, seed and
    the separate file of a section are comments. So is the frame rate, for which CMX 3600 has no field, and at 29.97 and
    59.94 the drop-frame time codes.
    """
    check_sections(sections)
    lines = [f"TITLE: {_plain(title)}", "FCM: NON-DROP FRAME", f"* FRAME RATE: {float(frame_rate(fps)):g}", ""]
    for number, section in enumerate(sections, 1):
        lines += [
            f"{number:03d}  {'AX':<8} {'V':<5} {'C':<8} {_four(section, fps)}",
            *([f"* COMMENT: DROP FRAME {_four(section, fps, drop=True)}"] if has_drop_frame(fps) else []),
            f"* FROM CLIP NAME: {_plain(file_name)}",
            f"* COMMENT: SEED {section.seed}",
            f"* COMMENT: PROMPT {_plain(section.prompt)}",
            *([f"* COMMENT: FILE {_plain(section.file)}"] if section.file else []),
            "",
        ]
    return "\n".join(lines)


def _four(section: Section, fps: float, *, drop: bool = False) -> str:
    """The time codes of an event: begin and end in the file, then in the editor's timeline."""
    frames = (section.start, section.stop)
    return " ".join(timecode(frame, fps, hour=hour, drop=drop) for hour in (0, RECORD_HOUR) for frame in frames)


def _plain(text: str) -> str:
    """The text on one line: a line break would end the comment."""
    return " ".join(text.split())


def cut_list(sections: Sequence[Section], *, file_name: str, fps: float) -> str:
    """The cut list as JSON. Raises the error of `check_sections`.

    It names the file and the rate (also as an exact fraction), and for each section its first frame, the frame after
    its last one, prompt, seed, time codes (non-drop, and at 29.97 and 59.94 drop-frame too), and its separate file.
    """
    check_sections(sections)
    rate: Fraction = frame_rate(fps)
    rows = [
        {
            "index": index,
            **{name: value for name, value in asdict(section).items() if value is not None},
            "start_timecode": timecode(section.start, fps),
            "stop_timecode": timecode(section.stop, fps),
            **(_drop_frame(section, fps) if has_drop_frame(fps) else {}),
        }
        for index, section in enumerate(sections)
    ]
    head = {"file": file_name, "fps": float(rate), "rate": str(rate), "num_frames": sections[-1].stop}
    head["timecode"] = "non-drop"
    return json.dumps({**head, "sections": rows}, indent=2, ensure_ascii=False) + "\n"


def _drop_frame(section: Section, fps: float) -> dict[str, str]:
    return {
        "start_timecode_drop_frame": timecode(section.start, fps, drop=True),
        "stop_timecode_drop_frame": timecode(section.stop, fps, drop=True),
    }
