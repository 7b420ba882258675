"""Scenes of one video, each made in a folder of its own: the run that they become is the run that was made at once."""

import itertools
from dataclasses import replace

import pytest
import tiny
import tiny_runs
from slow import few
from tiny_runs import SMALL, complete, files_in, finish, manifest, section

from histream_core import runs as session
from histream_core.plan.chunks import with_anchors
from histream_core.plan.entry import Restyle
from histream_core.plan.histories import EACH_STEP
from histream_core.plan.order import DIAGONAL
from histream_core.plan.parts import parts_of
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.schedule import make_steps
from histream_core.runs.store.joining import join_parts
from histream_core.runs.store.manifest import from_json, to_json
from histream_core.runs.store.video import chunks_on_disk

SCENES = (6, 12)
"""The latent frames at which the second and the third scene begin, with chunks 2 and 4."""

PARTS = (range(2), range(2, 4), range(4, 7))

WAYS = {
    "histream": {},
    "plus": {"mode": "histream-plus"},
    "moving": {"temporal": TemporalPolicy("clamped", span=4)},
    "rerotated": {"temporal": TemporalPolicy("rerotate", span=8, restart=4)},
    "matched": {"anchor_match": 0.5},
    "clean anchors": {"levers": ("clean-anchor", "survivors")},
    "last steps": {"levers": ("last-step", "pooled-low")},
    "each step": {"mode": "full", "histories": EACH_STEP, "schedule": (make_steps((1000, 750, 500), 0),)},
}


def scenes(num_frames=20, **settings):
    """A run of seven chunks in three scenes; within the second one the prompt changes, and sees what came before."""
    a_plan = with_anchors(tiny_runs.plan(num_frames, **settings), (), SCENES)
    prompts = [
        section(),
        section("a dog", 2),
        section("a cat", 3, recache="histories" not in settings),
        section("a dog", 4),
    ]
    speed = session.Settings.speed if "levers" not in settings else levers(settings["levers"])
    return manifest(a_plan, sections=prompts, speed=speed, **SMALL)


def levers(names):
    high = next((name for name in names if name in ("clean-anchor", "last-step")), "clean")
    frames, low = "survivors" if "survivors" in names else "all", "pooled-low" if "pooled-low" in names else "clean"
    return replace(session.Settings.speed, high_keys=high, cached_frames=frames, low_keys=low)


def make_part(folder, run, chunks, **options):
    """The folder of a part, made to its end."""
    return complete(session.start_or_resume(folder / str(chunks.start), replace(run, part=chunks)), **options)


def make_parts(folder, run):
    """The folders of all parts, the last one made first."""
    return [make_part(folder, run, chunks) for chunks in reversed(parts_of(run.plan).chunks)][::-1]


@pytest.mark.parametrize("way", few(WAYS, 2))
def test_parts_become_the_run_that_was_made_at_once(tmp_path, way):
    """Latents, video and all other files, bit for bit. Seen to fail where a part draws noise by its own numbers."""
    run = scenes(**WAYS[way])
    wanted = files_in(complete(session.create_run(tmp_path / "whole", run)))
    parts = make_parts(tmp_path, run)
    assert [sorted(path.stem for path in (part / "chunks").iterdir()) for part in parts] == [
        [f"{index:05d}" for index in chunks] for chunks in PARTS
    ]
    assert not any((part / "segments").exists() for part in parts)
    with join_parts(parts, tmp_path / "joined") as joined:
        assert (joined.finished, chunks_on_disk(joined)) == (7, 0)
        assert joined.manifest == run
    joined = session.resume(tmp_path / "joined", run)
    assert files_in(complete(joined, on_call=lambda: 1 / 0)) == wanted


@pytest.mark.parametrize("kv", ["lean", "cpu", "fp8"])
def test_a_part_has_the_latents_of_the_run_in_every_memory_tier(tmp_path, kv):
    run = scenes()
    wanted, _ = finish(session.create_run(tmp_path / "whole", run), decoder=False, kv=kv)
    part = finish(session.create_run(tmp_path / "part", replace(run, part=PARTS[1])), decoder=False, kv=kv)[0]
    assert tiny_runs.same(part, wanted[2:4])


