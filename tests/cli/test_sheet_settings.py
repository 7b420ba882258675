"""The strips of `histream sheet --settings thin`: plans that differ from one another in the setting alone."""

from dataclasses import replace

import numpy as np
import pytest

from histream_core.cli.parsers.sheet import FRAMES, GRID, THIN
from histream_core.cli.verbs import sheet
from histream_core.cli.verbs.sheet import thin_plans
from histream_core.network.ops.rope import THETA, ntk_theta
from histream_core.plan import PRESETS, find_preset, make_plan
from histream_core.plan.schedule import Scale
from histream_core.plan.sizes import latent_frames


def plans(name="sgf", frames=9):
    preset = find_preset(name)
    like = make_plan(preset, "histream", size=(1920, 1088), num_latent_frames=frames)
    return like, dict(thin_plans(preset, like))


def test_every_strip_changes_its_setting_alone():
    """Seen to fail where two strips are one plan."""
    like, found = plans()
    assert len(found) == 13
    for name, plan in found.items():
        same = replace(plan, ntk=like.ntk, resize=like.resize, temporal=like.temporal)
        assert replace(same, first_chunk_attention=like.first_chunk_attention) == like, name
    assert ntk_theta(found["NTK 20 at HIGH"].ntk[Scale.HIGH], 42) == pytest.approx(20 * THETA)
    assert found["NTK 20 at HIGH"].ntk[Scale.LOW] == like.ntk[Scale.LOW]
    assert found["resize bilinear"].resize == "bilinear"
    assert found["clamped, span 3"].temporal.span == 3


def test_the_attention_of_the_first_chunk_is_in_cinescales_form():
    """Off, 1.050 and 1.085 by its numbers; 1.88 is our 1.077 at 1080p."""
    _, found = plans()
    told = [found[f"first-chunk attention c {c}"].first_chunk_attention for c in ("1", "1.5", "1.88", "2")]
    assert told == pytest.approx([1.0, 1.050, 1.077, 1.085], abs=5e-4)


def test_settings_that_change_nothing_are_left_out():
    """Seen to fail with strips of the same pixels."""
    _, one_grid = plans("streamdiffusionv2")
    assert not [name for name in one_grid if name.startswith("resize")]
    _, whole_past = plans("causvid")
    assert not [name for name in whole_past if name.startswith("clamped")]
    _, framewise = plans("sgf-framewise", frames=5)
    assert [name for name in framewise if name.startswith("clamped")] == ["clamped, span 3", "clamped, span 20"]


def test_other_anchors_are_shown_where_a_clip_is_long_enough():
    """Seen to fail with an average in a clip in which no frame leaves the window."""
    for frames, names in ((12, []), (13, ["anchor walks over 9", "anchor an average, 0.9"])):
        like, found = plans(frames=frames)
        assert [name for name in found if "anchor" in name] == names
        for name in names:
            assert replace(found[name], anchor_source=like.anchor_source) == like != found[name]
    assert "anchor walks over 20" in plans("sgf-framewise", frames=22)[1]


def test_a_clip_in_which_a_span_shows_nothing_is_refused():
    for name, frames, least in (("sgf", 8, 33), ("sgf-framewise", 4, 17)):
        with pytest.raises(ValueError, match=f"use --frames {least}, or more"):
            plans(name, frames)


def test_clips_are_long_enough_where_no_length_is_given(here, say, monkeypatch):
    """Seen to fail with 21 frames, in which a span shows nothing."""
    lengths = []

    def make_strips(_, orders, *args, **rest):
        lengths.extend({order.plan.num_pixel_frames for _, order in orders})
        return [[]]

    monkeypatch.setattr(sheet, "make_strips", make_strips)
    picture = np.zeros((8, 8, 3), "uint8")
    monkeypatch.setattr("histream_core.lab.charts.contact_sheet.contact_sheet", lambda *_, **__: picture)
    for settings in (GRID, THIN):
        assert say("sheet", "--model", "demo", "--size", "64x64", "--settings", settings)[0] == 0
    assert lengths == [FRAMES[GRID], FRAMES[THIN]] == [21, 33]
    for name in PRESETS:
        plans(name, latent_frames(FRAMES[THIN]))
