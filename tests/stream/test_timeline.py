"""Timelines of prompts: what is read, which chunk each prompt begins at, how it takes over; tiny random models."""

import dataclasses
import math
import re

import pytest
import tiny
import tiny_runs
import torch
from tiny_runs import recipes

from histream_core import runs as session
from histream_core.plan.anchoring import Starts
from histream_core.plan.chunks import lengthen, with_anchors
from histream_core.plan.window import Window
from histream_core.runs.describe import sections_of
from histream_core.runs.store.video import cut_sections
from histream_core.stream.prompts import Prompt, blend_prompts
from histream_core.stream.timeline import (
    Change,
    Cue,
    Placed,
    check_cues,
    clock,
    describe_cues,
    find_chunks,
    parse_timeline,
    place,
)

FPS = 16
PLAN = tiny.plan(num_frames=24)  # 8 chunks, from frames 0, 9, 21, 33, 45, 57, 69 and 81 of 93
TEXTS = [tiny.text(seed).context for seed in range(4)]


def cues(*starts, change=None):
    return [Cue(seconds, f"prompt {number}", change or Change()) for number, seconds in enumerate(starts)]


def test_a_timeline_is_read_line_by_line():
    found = parse_timeline(
        "[00:00-00:04] a red circle\n  on blue\n\n[0:04 - 1:02.5, blend 4] a square\n"
        "[1:02.5,cut,new anchor]a cat\n[1:00:00, Spherical] a dog",
        Change("cut", num_chunks=2),
    )
    assert found == (
        Cue(0, "a red circle on blue", Change("cut", 2), stop=4),
        Cue(4, "a square", Change("blend", 4), stop=62.5),
        Cue(62.5, "a cat", Change("cut", 2, new_anchor=True)),
        Cue(3600, "a dog", Change("spherical", 2)),
    )


