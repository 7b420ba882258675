"""Contact sheets: positions of pictures and labels."""

import numpy as np
import pytest

from histream_core.lab.charts import pick
from histream_core.lab.charts.contact_sheet import (
    GAP,
    LINE_HEIGHT,
    PAPER,
    contact_sheet,
    drawable,
    font,
    text_width,
    wrap,
)


def plain(value, height=16, width=24):
    return np.full((height, width, 3), value, np.uint8)


def test_frames_are_picked_from_first_to_last():
    assert pick(list(range(9)), 3) == [0, 4, 8]
    assert pick(list(range(9)), 1) == [0]
    assert pick([7], 3) == [7, 7, 7]
    with pytest.raises(ValueError, match="at least one frame"):
        pick([], 3)


def test_large_frames_are_shown_smaller_in_their_proportions():
    sheet = contact_sheet([("", [plain(90, 64, 96)])], width=24)
    assert sheet.shape == (LINE_HEIGHT + 16 + GAP, 24 + GAP, 3)
    assert (sheet[LINE_HEIGHT:-GAP, :-GAP] == 90).all()
    assert contact_sheet([("", [plain(90, 64, 96)])], width=200).shape == (LINE_HEIGHT + 64 + GAP, 96 + GAP, 3)


def test_strips_stand_in_columns_with_their_frames_side_by_side():
    strips = [("a", [plain(10), plain(20)]), ("b", [plain(30), plain(40)]), ("c", [plain(50), plain(60)])]
    sheet = contact_sheet(strips, columns=2, width=24)
    label, height, width = LINE_HEIGHT, LINE_HEIGHT + 16 + GAP, 2 * (24 + GAP)
    assert sheet.shape == (2 * height, 2 * width, 3)
    assert (sheet[label : label + 16, :24] == 10).all()
    assert (sheet[label : label + 16, 24 + GAP : 48 + GAP] == 20).all()
    assert (sheet[label : label + 16, width : width + 24] == 30).all()
    assert (sheet[height + label : height + label + 16, :24] == 50).all()
    assert (sheet[height:, width:] == PAPER).all()


def test_a_title_stands_above_all_and_is_wrapped():
    without, titled, long = (
        contact_sheet([("one", [plain(10, 64, 96)])], title=t) for t in ("", "red", "red circle " * 9)
    )
    assert titled.shape[0] == without.shape[0] + LINE_HEIGHT
    assert (long.shape[0] - without.shape[0]) % LINE_HEIGHT == 0 and long.shape[0] > titled.shape[0] + LINE_HEIGHT
    assert (titled[LINE_HEIGHT:] == without).all()
    assert (titled[:LINE_HEIGHT] != PAPER).any()
    assert (titled[:LINE_HEIGHT, text_width("red") :] == PAPER).all()


def test_lines_are_wrapped_between_words_and_no_word_is_lost():
    words = "red circle " * 9 + "w" * 90
    lines = wrap(words, 200)
    assert " ".join(lines).split() == words.split()
    assert all(text_width(line) <= 200 for line in lines[:-1])


def test_a_label_is_never_cut():
    """Seen to fail with a strip as wide as its frames."""
    sheet = contact_sheet([("a long label", [plain(10)])])
    assert sheet.shape[1] == text_width("a long label") > 24 + GAP
    assert (sheet[:LINE_HEIGHT, : -GAP - 4] != PAPER).any() and (sheet[:LINE_HEIGHT, -GAP:] == PAPER).all()


def test_a_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one strip"):
        contact_sheet([])
    with pytest.raises(ValueError, match='"one" has no frame'):
        contact_sheet([("one", [])])


def test_a_sign_that_the_font_lacks_is_drawn_as_its_nearest_one():
    """Seen to fail with the text as it is, whose accents are boxes."""
    assert drawable("film d\u2019\xe9t\xe9; 1920\xd71080 \u2013 \xbd.mp4") == "film d'ete; 1920x1080 - 1?2.mp4"
    assert drawable("a;b: 100% [x] ~ 電影") == "a;b: 100% [x] ~ ??"
    boxes = bytes(font().getmask("\uffff"))
    assert all(bytes(font().getmask(c)) != boxes for c in map(chr, range(33, 127)))
