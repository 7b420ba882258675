"""Kept runs under levers: keys that are not those of a clean latent come back too."""

from dataclasses import replace

import pytest
import tiny_runs
import torch
from slow import slow
from tiny_runs import Run, begin, check_longer_and_retried, finish, manifest, plan, recipes, same

from histream_core.plan.speed import Speed
from histream_core.runs import DamagedRunError, Journal, Snapshots, create_run, resume
from histream_core.runs.store.journal import chunk_path
from histream_core.runs.store.manifest import differences, from_json, to_json

LEVERS = [["last-step"], ["clean-anchor", "survivors"], ["last-step", "pooled-low"], ["survivors", "pooled-low"]]
NO_FRAMES = {"decoder": False}


def lever_run(levers, num_frames=14):
    fields = {
        "clean-anchor": "high_keys",
        "last-step": "high_keys",
        "survivors": "cached_frames",
        "pooled-low": "low_keys",
    }
    speed = Speed(**{fields[lever]: lever for lever in levers})
    return manifest(plan(num_frames, levers=levers), speed=speed.approximations)


@pytest.mark.parametrize("kv", ["lean", slow("full")])
@pytest.mark.parametrize("levers", LEVERS, ids="+".join)
def test_a_resumed_run_is_the_whole_run_and_denoises_nothing_again(tmp_path, levers, kv):
    """But for last steps whose keys are kept. Seen to fail with clean passes in their place."""
    a_run, options = lever_run(levers), {"kv": kv, **NO_FRAMES}
    wanted, _ = finish(create_run(tmp_path / "whole", a_run), **options)
    begin(tmp_path / "cut", 3, a_run, **options)
    with resume(tmp_path / "cut", a_run) as journal:
        run = Run(journal, **options)
        assert same([chunk.latent for chunk in run.chunks()], wanted)
    again = sum(chunk.kept is not None for chunk in a_run.plan.chunks[:3])
    assert run.steps == 4 * 2 + again


@pytest.mark.parametrize("levers", LEVERS, ids="+".join)
def test_snapshots_hold_what_later_chunks_need(tmp_path, levers):
    """Seen to fail where what the last step began with is not read for the chunk behind the snapshot."""
    a_run = lever_run(levers)
    wanted, _ = finish(create_run(tmp_path / "whole", a_run), **NO_FRAMES)
    begin(tmp_path / "cut", 4, a_run, snapshots=Snapshots(every=3), **NO_FRAMES)
    with resume(tmp_path / "cut") as journal:
        assert journal.newest_snapshot()[0] == 2
        assert same([chunk.latent for chunk in Run(journal, **NO_FRAMES).chunks(4)], wanted[4:])


def test_a_lean_cache_that_keeps_steps_has_no_snapshot_to_go_wrong(tmp_path):
    """The last step lies where the past was. Seen to fail with a snapshot that lacks the past."""
    a_run, options = lever_run(["last-step"]), {"kv": "lean", **NO_FRAMES}
    wanted, _ = finish(create_run(tmp_path / "whole", a_run), **options)
    begin(tmp_path / "cut", 4, a_run, snapshots=Snapshots(every=1), **options)
    with resume(tmp_path / "cut") as journal:
        assert journal.newest_snapshot()[0] == 0  # before anything was kept
        assert same([chunk.latent for chunk in Run(journal, **options).chunks()], wanted)


@pytest.mark.parametrize("levers", LEVERS[:2], ids="+".join)
def test_a_run_is_made_longer_and_retried_as_if_it_had_never_stopped(tmp_path, levers):
    """Seen to fail where the last chunk of the short run does not keep what its last step began with."""
    short, long = lever_run(levers, 9), lever_run(levers, 15)
    check_longer_and_retried(tmp_path, short, long)


def test_a_chunk_that_lacks_what_its_last_step_began_with_is_refused(tmp_path):
    begin(tmp_path, 2, lever_run(["last-step"]), **NO_FRAMES)
    exact = begin(tmp_path / "exact", 2, **NO_FRAMES)
    chunk_path(tmp_path, 1).write_bytes(chunk_path(exact, 1).read_bytes())
    with pytest.raises(DamagedRunError, match="holds latent: it must hold one latent and noisy"):
        Journal(tmp_path)


def test_levers_belong_to_what_a_run_is():
    """Levers are in its settings and in its plan alike. Seen to fail where the two may differ."""
    exact, survivors, pooled = (lever_run(levers) for levers in ([], ["survivors"], ["pooled-low"]))
    assert from_json(to_json(survivors)) == survivors
    firsts = {recipes(each)[0] for each in (exact, survivors, pooled)}
    assert len(firsts) == 3
    assert differences(exact, survivors)[0] == "the setting cached_frames (survivors, was all)"
    with pytest.raises(ValueError, match="planned with clean keys, not with survivors: leave that as it is"):
        replace(exact, settings=survivors.settings)


def test_an_exact_run_keeps_latents_alone(tmp_path):
    with create_run(tmp_path, manifest()) as journal:
        next(iter(Run(journal, **NO_FRAMES).chunks()))
        assert torch.equal(journal.read(0), journal.frames(range(3)))
        with pytest.raises(KeyError):
            journal.read_noisy(0)
    assert tiny_runs.files_in(tmp_path).keys() == {"chunks/00000.safetensors"}


# On the command line


@pytest.mark.slow
def test_a_plan_is_told_with_levers(say):
    """Seen to fail with options that are read and not used."""
    words = ["plan", "--mode", "histream-plus"]
    exact, fewer = say(*words)[1], say(*words, "--high-keys", "last-step", "--low-keys", "pooled-low")[1]
    assert (exact["levers"], fewer["levers"]) == ([], ["last-step", "pooled-low"])
    assert exact["passes"][1] == {"low": 2, "high": 2} and fewer["passes"][1] == {"low": 1, "high": 1}
    assert fewer["tflops_per_frame"] < 0.6 * exact["tflops_per_frame"]


def test_a_run_goes_on_with_its_levers_and_with_no_others(here, say):
    """Seen to fail with a resumed run that takes the defaults."""
    prompt = ["a red circle", "--seconds", "1.5"]
    status, result = say("demo", *prompt, "--run-dir", "run", "--high-keys", "last-step")
    assert (status, result["kernels"]["levers"]) == (0, "last-step")
    last = here / "run" / "chunks" / "00002.safetensors"
    whole = last.read_bytes()
    last.unlink()
    (here / "run" / "segments" / "seg-00002.mp4").unlink()
    status, said = say("resume", "run", "--high-keys", "clean")
    assert status == 2 and "planned with last-step, not with clean keys" in said
    assert say("resume", "run")[1]["kernels"]["levers"] == "last-step"
    assert last.read_bytes() == whole
    assert say("demo", *prompt, "--out", "exact.mp4")[1]["kernels"]["levers"] == "none"
    assert (here / "exact.mp4").read_bytes() != (here / "run" / "video.mp4").read_bytes()
    status, said = say("branch", "run", "other", "--from", "1", "--cached-frames", "survivors")
    assert status == 2 and "begin a new run" in said and not (here / "other").exists()