REFUSED = {
    "": "the timeline is empty",
    "a cat\n[0:04] a dog": "line 1 of the timeline has no time: begin it like",
    "[0:02] a cat": "begins at 0:02: let its first section begin at 0:00",
    "[0:00] a cat\n[four] a dog": 'line 2 of the timeline has the time "four": write it like 00:04',
    "[0:00] a cat\n[0:04, fade] a dog": 'line 2 of the timeline says "fade": use cut, recache, blend 3',
    "[0:00] a cat\n[0:04, blend 0] a dog": "a blend over 0 chunks is none",
    "[0:00] a cat\n[0:04, blend, new anchor] a dog": "a new anchor needs a change at once, not a blend",
    "[0:00] a cat\n[0:04]": "section 2 of the timeline has no prompt",
    "[0:00] a cat\n[0:04-0:02] a dog": "section 2 of the timeline ends at 0:02, before it begins",
    "[0:00-0:04] a cat\n[0:05] a dog": "section 2 of the timeline begins at 0:05: let it begin at 0:04, where the one",
    "[0:00] a cat\n[0:04, cut, scene] a dog": 'line 2 of the timeline says both "cut" and "scene": a prompt begins in',
    "[0:00] a cat\n[0:04, cut, new anchors] a dog": 'line 2 of the timeline says "new anchors": use cut',
    "[0:00] a cat\n[-4] a dog": 'line 2 of the timeline has the time "": write it',
    "[0:00] a cat\n[1e999] a dog": 'line 2 of the timeline has the time "1e999": write it',
    "[0:00] a cat\n[nan] a dog": 'line 2 of the timeline has the time "nan": write it',
    "[0:00] a cat\n[inf] a dog": 'line 2 of the timeline has the time "inf": write it',
    "[0:00] a cat\na \0 dog": "line 2 of the timeline has the control character 0x00: remove it",
    "[0:00] a cat \x1b[31m": "line 1 of the timeline has the control character 0x1b: remove it",
    "[0:00] a cat \ud800": "line 1 of the timeline has the control character 0xd800: remove it",
    "[0:00] a cat\n[0:04] a dog\n[0:04] a cow": "section 3 of the timeline begins at 0:04: let it begin later than",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_read_is_refused_with_what_to_write(text):
    with pytest.raises(ValueError, match=re.escape(REFUSED[text])):
        parse_timeline(text)


@pytest.mark.parametrize("words", ["New Anchor", "NEW  ANCHOR", "new\tanchor", " new anchor\t", "CUT,New\u00a0 Anchor"])
def test_words_are_understood_whatever_their_case_and_white_space(words):
    """Seen to fail where the words as written were looked up: the anchor was left out without a word."""
    found = parse_timeline(f"\ufeff[0:00] a cat\r\n[0:04,{words}] a dog\r\n", Change("cut"))
    assert found == (Cue(0, "a cat", Change("cut")), Cue(4, "a dog", Change("cut", new_anchor=True)))
    assert parse_timeline("[0:00] a cat\n[0:04,Blend \t 4] a dog")[1].change == Change("blend", 4)


OUT_OF_BOUNDS = {
    "[0:00] a cat\n[0:04, blend 1000000] a dog": "a blend over 1000000 chunks is too long: use 64 or fewer",
    f"[0:00] a cat\n[0:04, blend {'9' * 5000}] a dog": "a blend over 1000000000 chunks is too long: use 64 or fewer",
    f"[0:00] a cat\n[{'9' * 400}] a dog": "section 2 of the timeline has a time that is not within 0:00 to 6000:00",
    f"[0:00] a cat\n[4-{'9' * 400}:00] a dog": "section 2 of the timeline has a time that is not within 0:00",
    "\n".join(f"[{second}] a cat" for second in range(1001)): "the timeline has more than 1000 sections: use fewer",
    "[0:00] a cat " + "a" * 2**20: "the timeline has 1048589 letters: use 1048576 or fewer",
    f"[0:00] a cat\n[{'4' * 99}x] a dog": f'the time "{"4" * 40}...": write it like',
}


@pytest.mark.parametrize("text", OUT_OF_BOUNDS, ids=range(len(OUT_OF_BOUNDS)))
def test_the_bounds_of_a_timeline_are_said_with_their_numbers(text):
    """Seen to fail with blends of any length: one number filled the memory."""
    with pytest.raises(ValueError, match=re.escape(OUT_OF_BOUNDS[text])):
        parse_timeline(text)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_numbers_that_are_no_times_are_refused_wherever_they_come_from(seconds):
    for cue in (Cue(seconds, "a dog"), Cue(4.0, "a dog", stop=seconds)):
        with pytest.raises(ValueError, match="section 2 of the timeline has a time that is not within"):
            check_cues([Cue(0.0, "a cat"), cue])


def test_the_longest_timelines_are_read_and_placed_at_once():
    """In steps that do not grow with the text or the video. Seen to fail by minutes with every chunk looked at."""
    lines = 2**18
    assert len(parse_timeline("[0:00] a\n" + "b\n" * lines)[0].prompt) == 2 * lines + 1
    long = dataclasses.replace(PLAN, num_latent_frames=3 * 10**8)
    seen = []
    counted = [Cue(6.0 * number, f"prompt {number}") for number in range(1000)]
    chunk_at = type(long).chunk_at
    try:
        type(long).chunk_at = lambda plan, index: seen.append(index) or chunk_at(plan, index)
        assert find_chunks(counted, long, FPS)[:3] == [0, 8, 16]
    finally:
        type(long).chunk_at = chunk_at
    assert len(seen) < 100 * len(counted)


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (4, "0:04"), (64.5, "1:04.5"), (3.5625, "0:03.562")])
def test_a_time_is_shown_as_it_is_written(seconds, shown):
    assert clock(seconds) == shown


