"""Kept runs whose anchor walks or is an average, and those that jump in time: resumed, made longer, and told apart."""

import json
from dataclasses import replace

import pytest
from slow import crossed
from tiny_runs import Run, begin, check_longer_and_retried, finish, manifest, plan, recipes, same, section

from histream_core.plan.anchoring import AnchorSource, Starts
from histream_core.plan.chunks import with_anchors
from histream_core.plan.positions import TemporalPolicy
from histream_core.runs import Snapshots, branched, create_run, resume
from histream_core.runs.store.manifest import differences, from_json, to_json

NO_FRAMES = {"decoder": False}
KINDS = {
    "walk": {"anchor_source": AnchorSource(walk=5)},
    "average": {"anchor_source": AnchorSource(share=0.7)},
    "jump": {"jumps": (6, 15)},
}


def a_run(kind, num_frames=18):
    settings = dict(KINDS[kind])
    jumps = settings.pop("jumps", ())
    made = plan(num_frames, temporal=TemporalPolicy(span=6), **settings)
    return manifest(with_anchors(made, (), (), [jump for jump in jumps if jump < num_frames]))


@pytest.mark.parametrize(
    ("kind", "cut", "snapshots", "kv"),
    crossed(KINDS, [3, 5], [Snapshots(), Snapshots(every=2), Snapshots(on_cancel=True)], ["full", "lean"]),
)
def test_a_resumed_run_is_the_whole_run(tmp_path, kind, cut, snapshots, kv):
    """Seen to fail without the values of an average in snapshots, and with frames of a walk that are forgotten."""
    run, options = a_run(kind), {"kv": kv, **NO_FRAMES}
    wanted, _ = finish(create_run(tmp_path / "whole", run), **options)
    begin(tmp_path / "cut", cut, run, snapshots=snapshots, **options)
    with resume(tmp_path / "cut", run) as journal:
        assert same([chunk.latent for chunk in Run(journal, **options).chunks()], wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_made_longer_and_retried(tmp_path, kind):
    check_longer_and_retried(tmp_path, a_run(kind, 9), replace(a_run(kind, 15), plan=a_run(kind, 15).plan))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_part_of_every_recipe_where_it_is_set_and_of_no_other_manifest(kind):
    """Seen to fail where it is left out of the recipes."""
    run, usual = a_run(kind), manifest(plan(18, temporal=TemporalPolicy(span=6)))
    assert from_json(to_json(run)) == run and from_json(to_json(usual)) == usual
    shared = 2 if kind == "jump" else 0  # the chunks before it
    assert [*map(str.__eq__, recipes(run), recipes(usual))] == [index < shared for index in range(6)]
    words = {"jump": "where the time jumps"}.get(kind, "what the anchor holds")
    assert differences(usual, run) == [words]
    assert not {"anchor_source", "jumps"} & json.loads(to_json(usual))["run"]["plan"].keys()


def test_a_branch_keeps_the_jumps_before_it_and_has_its_own():
    """Seen to fail where a branch with other prompts jumps where the old one did."""
    run, dog = a_run("jump"), section("a dog")
    assert branched(run, 3, seed=7).plan.jumps == (6, 15)
    assert branched(run, 3, sections=[dog]).plan.jumps == (6,)
    assert branched(run, 3, sections=[dog], starts=Starts(jumps=[9])).plan.jumps == (6, 9)
