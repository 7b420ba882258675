"""Anchor match: chunks keep the colour and contrast of their prompt's first one, and runs that are cut do so too."""

from dataclasses import replace

import pytest
import tiny
import torch
from tiny_runs import Run, begin, finish, manifest, plan, recipes, same, section

from histream_core.cli import main
from histream_core.plan.chunks import lengthen
from histream_core.runs import Snapshots, branched, create_branch, create_run, lengthen_run, resume
from histream_core.runs.describe import prompts_of, sections_of
from histream_core.runs.store.manifest import differences, from_json, to_json
from histream_core.stream.anchor_match import match, statistics_of
from histream_core.stream.prompts import Prompt, blend_prompts
from histream_core.stream.timeline import Change, Cue, Placed

NO_FRAMES = {"decoder": False}


def matched(num_frames=14, weight=1.0):
    return manifest(plan(num_frames, anchor_match=weight))


def chunks_of(a_plan, **settings):
    return list(tiny.stream(a_plan, **settings).chunks())


def distance(chunk, anchor):
    one, other = statistics_of(chunk), statistics_of(anchor)
    return float((one.mean - other.mean).abs().max() + (one.std - other.std).abs().max())


def test_statistics_are_of_each_channel_of_each_video():
    latent = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = statistics_of(latent)
    assert torch.allclose(found.mean[1, 2].squeeze(), latent[1, 2].mean(), atol=1e-6)
    assert torch.allclose(found.std[1, 2].squeeze(), latent[1, 2].std(correction=0), atol=1e-6)