@pytest.mark.parametrize(("seconds", "chunk"), [(0.6, 1), (0.9, 1), (1.0, 2), (1.3, 2), (3.5625, 5), (5.7, 7)])
def test_a_prompt_begins_with_the_chunk_nearest_to_its_time(seconds, chunk):
    """Seen to fail with the chunk that the time lies in."""
    assert find_chunks(cues(0, seconds), PLAN, FPS) == [0, chunk]


def test_a_time_that_falls_inside_a_chunk_is_said_with_the_frame_that_it_became():
    found = cues(0, 1, 57 / 16)
    assert describe_cues(found, find_chunks(found, PLAN, FPS), PLAN, FPS) == [
        '"prompt 0" begins at frame 0 (0:00, chunk 0)',
        '"prompt 1" begins at frame 21 (0:01.312, chunk 2), the nearest to 0:01 (frame 16)',
        '"prompt 2" begins at frame 57 (0:03.562, chunk 5)',
    ]


def test_a_timeline_that_is_longer_than_the_video_says_what_length_would_do():
    found = [Cue(0, "a cat", stop=6.0)]
    assert (
        describe_cues(found, [0], PLAN, FPS)[-1] == "the timeline ends at 0:06, the video has 93 frames: 97 get there"
    )


def test_times_count_from_the_chunk_that_a_timeline_begins_at():
    """Used when a run is made longer. Seen to fail with times of the whole video."""
    found = cues(0, 0.75)
    assert find_chunks(found, PLAN, FPS, first_chunk=3) == [3, 4]
    assert describe_cues(found, [3, 4], PLAN, FPS)[1] == '"prompt 1" begins at frame 45 (0:02.812, chunk 4)'


