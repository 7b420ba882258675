"""Contact sheets: what is where on the picture."""

import numpy as np
import pytest

from histream_core.lab.charts.contact_sheet import (
    GAP,
    LETTERS,
    PAPER,
    contact_sheet,
    draw_text,
    pick,
    shrink,
    text_width,
)


def plain(value, height=16, width=24):
    return np.full((height, width, 3), value, np.uint8)


def test_every_letter_is_five_rows_and_looks_like_no_other():
    assert all(len(rows) == 5 and set(rows) <= set("01234567") for rows in LETTERS.values())
    assert len(set(LETTERS.values())) == len(LETTERS)


def test_text_is_drawn_in_ink_and_cut_at_the_width():
    line = draw_text("DRC on", width=200)
    assert line.shape == (14, 200, 3)
    assert 0 < (line != PAPER).mean() < 0.5
    assert draw_text("DRC on" * 50, width=200).shape == (14, 200, 3)
    assert (draw_text(" ", width=20) == PAPER).all()
    assert (draw_text("a", width=20) == draw_text("A", width=20)).all()
    assert (draw_text("é", width=20) == draw_text("?", width=20)).all()


def test_frames_are_picked_from_first_to_last():
    assert pick(list(range(9)), 3) == [0, 4, 8]
    assert pick(list(range(9)), 1) == [0]
    assert pick([7], 3) == [7, 7, 7]
    with pytest.raises(ValueError, match="at least one frame"):
        pick([], 3)


def test_pictures_shrink_by_whole_blocks():
    assert shrink(plain(90, 64, 96), 24).shape == (16, 24, 3)
    assert (shrink(plain(90, 64, 96), 24) == 90).all()
    assert shrink(plain(90, 64, 96), 200).shape == (64, 96, 3)


def test_strips_stand_in_columns_with_their_frames_side_by_side():
    strips = [("one", [plain(10), plain(20)]), ("two", [plain(30), plain(40)]), ("three", [plain(50), plain(60)])]
    sheet = contact_sheet(strips, columns=2, width=24)
    label, height, width = 14, 14 + 16 + GAP, 2 * (24 + GAP)
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
    assert titled.shape[0] == without.shape[0] + 14
    assert (long.shape[0] - without.shape[0]) % 14 == 0 and long.shape[0] > titled.shape[0] + 14
    assert (titled[14:] == without).all()
    assert (titled[:14, : text_width("red")] == draw_text("red", width=text_width("red"))).all()


def test_a_label_is_never_cut():
    sheet = contact_sheet([("a long label", [plain(10)])])
    assert sheet.shape[1] == text_width("a long label")
    assert (sheet[:14] == draw_text("a long label", width=sheet.shape[1])).all()


def test_a_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one strip"):
        contact_sheet([])
    with pytest.raises(ValueError, match='"one" has no frame'):
        contact_sheet([("one", [])])