def test_a_match_goes_as_far_as_its_weight():
    one, other = (torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    anchor = statistics_of(other * 2 + 3)
    assert torch.equal(match(one, anchor, 0), one)
    assert distance(match(one, anchor, 1), other * 2 + 3) < 1e-5
    half = statistics_of(match(one, anchor, 0.5)).mean
    assert torch.allclose(half, (statistics_of(one).mean + anchor.mean) / 2, atol=1e-5)


def test_a_flat_channel_gets_the_mean_and_no_noise():
    anchor = statistics_of(torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    found = match(torch.full((1, 4, 3, 8, 8), 7.0), anchor, 1)
    assert torch.allclose(found, anchor.mean.expand_as(found), atol=1e-5)


def test_without_it_the_video_is_the_same_bit_for_bit_and_nothing_is_measured(monkeypatch):
    wanted = tiny.video(tiny.plan())
    monkeypatch.setattr("histream_core.stream.stream.statistics_of", None)
    assert torch.equal(tiny.video(tiny.plan(anchor_match=0.0)), wanted)


def test_every_later_chunk_has_the_first_ones_statistics_and_the_next_one_sees_it():
    """Seen to fail where the caches are filled from what it was before."""
    free, held = chunks_of(tiny.plan()), chunks_of(tiny.plan(anchor_match=1.0))
    assert torch.equal(held[0], free[0])
    assert all(distance(chunk, held[0]) < 1e-4 for chunk in held[1:-1])  # the last one is cropped
    assert min(distance(chunk, free[0]) for chunk in free[1:-1]) > 1e-2
    own = match(free[1], statistics_of(free[0]), 1)
    assert torch.equal(held[1], own)
    assert not torch.allclose(held[2], match(free[2], statistics_of(free[0]), 1), atol=1e-4)


def test_a_new_prompt_has_colours_of_its_own():
    """Seen to fail with one anchor for the whole video: a new scene is pulled to the look of the old one."""
    a_plan = tiny.plan(num_frames=15, anchor_match=1.0)
    chunks = chunks_of(a_plan, prompts=[Prompt(tiny.text(0)), Prompt(tiny.text(1), first_chunk=2)])
    assert distance(chunks[2], chunks[0]) > 1e-2
    assert distance(chunks[1], chunks[0]) < 1e-4
    assert max(distance(chunk, chunks[2]) for chunk in chunks[3:]) < 1e-4


def test_a_blend_keeps_one_anchor_until_it_has_gone_over():
    """Seen to fail with an anchor for each step of the blend, and with one that is held as fast in all of them."""
    a_plan = tiny.plan(num_frames=18, anchor_match=0.9)
    blend = blend_prompts(*(tiny.text(seed).context for seed in range(2)), first_chunk=1, num_chunks=3)
    run = tiny.stream(a_plan, prompts=[Prompt(tiny.text(0)), *blend])
    free, generate = [], run._generate
    run._generate = lambda *args: free.append(generate(*args)) or free[-1]
    chunks = list(run.chunks())
    old, new = statistics_of(chunks[0]), statistics_of(chunks[3])
    for index, anchor, weight in ((1, old, 0.6), (2, old, 0.3), (4, new, 0.9)):
        assert torch.allclose(chunks[index], match(free[index], anchor, weight), atol=1e-5)
    assert torch.equal(chunks[3], free[3])


def test_a_kept_run_with_a_blend_knows_how_far_it_has_come():
    """A run that is not kept knows it too. Seen to fail where either forgets it."""
    cues = [Cue(0, "a cat"), Cue(1, "a dog", Change("blend", 4)), Cue(4, "a cat"), Cue(5, "a dog", Change("blend", 2))]
    texts = [tiny.text(seed).context for seed in range(4)]
    placed = Placed(tuple(cues), (0, 1, 5, 6), tiny.plan(num_frames=30), ()).prompts(texts)
    a_run = replace(matched(30), sections=sections_of(placed))
    kept = prompts_of(a_run, [prompt.text.context for prompt in placed])
    for prompts in (kept, placed):
        assert [prompt.share for prompt in prompts] == [1, 0.25, 0.5, 0.75, 1, 1, 0.5, 1]


def test_a_given_chunk_is_left_as_it_is_and_others_follow_it():
    given = torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 + 1
    chunks = chunks_of(tiny.plan(anchor_match=1.0, given_frames=3), given=given)
    assert torch.equal(chunks[0], given)
    assert distance(chunks[1], given) < 1e-4


@pytest.mark.parametrize("cut", [2, 4])
@pytest.mark.parametrize("every", [0, 1])
def test_a_resumed_run_is_the_whole_run(tmp_path, cut, every):
    """Seen to fail with statistics that a snapshot lacks: the run would be matched to another chunk."""
    wanted, _ = finish(create_run(tmp_path / "whole", matched()), **NO_FRAMES)
    begin(tmp_path / "cut", cut, matched(), snapshots=Snapshots(every=every), **NO_FRAMES)
    with resume(tmp_path / "cut", matched()) as journal:
        run = Run(journal, **NO_FRAMES)
        assert same([chunk.latent for chunk in run.chunks()], wanted)
        assert (journal.newest_snapshot() is not None) == bool(every)


def test_extended_and_branched_runs_keep_it(tmp_path):
    wanted, _ = finish(create_run(tmp_path / "long", matched(21)), **NO_FRAMES)
    with create_run(tmp_path / "short", matched(12)) as journal:
        list(Run(journal, **NO_FRAMES).chunks())
        lengthen_run(journal, lengthen(journal.manifest.plan, 21))
        assert same([chunk.latent for chunk in Run(journal, **NO_FRAMES).chunks()], wanted)
    again = branched(matched(21), 3, seed=1)
    with create_branch(tmp_path / "long", tmp_path / "branch", 3, again) as journal:
        assert same([chunk.latent for chunk in Run(journal, **NO_FRAMES).chunks()], wanted)


def test_it_is_part_of_what_a_run_is(tmp_path):
    with_it, without = matched(weight=0.5), manifest(plan())
    assert from_json(to_json(with_it)) == with_it
    assert differences(without, with_it) == ["the anchor match"]
    assert recipes(with_it) != recipes(without)
    create_run(tmp_path / "run", without).close()
    with pytest.raises(ValueError, match="the anchor match changed"):
        resume(tmp_path / "run", with_it)


def test_a_run_of_two_prompts_resumes_behind_the_second(tmp_path):
    sections = [section(), section("a dog", 2)]
    a_run = replace(matched(), sections=tuple(sections))
    wanted, _ = finish(create_run(tmp_path / "whole", a_run), **NO_FRAMES)
    begin(tmp_path / "cut", 4, a_run, snapshots=Snapshots(every=3), **NO_FRAMES)
    with resume(tmp_path / "cut", a_run) as journal:
        assert same([chunk.latent for chunk in Run(journal, **NO_FRAMES).chunks()], wanted)


@pytest.mark.parametrize("weight", [-0.1, 1.5])
def test_a_weight_that_is_no_share_is_refused(weight):
    with pytest.raises(ValueError, match=r"is no share: use 0 for none, 0\.5, or at most 1"):
        tiny.plan(anchor_match=weight)


def test_the_command_line_keeps_it_and_refuses_what_is_no_share(here, capsys):
    """Seen to fail with an option that is read and forgotten."""
    short = ["demo", "--seconds", "2", "--mode", "histream-plus"]
    assert main([*short, "--anchor-match", "2", "--run-dir", "run"]) == 2
    assert "is no share" in capsys.readouterr().err
    assert not (here / "run").exists()
    assert main([*short, "--anchor-match", "1", "--run-dir", "run"]) == 0
    with resume(here / "run") as journal:
        assert journal.manifest.plan.anchor_match == 1
        assert distance(journal.read(1), journal.read(0)) < 1e-4