def test_a_part_that_was_stopped_goes_on_and_makes_no_chunk_again(tmp_path):
    run = replace(scenes(), part=PARTS[2])
    with session.create_run(tmp_path / "whole", run) as journal:
        whole = tiny_runs.Run(journal, decoder=False)
        wanted = [chunk.latent for chunk in whole.chunks()]
    tiny_runs.begin(tmp_path / "cut", 6, run, decoder=False)
    with session.resume(tmp_path / "cut", run) as journal:
        assert journal.finished == 6
        again = tiny_runs.Run(journal, decoder=False)
        found = list(again.chunks())
    assert tiny_runs.same([chunk.latent for chunk in found], wanted)
    assert [chunk.new for chunk in found] == [False, False, True]
    assert again.steps == len(run.plan.chunks[6].steps)


def test_the_calls_of_a_part_are_counted_and_no_others(tmp_path):
    """The time left follows from the calls and frames of the part. Seen to fail with those of the whole video, and
    with those of the chunks before it."""
    run = scenes()
    for part, first, last in (PARTS[1], (2, 21), (4, 45)), (PARTS[2], (4, 45), (7, 77)):
        seen, calls = [], itertools.count()

        def report(progress, seen=seen):
            seen.append((progress.chunks, progress.frames, progress.num_calls, progress.pace.seconds_left))

        make_part(tmp_path, run, part, report=report, on_call=lambda calls=calls: next(calls))
        assert [seen[0][:2], seen[-1][:2]] == [first, last]
        assert {found[2] for found in seen} == {next(calls)}
        assert seen[-1][3] == 0


def test_a_plan_says_into_which_parts_it_falls_or_why_it_does_not():
    a_plan = scenes().plan
    assert parts_of(a_plan).chunks == PARTS
    assert parts_of(a_plan).why_one == ""
    assert parts_of(tiny_runs.plan(20)).why_one == "it has one scene"
    first = with_anchors(tiny.plan(num_frames=16, given_frames=1, first_frame=True), (), (7,))
    assert parts_of(first).chunks == (range(3), range(3, 6))
    given = with_anchors(tiny.plan(num_frames=15, given_frames=6), (), (6,))
    assert parts_of(given).why_one == "it has one scene"
    restyled = replace(a_plan, restyle=Restyle(0.5))
    assert parts_of(restyled).chunks == (range(7),)
    assert parts_of(restyled).why_one == "the video that it restyles is encoded from its beginning on"
    diagonal = replace(scenes(**WAYS["each step"]).plan, order=DIAGONAL)
    assert "in the order diagonal a scene begins before" in parts_of(diagonal).why_one


def test_parts_that_do_not_belong_together_are_refused(tmp_path):
    run = scenes()
    parts = make_parts(tmp_path, run)
    other = make_part(tmp_path / "other", replace(run, seeds=(session.Seed(0, 9),)), PARTS[1])
    refused = {
        "differs from the one in .* in the seed": [parts[0], other, parts[2]],
        "no part of the run in .* has chunk 2": [parts[0], parts[2]],
        "no part of the run in .* has chunk 4": parts[:2],
        "no part of the run in .* has chunk 0": parts[1:],
    }
    for said, wrong in refused.items():
        with pytest.raises(ValueError, match=said):
            join_parts(wrong, tmp_path / "joined")
    (parts[1] / "chunks" / "00003.safetensors").unlink()
    with pytest.raises(session.DamagedRunError, match=r"00003.safetensors is missing: submit the list again"):
        join_parts(parts, tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_a_part_is_neither_branched_nor_extended_and_takes_no_chunk_of_another(tmp_path):
    part = make_part(tmp_path, scenes(), PARTS[1])
    with pytest.raises(ValueError, match="holds a part of a run alone"):
        session.create_branch(part, tmp_path / "branch", 3)
    with session.resume(part) as journal, pytest.raises(ValueError, match="chunk 4 cannot follow"):
        journal.write(4, journal.read(3))
    (part / "chunks" / "00002.safetensors").unlink()
    with pytest.raises(session.DamagedRunError, match=r"00002.safetensors is missing, but chunk 3 is there"):
        session.resume(part)


def test_a_manifest_without_a_part_is_as_it_was_before_there_were_parts():
    run = scenes()
    assert '"part"' not in to_json(run)
    part = replace(run, part=PARTS[1])
    assert from_json(to_json(part)) == part
    for wrong in (range(4, 9), range(3, 3)):
        with pytest.raises(ValueError, match="are no part of a run of 7"):
            replace(run, part=wrong)
