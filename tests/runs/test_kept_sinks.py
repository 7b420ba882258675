"""Kept runs whose sinks give way: which frames a chunk saw is journaled and part of snapshots."""

from dataclasses import replace

import pytest
import torch
from slow import every
from tiny_runs import Run, begin, check_longer_and_retried, finish, manifest, plan, recipes, same

from histream_core.files.tensors import pack, read_safetensors
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.schedule import make_steps
from histream_core.plan.sinks import SinkRule
from histream_core.plan.window import Window
from histream_core.runs import DamagedRunError, Journal, Snapshots, create_run, resume
from histream_core.runs.store.fingerprint import hash_tensor
from histream_core.runs.store.journal import chunk_path
from histream_core.runs.store.manifest import differences, from_json, to_json

NO_FRAMES = {"decoder": False}


def sinks_run(num_frames=14, threshold: float | None = 0.93, **settings):
    rule = None if threshold is None else SinkRule(threshold)
    usual = {"schedule": (make_steps((1000, 500), 1),), "window": Window(1, 3, 2), "temporal": TemporalPolicy(span=6)}
    return manifest(plan(num_frames, sinks=rule, **usual | settings))


def sinks_in(folder):
    with Journal(folder) as journal:
        return [journal.read_sinks(chunk) for chunk in journal.manifest.plan.chunks[: journal.finished]]


@pytest.mark.parametrize(
    ("cut", "snapshots", "kv"),
    every([9, 2], [Snapshots(), Snapshots(every=3), Snapshots(on_cancel=True)], ["full", "lean"]),
)
def test_a_resumed_run_is_the_whole_run(tmp_path, cut, snapshots, kv):
    """Law L4. Seen to fail with the first frames as the sinks of what is replayed, and without them in snapshots."""
    a_run, options = sinks_run(), {"kv": kv, **NO_FRAMES}
    wanted, _ = finish(create_run(tmp_path / "whole", a_run), **options)
    begin(tmp_path / "cut", cut, a_run, snapshots=snapshots, **options)
    with resume(tmp_path / "cut", a_run) as journal:
        run = Run(journal, **options)
        assert same([chunk.latent for chunk in run.chunks()], wanted)
    assert run.steps == 2 * (14 - cut)
    assert sinks_in(tmp_path / "cut") == sinks_in(tmp_path / "whole")
    assert len({*sinks_in(tmp_path / "whole")}) > 6, "some sinks gave way"


def test_a_resumed_run_goes_on_from_the_sinks_that_were_seen(tmp_path):
    """They are read, not decided again. Seen to fail where the rule is asked for what is finished."""
    begin(tmp_path, 6, sinks_run(), **NO_FRAMES)
    with Journal(tmp_path) as journal:
        before = [journal.read_sinks(chunk) for chunk in journal.manifest.plan.chunks[:6]]
        run = Run(journal, **NO_FRAMES)
        stream, _ = run.session._open_stream(replace(journal.manifest.plan, replayed_chunks=6), None)
        stream.plan = replace(stream.plan, sinks=SinkRule(-1))
        seen = [stream.sinks for _ in zip(range(6), stream.chunks(), strict=False)]
    assert seen == before
    assert seen[-1] != (0, 1, 2)


def test_a_run_is_made_longer_and_retried(tmp_path):
    check_longer_and_retried(tmp_path, sinks_run(9), sinks_run(15))


def test_a_run_that_becomes_long_enough_for_its_anchor_to_move_leaves_its_snapshot(tmp_path):
    """The snapshot has no un-rotated keys. Seen to fail where those of the sinks are not missed."""
    short, long = sinks_run(6), sinks_run(15)
    assert (short.plan.moving_pages, long.plan.moving_pages) == (0, 4)
    wanted, _ = finish(create_run(tmp_path / "whole", long), **NO_FRAMES)
    begin(tmp_path / "cut", 5, short, snapshots=Snapshots(every=4), **NO_FRAMES)
    with Journal(tmp_path / "cut") as journal:
        journal.rewrite(replace(long, plan=long.plan))
        assert journal.newest_snapshot()
        assert same([chunk.latent for chunk in Run(journal, **NO_FRAMES).chunks()], wanted)


def test_a_chunk_that_lacks_its_sinks_or_has_others_is_refused(tmp_path):
    begin(tmp_path / "run", 6, sinks_run(), **NO_FRAMES)
    path = chunk_path(tmp_path / "run", 5)
    tensors, metadata = read_safetensors(path)
    path.write_bytes(pack({"latent": tensors["latent"]}, metadata))
    with pytest.raises(DamagedRunError, match="holds latent: it must hold one latent and sinks"):
        Journal(tmp_path / "run")
    for sinks in ([0, 1, 9], [0, 1], [1, 0, 2], [0, 0, 2]):
        other = torch.tensor(sinks)
        path.write_bytes(pack(tensors | {"sinks": other}, metadata | {"sha256_sinks": hash_tensor(other)}))
        with pytest.raises(DamagedRunError, match="holds no 3 sinks before frame 5"):
            Journal(tmp_path / "run")
    path.write_bytes(pack(tensors | {"sinks": torch.tensor([0, 1, 2 + (tensors["sinks"][2] == 2)])}, metadata))
    with pytest.raises(DamagedRunError, match="its checksum does not fit"):
        Journal(tmp_path / "run")


def test_the_rule_is_part_of_every_recipe_where_it_is_set_and_of_no_other():
    """Seen to fail where the rule is left out of the recipe."""
    a_run, other, fixed = sinks_run(), sinks_run(threshold=0.5), sinks_run(threshold=None)
    assert from_json(to_json(a_run)) == a_run
    assert not {*recipes(a_run)} & {*recipes(other)} and not {*recipes(a_run)} & {*recipes(fixed)}
    assert differences(fixed, a_run) == ["the sinks"]


def test_a_chunk_of_a_run_whose_sinks_stay_holds_what_it_held(tmp_path):
    begin(tmp_path, 1, sinks_run(threshold=None), **NO_FRAMES)
    assert [*read_safetensors(chunk_path(tmp_path, 0))[0]] == ["latent"]
