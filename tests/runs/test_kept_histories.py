"""Kept runs with a history for each step: clean latents do not hold it, so finished chunks are denoised again."""

from dataclasses import replace

import pytest
import tiny
from tiny_runs import Run, begin, check_longer_and_retried, finish, manifest, plan, recipes, same

from histream_core.plan.histories import EACH_STEP
from histream_core.plan.schedule import make_steps
from histream_core.runs import Snapshots, create_run, resume
from histream_core.runs.store.manifest import differences, from_json, to_json

NO_FRAMES = {"decoder": False}
SCHEDULE = (make_steps((1000, 700, 400), 1),)


def each_step_run(num_frames=14):
    return manifest(plan(num_frames, histories=EACH_STEP, schedule=SCHEDULE))


@pytest.mark.parametrize("kv", ["full", "lean"])
def test_a_resumed_run_is_the_whole_run(tmp_path, kv):
    """Seen to fail where the finished chunks are taken from the disk, and their steps left out."""
    a_run, options = each_step_run(), {"kv": kv, **NO_FRAMES}
    wanted, _ = finish(create_run(tmp_path / "whole", a_run), **options)
    begin(tmp_path / "cut", 3, a_run, **options)
    with resume(tmp_path / "cut", a_run) as journal:
        run = Run(journal, **options)
        assert same([chunk.latent for chunk in run.chunks()], wanted)
    assert (run.steps, run.passes) == (3 * a_run.plan.num_chunks, 0)


def test_a_snapshot_has_the_histories_so_that_one_chunk_alone_is_denoised_again(tmp_path):
    a_run = each_step_run()
    wanted, _ = finish(create_run(tmp_path / "whole", a_run), **NO_FRAMES)
    begin(tmp_path / "cut", 4, a_run, snapshots=Snapshots(every=3), **NO_FRAMES)
    with resume(tmp_path / "cut") as journal:
        assert journal.newest_snapshot()[0] == 2
        run = Run(journal, **NO_FRAMES)
        assert same([chunk.latent for chunk in run.chunks(4)], wanted[4:])
    assert run.steps == 3 * (a_run.plan.num_chunks - 2)


def test_a_run_is_made_longer_and_retried(tmp_path):
    short, long = each_step_run(9), each_step_run(15)
    check_longer_and_retried(tmp_path, short, long)


@pytest.mark.parametrize("order", ["diagonal", "batched"])
def test_a_diagonal_run_is_resumed_from_its_beginning(tmp_path, order):
    """Its chunks under way are in no snapshot. Seen to fail where the finished chunks are left out."""
    schedule = (make_steps((1000, 700, 400), 0),)
    a_run = manifest(
        tiny.plan("full", num_frames=18, schedule=schedule, histories=EACH_STEP, order=order), size=(64, 64)
    )
    options = {**NO_FRAMES, "snapshots": Snapshots(every=2, on_cancel=True)}
    wanted, _ = finish(create_run(tmp_path / "whole", a_run), **options)
    begin(tmp_path / "cut", 3, a_run, **options)
    with resume(tmp_path / "cut") as journal:
        assert journal.newest_snapshot() is None
        assert same([chunk.latent for chunk in Run(journal, **options).chunks()], wanted)


def test_histories_are_part_of_the_recipe_and_older_runs_have_clean_ones():
    """Seen to fail where recipes of clean runs change, so that runs of before cannot be resumed."""
    a_run = each_step_run()
    clean = replace(a_run, plan=replace(a_run.plan, histories="clean"))
    assert from_json(to_json(a_run)) == a_run
    assert recipes(a_run)[0] != recipes(clean)[0]
    assert differences(clean, a_run) == ["the histories"]
