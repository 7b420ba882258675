"""A run in pieces is the run in one piece, byte for byte."""

import math
from dataclasses import replace

import pytest
import tiny
import tiny_runs
import torch
from slow import slow
from tiny_runs import Run, begin, finish, manifest, plan, retry, same

from histream_core import runs as session
from histream_core.plan.make import make_plan
from histream_core.plan.presets import find_preset
from histream_core.runs import Snapshots, branched, create_branch, create_run, lengthen_run, resume
from histream_core.runs.session import Decoding
from histream_core.stream.inputs import Inputs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Latents and frames of the run that nothing interrupts: 5 chunks, the last one cropped."""
    return finish(create_run(tmp_path_factory.mktemp("run") / "whole", manifest()))


def test_a_kept_run_makes_what_a_stream_makes(whole):
    latents, frames = whole
    stream = tiny.video(plan(15), model=tiny_runs.MODEL)
    assert torch.equal(torch.cat(latents, dim=2), stream)
    assert [x.shape for x in frames] == [(1, n, 16, 16, 3) for n in (9, 12, 12, 12, 8)]


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_resumed_run_is_the_whole_run_and_denoises_nothing_again(whole, tmp_path, cut):
    begin(tmp_path, cut)
    with resume(tmp_path, manifest()) as journal:
        run = Run(journal)
        chunks = list(run.chunks())
    assert same([chunk.latent for chunk in chunks], whole[0])
    assert same([chunk.frames for chunk in chunks], whole[1])
    assert [chunk.new for chunk in chunks] == [i >= cut for i in range(5)]
    assert run.steps == 4 * (5 - cut)
    assert run.passes == (8 if cut < 5 else 0)


@pytest.mark.parametrize("cut", [0, 3])
def test_chunks_that_are_decoded_ahead_are_the_same(whole, tmp_path, cut):
    """Seen to fail where a chunk is decoded as another one."""
    if cut:
        begin(tmp_path, cut)
    with resume(tmp_path, manifest()) if cut else create_run(tmp_path / "run", manifest()) as journal:
        chunks = list(Run(journal, decoding=Decoding(ahead=True)).chunks())
    assert same([chunk.latent for chunk in chunks], whole[0])
    assert same([chunk.frames for chunk in chunks], whole[1])
    assert [chunk.chunk.index for chunk in chunks] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("first_frames", "every"), [(1, 2), (4, 0), slow(3, 0), slow(4, 2), slow(5, 0)])
def test_frames_that_are_on_disk_are_not_decoded_again(whole, tmp_path, first_frames, every):
    begin(tmp_path, 4, snapshots=Snapshots(every=every))
    latents, frames = finish(resume(tmp_path), first_frames)
    skipped = min(first_frames, 4)
    assert same(latents, whole[0][skipped:])
    assert [x is None for x in frames] == [first_frames > 4] * (5 - skipped) or first_frames < 5
    assert same([x for x in frames if x is not None], whole[1][first_frames:])


def test_a_long_stream_is_entered_as_far_back_as_the_vae_remembers(tmp_path):
    """Seen to fail with a memory of 20 frames."""
    long = manifest(plan(45, mode="full", width=16, height=16))
    wanted = finish(create_run(tmp_path, long))
    assert same(finish(resume(tmp_path), 14)[1], wanted[1][14:])


def test_a_snapshot_takes_the_place_of_the_clean_passes(whole, tmp_path):
    """Seen to fail with a snapshot that is never found."""
    begin(tmp_path, 4, snapshots=Snapshots(every=3))
    with resume(tmp_path) as journal:
        run = Run(journal)
        chunks = list(run.chunks(3))
    assert same([chunk.latent for chunk in chunks], whole[0][3:])
    assert same([chunk.frames for chunk in chunks], whole[1][3:])
    assert (run.steps, run.passes) == (4, 4)


def cancel_at(call):
    calls = iter(range(100))

    def cancel():
        if next(calls) == call:
            raise KeyboardInterrupt

    return cancel


@pytest.mark.parametrize("call", [11, 14, *map(slow, (10, 12, 13, 15))])
def test_a_run_that_is_cancelled_anywhere_goes_on_from_its_snapshot(whole, tmp_path, call):
    with create_run(tmp_path, manifest()) as journal, pytest.raises(KeyboardInterrupt):
        list(Run(journal, on_call=cancel_at(call), snapshots=Snapshots(on_cancel=True)).chunks())
    with resume(tmp_path) as journal:
        done, run = journal.finished, Run(journal)
        assert journal.newest_snapshot()[:2] == (done - (call % 6 in (4, 5)), done)
        chunks = list(run.chunks(done))
    assert same([chunk.latent for chunk in chunks], whole[0][done:])
    assert same([chunk.frames for chunk in chunks], whole[1][done:])
    assert run.passes <= 2 * (5 - done)


@pytest.mark.parametrize(("call", "kept"), [(11, True), (12, False), (13, False), (14, True)])
def test_a_run_that_is_cancelled_while_it_changes_prompts_goes_on(tmp_path, call, kept):
    """Calls 12 and 13 compute the window anew. Seen to fail with a snapshot taken where one cache is not through."""
    changed = manifest(sections=[tiny_runs.section(), tiny_runs.section("a dog", 2, recache=True)])
    wanted, _ = finish(create_run(tmp_path / "whole", changed), decoder=False)
    with create_run(tmp_path / "cut", changed) as journal, pytest.raises(KeyboardInterrupt):
        options = {"on_call": cancel_at(call), "snapshots": Snapshots(on_cancel=True), "decoder": False}
        list(Run(journal, **options).chunks())
    with resume(tmp_path / "cut") as journal:
        assert (journal.newest_snapshot() is not None) == kept
    assert same(finish(resume(tmp_path / "cut"), decoder=False)[0], wanted)


def test_a_snapshot_of_a_decode_that_was_stopped_half_way_leaves_the_vae_out(whole, tmp_path):
    with create_run(tmp_path, manifest()) as journal:
        run = Run(journal, snapshots=Snapshots(on_cancel=True))
        decoder = run.session.decoder
        run_layers = decoder._run_layers

        def stop(*args, **kwargs):
            if journal.finished == 3:
                raise KeyboardInterrupt
            return run_layers(*args, **kwargs)

        decoder._run_layers = stop
        with pytest.raises(KeyboardInterrupt):
            list(run.chunks())
    with resume(tmp_path) as journal:
        assert journal.newest_snapshot()[:2] == (2, 0)
    assert same(finish(resume(tmp_path), 2)[1], whole[1][2:])


def test_a_damaged_snapshot_costs_time_and_nothing_else(whole, tmp_path):
    begin(tmp_path, 4, snapshots=Snapshots(every=2))
    (path,) = (tmp_path / "snapshots").iterdir()
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with resume(tmp_path) as journal:
        assert journal.newest_snapshot() is None
    assert same(finish(resume(tmp_path))[0], whole[0])


def test_a_longer_run_is_the_run_that_was_long_from_the_start(whole, tmp_path):
    longer = plan(21)
    wanted = finish(create_run(tmp_path / "long", manifest(longer)))
    finish(create_run(tmp_path / "cut", manifest()), snapshots=Snapshots(every=2))
    with resume(tmp_path / "cut") as journal:
        lengthen_run(journal, longer)
    latents, frames = finish(resume(tmp_path / "cut", manifest(longer)))
    assert same(latents, wanted[0])
    assert same(frames, wanted[1])


def test_an_extension_can_have_a_prompt_of_its_own(whole, tmp_path):
    sections = [tiny_runs.section(), tiny_runs.section("a dog", 5, recache=True)]
    wanted = finish(create_run(tmp_path / "long", manifest(plan(24), sections=sections)))
    finish(create_run(tmp_path / "cut", manifest()))
    with resume(tmp_path / "cut") as journal:
        lengthen_run(journal, plan(24), [tiny_runs.section("a dog", recache=True)])
    latents, frames = finish(resume(tmp_path / "cut", manifest(plan(24), sections=sections)))
    assert same(latents, wanted[0])
    assert same(frames, wanted[1])


def test_an_extension_by_less_than_a_chunk_denoises_nothing(whole, tmp_path):
    finish(create_run(tmp_path, manifest()))
    with resume(tmp_path) as journal:
        lengthen_run(journal, plan(15))
        run = Run(journal)
        frames = [chunk.frames for chunk in run.chunks()]
    assert (run.steps, run.passes, frames[-1].shape[1]) == (0, 0, 12)


def test_an_extension_with_other_settings_is_refused(whole, tmp_path):
    finish(create_run(tmp_path, manifest()))
    with resume(tmp_path) as journal:
        with pytest.raises(ValueError, match="differs from the run's in the steps"):
            lengthen_run(journal, plan(24, mode="histream-plus"))
        with pytest.raises(ValueError, match="the size"):
            lengthen_run(journal, plan(24, width=64))
        with pytest.raises(ValueError, match="53 frames are not more than the 53 there are"):
            lengthen_run(journal, plan(14))


def test_a_retry_with_the_same_seed_is_the_same_run(whole, tmp_path):
    begin(tmp_path / "first", 4)
    latents, frames = finish(retry(tmp_path / "first", tmp_path / "again", 2, 1))
    assert same(latents, whole[0])
    assert same(frames, whole[1])


def test_a_retry_with_another_seed_differs_from_its_chunk_on(whole, tmp_path):
    begin(tmp_path / "first", 4)
    latents, _ = finish(retry(tmp_path / "first", tmp_path / "again", 2, 7), decoder=False)
    assert same(latents[:2], whole[0][:2])
    assert not any(torch.equal(*pair) for pair in zip(latents[2:], whole[0][2:], strict=True))
    assert same(finish(create_run(tmp_path / "new", manifest(seeds=((0, 1), (2, 7)))), decoder=False)[0], latents)
    assert same(finish(resume(tmp_path / "first"), decoder=False)[0], whole[0])


def test_a_branch_may_go_on_with_another_prompt_and_another_model(tmp_path):
    begin(tmp_path / "first", 3)
    other = tiny.wan(seed=9)
    changed = branched(manifest(model=other), 2, sections=[tiny_runs.section("a dog", recache=True)])
    with create_branch(tmp_path / "first", tmp_path / "new", 2, changed) as journal:
        chunks = Run(journal, model=other, decoder=False).chunks()
        first = [next(chunks).latent for _ in range(3)]
        chunks.close()
    latents, _ = finish(resume(tmp_path / "new", changed), model=other, decoder=False)
    assert same(latents[:3], first)
    assert len(latents) == 5
    grandchild, _ = finish(retry(tmp_path / "new", tmp_path / "newer", 4, 3), model=other, decoder=False)
    assert same(grandchild[:4], latents[:4])
    with pytest.raises(ValueError, match="the model, the prompt"):
        resume(tmp_path / "new", manifest())


def test_given_chunks_are_kept_as_the_others_are(whole, tmp_path):
    continued = manifest(plan(14, given_frames=6))
    given = torch.cat(whole[0], dim=2)
    inputs = Inputs(lambda chunk: given[:, :, chunk.frames.start : chunk.frames.stop])
    begin(tmp_path, 3, continued, inputs=inputs)
    latents, frames = finish(resume(tmp_path, continued))
    assert same(latents, whole[0])
    assert same(frames, whole[1])


def test_given_chunks_that_nobody_gives_are_asked_for(tmp_path):
    with pytest.raises(ValueError, match="chunk 0 is not denoised, and nobody gave its latent"):
        finish(create_run(tmp_path, manifest(plan(14, given_frames=6))))


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        (manifest(model=tiny.wan(seed=3)), "the model changed"),
        (replace(manifest(), fingerprint=manifest().fingerprint | {"vae": "0"}), "the vae changed"),
        (manifest(sections=[tiny_runs.section("a dog")]), 'the prompt ("a dog", was "a cat") changed'),
        (manifest(sections=[session.Section(0, "a cat", "0" * 64)]), "what the text encoder makes of the prompt"),
        (manifest(seeds=[(0, 2)]), "the seed (2, was 1) changed"),
        (manifest(fps=24.0), "the setting fps (24.0, was 16.0) changed"),
        (manifest(format="png8", output="pictures"), "the setting format (png8, was h264-mp4)"),
        (manifest(plan(17)), "the length changed"),
        (manifest(plan(mode="histream-plus")), "the steps changed"),
        (manifest(plan(ntk_high=3.0)), "the NTK factors changed"),
    ],
)
def test_a_run_under_other_conditions_is_refused_by_name(tmp_path, changed, name):
    begin(tmp_path, 1)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError) as caught:
        resume(tmp_path, changed)
    assert name in str(caught.value)
    assert "branch" in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    resume(tmp_path, manifest()).close()


def test_another_environment_is_said_and_not_refused(tmp_path):
    begin(tmp_path, 1)
    now = replace(manifest(), made_with=session.environment() | {"torch": "1.0"})
    with resume(tmp_path, now) as journal:
        (note,) = session.environment_notes(journal, now)
    assert "now it is 1.0" in note


@pytest.mark.parametrize("mode", ["histream", "histream-plus"])
@pytest.mark.parametrize("num_frames", [3, 9])
def test_a_run_is_made_longer_in_the_steps_that_it_would_have_had(mode, num_frames):
    """Seen to fail with the steps of the first chunk for a run that has no other."""

    def of(frames):
        return make_plan(find_preset("demo"), mode, size=(64, 64), num_latent_frames=frames)

    assert session.longer(manifest(of(num_frames), mode=mode), 2.0) == of(num_frames + 8)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(2.0, "two chunks or more"), (0.0, "0 seconds is no length"), (math.inf, "inf")],
)
def test_a_run_that_cannot_be_made_longer_says_why(seconds, said):
    unknown = replace(plan(3), schedule=(plan(3).schedule[0], ()))
    with pytest.raises(ValueError, match=said):
        session.longer(manifest(unknown, mode="custom"), seconds)
