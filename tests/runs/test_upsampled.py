"""Kept runs with a learned way up from LOW to HIGH: what it remembers is stored, and a run goes on bit for bit."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny_runs import SMALL, Run, begin, finish, plan, prompts_of, recipes, same
from tiny_runs import manifest as tiny_manifest

from histream_core import runs as session
from histream_core.network.cache.tiers import make_caches
from histream_core.network.cache.window import CacheOptions
from histream_core.plan.schedule import Scale
from histream_core.runs import describe
from histream_core.runs.store.journal import Journal
from histream_core.runs.store.manifest import UPSAMPLER, differences
from histream_core.runs.store.video import run_bytes
from histream_core.stream.stream import Stream
from histream_core.stream.upsampling import LearnedUpsampling
from histream_core.vae.upsampler import LatentUpsampler


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LatentUpsampler(4, 6, 4).requires_grad_(False)


NETWORK = network()


def manifest(upsampler=NETWORK, num_frames=14):
    plain = tiny_manifest(plan(num_frames), **SMALL)
    mark = {UPSAMPLER: session.fingerprint_weights(upsampler)} if upsampler else {}
    return replace(plain, fingerprint={**plain.fingerprint, **mark})


@pytest.fixture(autouse=True, scope="module")
def upsampled():
    """Streams of the tiny runs take the network where their manifest names it."""
    import tiny

    def stream(self, a_plan, noise, inputs):
        named = UPSAMPLER in self.journal.manifest.fingerprint
        way = LearnedUpsampling(NETWORK, a_plan, inputs.given_low) if named else None
        caches = make_caches(a_plan, tiny.CONFIG, CacheOptions(kv=self.kv))
        prompts = prompts_of(self.journal.manifest)
        return Stream(a_plan, self.call, caches, noise, prompts, channels=4, inputs=inputs, upsample=way)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "stream", stream)
        yield


@pytest.fixture(scope="module")
def whole(upsampled, tmp_path_factory):
    """The latents of a run that nobody stops, which are others than without the network."""
    place = tmp_path_factory.mktemp("whole")
    latents, _ = finish(session.create_run(place / "whole", manifest()))
    plain, _ = finish(session.create_run(place / "plain", manifest(None)))
    assert not same(plain, latents)
    return latents


def test_room_is_asked_for_the_estimates_too(tmp_path, monkeypatch):
    """Seen to fail where latents at HIGH alone are counted."""
    run, plain = manifest(), manifest(None)
    more, less = (sum(run_bytes(run.plan, run.settings, low=low).values()) for low in (True, False))
    assert more - less == 16 * 4 * run.plan.generated_frames * math.prod(run.plan.grids[Scale.LOW])
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=1.1 * more - 10))
    monkeypatch.setattr(describe, "check_memory", lambda *args, **options: None)
    describe.check_possible(None, tmp_path, plain)
    with pytest.raises(OSError, match="free space"):
        describe.check_possible(None, tmp_path, run)


@pytest.mark.parametrize("stopped", [1, 3, 4])
@pytest.mark.parametrize("snapshots", [0, 1])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(whole, tmp_path, stopped, snapshots):
    """Seen to fail without the estimates in the journal, and with a memory that begins anew."""
    every = session.Snapshots(every=snapshots, on_cancel=bool(snapshots))
    begin(tmp_path / "cut", stopped, manifest(), snapshots=every)
    assert same(finish(session.resume(tmp_path / "cut"))[0], whole)
    with Journal(tmp_path / "cut") as journal:
        assert journal.read_low(2).shape[-2:] == journal.manifest.plan.grids[Scale.LOW]


def test_a_run_without_it_has_the_files_of_before(tmp_path):
    finish(session.create_run(tmp_path / "plain", manifest(None)))
    with Journal(tmp_path / "plain") as journal:
        assert journal._read(0).keys() == {"latent"}


def test_a_branch_shares_chunks_only_with_an_upsampler_of_its_own(tmp_path):
    finish(session.create_run(tmp_path / "with", manifest()))
    finish(session.create_run(tmp_path / "without", manifest(None)))
    for name, other, way in (("with", None, "give one"), ("without", NETWORK, "leave it out")):
        with pytest.raises(ValueError, match=way):
            session.create_branch(tmp_path / name, tmp_path / "new", 2, manifest(other))
        assert not (tmp_path / "new").exists()
    session.create_branch(tmp_path / "with", tmp_path / "new", 2, manifest(network(1))).close()
    session.create_branch(tmp_path / "with", tmp_path / "none", 0, manifest(None)).close()


def test_another_one_is_named_and_changes_every_recipe():
    mine, other = manifest(), manifest(network(1))
    assert differences(mine, other) == ["the upsampler"]
    assert not {*recipes(mine)} & {*recipes(other)}