@pytest.mark.parametrize(
    ("starts", "change", "said"),
    [
        ((0, 5.9), Change(), "begins at 0:05.9 and the video ends at 0:05.812: ask for 97 frames or more"),
        ((0, 0.1), Change(), "section 2 of the timeline begins at 0:00.1, in the chunk of the one before: "
         "let it begin at 0:00.562 or later"),
        ((0, 1.3, 2), Change("blend", 3), "section 3 of the timeline begins at 0:02, within the blend of the one "
         "before: let it begin at 0:03.562 or later"),
        ((0, 5, 5.5), Change("blend", 3), "which lasts until the end of the video: ask for more frames"),
    ],
)  # fmt: skip
def test_sections_that_do_not_fit_the_video_are_refused_with_a_time_that_does(starts, change, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        find_chunks(cues(*starts, change=change), PLAN, FPS)


def latents(found, texts=TEXTS):
    return tiny.video(PLAN, prompts=place(found, PLAN, FPS).prompts(texts[: len(found)]))


@pytest.mark.parametrize("kind", ["cut", "recache"])
def test_a_change_at_once_is_the_prompt_and_its_recache(kind):
    wanted = tiny.video(PLAN, prompts=[Prompt(tiny.text(0)), Prompt(tiny.text(1), 2, recache=kind == "recache")])
    assert torch.equal(latents(cues(0, 1.3, change=Change(kind))), wanted)


@pytest.mark.parametrize("kind", ["blend", "spherical"])
def test_a_blend_is_a_text_of_its_own_for_each_of_its_chunks(kind):
    """Seen to fail with the new prompt from the start."""
    steps = blend_prompts(TEXTS[0], TEXTS[1], first_chunk=2, num_chunks=3, spherical=kind == "spherical")
    wanted = tiny.video(PLAN, prompts=[Prompt(tiny.text(0)), *steps])
    assert torch.equal(latents(cues(0, 1.3, change=Change(kind, 3))), wanted)


def test_texts_of_different_lengths_are_not_blended():
    with pytest.raises(ValueError, match="prompts of 6 and 5 tokens cannot be blended: use cut or recache"):
        latents(cues(0, 1.3, change=Change("blend")), [TEXTS[0], TEXTS[1][:, :5]])


def test_only_the_prompt_in_force_keeps_its_keys():
    """So that memory does not grow with the number of prompts. Seen to fail with keys that stay."""
    found = cues(0, 1.3, 3)
    prompts = place(found, PLAN, FPS).prompts(TEXTS[:3])
    held = [[bool(prompt.text._keys) for prompt in prompts] for _ in tiny.stream(PLAN, prompts=prompts).chunks()]
    assert held == [[True, False, False]] * 2 + [[False, True, False]] * 2 + [[False, False, True]] * 4


def sections(found, chunks):
    return sections_of(Placed(tuple(found), tuple(chunks), PLAN, ()).prompts(TEXTS[: len(found)]))


def test_the_cut_list_has_a_cut_where_a_blend_begins_and_none_within_it():
    """Seen to fail with a cut for each step of the blend."""
    found = cues(0, 1.3, 3.6, change=Change("blend", 3))
    run = tiny_runs.manifest(PLAN, sections=sections(found, find_chunks(found, PLAN, FPS)))
    assert [(cut.prompt, cut.start, cut.stop) for cut in cut_sections(run)] == [
        ("prompt 0", 0, 21),
        ("prompt 1", 21, 57),
        ("prompt 2", 57, 93),
    ]


def test_a_run_that_is_made_longer_leaves_out_what_its_timeline_had_behind_its_end(tmp_path):
    """For example a blend that the end cut off. Seen to fail with sections that stay: they would not be in order."""
    short = tiny_runs.plan(9)
    found = cues(0, 9 / 16, change=Change("blend", 4))
    run = tiny_runs.manifest(short, sections=sections(found, find_chunks(found, short, FPS)))
    with session.create_run(tmp_path, run) as journal:
        session.lengthen_run(journal, tiny_runs.plan(15), [tiny_runs.section("a dog")])
        assert [section.first_chunk for section in journal.manifest.sections] == [0, 1, 2, 3]


def test_a_run_can_be_made_longer_with_a_new_anchor_and_is_the_run_that_had_it_from_the_start(tmp_path):
    """Seen to fail with a longer plan that is held against the anchors of the shorter one."""
    short, long = tiny_runs.plan(9), with_anchors(tiny_runs.plan(18), [9])
    sections = [tiny_runs.section(), tiny_runs.section("a dog", 3)]
    wanted = tiny_runs.finish(session.create_run(tmp_path / "long", tiny_runs.manifest(long, sections=sections)))
    tiny_runs.finish(session.create_run(tmp_path / "cut", tiny_runs.manifest(short)))
    with session.resume(tmp_path / "cut") as journal:
        session.lengthen_run(journal, with_anchors(lengthen(short, 18), [9]), [tiny_runs.section("a dog")])
        assert journal.manifest.plan == long
    assert tiny_runs.same(tiny_runs.finish(session.resume(tmp_path / "cut"))[0], wanted[0])


def test_a_branch_with_a_prompt_of_its_own_drops_the_anchors_behind_it_and_has_its_own():
    run = tiny_runs.manifest(with_anchors(tiny_runs.plan(18), [3, 9]))
    assert session.branched(run, 2, seed=7).plan.anchors == (0, 3, 9)
    assert session.branched(run, 2, sections=[tiny_runs.section("a dog")]).plan.anchors == (0, 3)
    assert session.branched(run, 2, sections=[tiny_runs.section("a dog")], starts=Starts([6])).plan.anchors == (0, 3, 6)


def test_chunks_that_see_another_anchor_are_other_chunks_in_the_journal():
    """Also where the window is so wide that both anchors are in it. Seen to fail without the anchor in the recipe."""
    runs = [
        tiny_runs.manifest(with_anchors(tiny_runs.plan(9, window=Window(3, 1, 9)), anchors)) for anchors in ([], [3])
    ]
    plain, other = (recipes(run) for run in runs)
    assert plain[:2] == other[:2]
    assert plain[2] != other[2]
