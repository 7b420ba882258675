"""Cut lists: what an editor reads.

Seen to fail: the last frame instead of the one after, 23.976 counted as 23, a line break kept in a comment.
"""

import itertools
import json
import re

import pytest

from histream_core.video.edit.cut_lists import Section, cut_list, edl, timecode

SECTIONS = [
    Section("a fox\nin the snow", 7, 0, 33),
    Section("night", 8, 33, 34),
    Section("dawn, 雪", 7, 34, 1441),
]


def test_events_follow_one_another_without_a_gap():
    events = [line.split() for line in edl(SECTIONS, file_name="fox.mov", fps=24).splitlines() if line[:3].isdigit()]
    assert [event[:4] for event in events] == [[f"00{number}", "AX", "V", "C"] for number in (1, 2, 3)]
    assert events[0][4:] == ["00:00:00:00", "00:00:01:09", "01:00:00:00", "01:00:01:09"]
    assert events[2][4:] == ["00:00:01:10", "00:01:00:01", "01:00:01:10", "01:01:00:01"]
    assert all(before[5] == after[4] and before[7] == after[6] for before, after in itertools.pairwise(events))


def test_an_event_keeps_its_prompt_on_one_line():
    text = edl(SECTIONS, file_name="fox.mov", fps=16, title="a\nb")
    assert text.startswith("TITLE: a b\nFCM: NON-DROP FRAME\n* FRAME RATE: 16\n")
    assert "* COMMENT: PROMPT a fox in the snow\n" in text and "* COMMENT: SEED 8\n" in text
    assert text.count("* FROM CLIP NAME: fox.mov\n") == 3
    assert all(re.match(r"TITLE|FCM|\*|\d{3}  |$", line) for line in text.splitlines())


def test_the_json_holds_the_frames_as_they_are():
    got = json.loads(cut_list(SECTIONS, file_name="fox.mov", fps=23.976))
    assert (got["file"], got["rate"], got["num_frames"]) == ("fox.mov", "24000/1001", 1441)
    rows = got["sections"]
    assert [(row["prompt"], row["seed"], row["start"], row["stop"]) for row in rows] == [
        (section.prompt, section.seed, section.start, section.stop) for section in SECTIONS
    ]
    assert (rows[2]["start_timecode"], rows[2]["stop_timecode"]) == ("00:00:01:10", "00:01:00:01")


@pytest.mark.parametrize(
    ("frame", "fps", "expected"),
    [(0, 16, "00:00:00:00"), (15, 16, "00:00:00:15"), (9601, 16, "00:10:00:01"), (24, 23.976, "00:00:01:00")],
)
def test_time_codes_count_frames(frame, fps, expected):
    assert timecode(frame, fps) == expected


@pytest.mark.parametrize(
    ("frame", "fps", "expected"),
    [
        (0, 29.97, "00:00:00;00"),
        (1799, 29.97, "00:00:59;29"),
        (1800, 29.97, "00:01:00;02"),
        (3597, 29.97, "00:01:59;29"),
        (3598, 29.97, "00:02:00;02"),
        (17981, 29.97, "00:09:59;29"),
        (17982, 29.97, "00:10:00;00"),
        (107892, 29.97, "01:00:00;00"),
        (3599, 59.94, "00:00:59;59"),
        (3600, 59.94, "00:01:00;04"),
        (35964, 59.94, "00:10:00;00"),
    ],
)
def test_drop_frame_time_codes_show_the_time_of_a_clock(frame, fps, expected):
    assert timecode(frame, fps, drop=True) == expected


@pytest.mark.parametrize(("fps", "drop"), [(29.97, True), (59.94, True), (23.976, False), (30, False), (25, False)])
def test_a_cut_list_says_which_time_codes_it_has_and_offers_both(fps, drop):
    """Seen to fail with non-drop alone."""
    sections = [Section("a", 1, 0, 3600)]
    text = edl(sections, file_name="a.mp4", fps=fps)
    assert "FCM: NON-DROP FRAME\n" in text
    assert ("* COMMENT: DROP FRAME 00:00:00;00 00:0" in text) == drop
    got = json.loads(cut_list(sections, file_name="a.mp4", fps=fps))
    assert (got["timecode"], "stop_timecode_drop_frame" in got["sections"][0]) == ("non-drop", drop)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ([], "there is no section"),
        ([Section("a", 0, 1, 5)], "section 1 has frames 1 to 5: it must begin at 0"),
        ([Section("a", 0, 0, 5), Section("b", 0, 6, 9)], "section 2 has frames 6 to 9: it must begin at 5"),
        ([Section("a", 0, 0, 0)], "section 1 has frames 0 to 0"),
    ],
)
def test_sections_with_gaps_are_refused(sections, message):
    for make in (edl, cut_list):
        with pytest.raises(ValueError, match=message):
            make(sections, file_name="a.mp4", fps=16)
