"""Negative prompts by the command line. Tiny random weights stand in for the bundled ones."""

import json

import pytest
from slow import slow
from tiny_cli import BLUE, LENGTH, RED, files_in, refusal_of, render_words, result_of

GUIDED = ["--cfg", "3", "--negative", BLUE]


@pytest.mark.parametrize("how", [GUIDED, slow(["--nag", "6", "--negative", BLUE])], ids=str)
def test_a_run_that_was_stopped_goes_on_with_its_guidance(here, say, stop_at, how):
    """From a snapshot. Seen to fail with the negative prompt's part left out of it, and with plain prompts."""
    go_on = stop_at(13)
    assert say("demo", RED, *LENGTH, *how, "--run-dir", "cut", "--snapshots", "9")[0] == 130
    go_on()
    status, result = say("resume", "cut")
    assert (status, result["passes"]) == (0, {"high": 2, "low": 2})
    say("demo", RED, *LENGTH, *how, "--run-dir", "whole")
    assert files_in("cut")["video.mp4"] == files_in("whole")["video.mp4"]
    say("demo", RED, *LENGTH, "--run-dir", "plain")
    assert files_in("plain")["video.mp4"] != files_in("whole")["video.mp4"]
    run = json.loads((here / "whole" / "manifest.json").read_text())["run"]
    assert run["source"]["negative"] == BLUE
    assert len(list((here / "whole" / "texts").iterdir())) == 2


def test_a_branch_and_a_longer_run_keep_the_negative_prompt(here, say):
    """Seen to fail where a branch takes the prompts' embeddings alone."""
    say("demo", RED, *LENGTH, *GUIDED, "--run-dir", "one")
    assert say("branch", "one", "two", "--from", "1", "--seed", "5")[0] == 0
    assert say("extend", "one", "--seconds", "1")[0] == 0
    for name in ("one", "two"):
        run = json.loads((here / name / "manifest.json").read_text())["run"]
        assert run["plan"]["guidance"]["cfg"] == 3.0
        assert "negative prompt" in run["fingerprint"]
    assert len(list((here / "two" / "texts").iterdir())) == 2


def test_a_run_without_guidance_is_kept_as_before(here, say):
    """Its manifest has no new key. Seen to fail where one is written."""
    say("demo", RED, "--seconds", "1", "--run-dir", "plain")
    assert "guidance" not in json.loads((here / "plain" / "manifest.json").read_text())["run"]["plan"]


def test_an_empty_negative_prompt_is_the_usual_one(here, say):
    say("demo", RED, "--seconds", "1", "--cfg", "3", "--negative", "", "--run-dir", "one")
    say("demo", RED, "--seconds", "1", "--cfg", "3", "--run-dir", "two")
    assert files_in("one")["video.mp4"] == files_in("two")["video.mp4"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--negative", BLUE], "--negative does nothing alone: give --nag 5 for few-step weights, or --cfg 5"),
        (["--cfg", "0"], "CFG 0 cannot be: use 1 for none, 3 to 6, or at most 30"),
        (["--cfg", "3", "--nag", "5"], "both lead away from the negative prompt: set one of them to 1"),
        (
            ["--cfg", "3", "--gpus", "2", "--split", "sequence"],
            "sequence shares passes of one prompt, and CFG 3 needs the negative prompt too: use decode",
        ),
        (
            ["--cfg", "3", "--mode", "full", "--histories", "each-step", "--order", "batched"],
            "take the order diagonal, or set CFG to 1",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(here, capsys, more, message):
    assert message in refusal_of(["demo", RED, "--seconds", "1", *more], capsys)
    assert not list(here.glob("*.mp4"))


def test_embeddings_of_one_prompt_are_no_negative_prompt(weights, here, capsys):
    words = render_words(weights, "--size", "32x32", "--frames", "9", "--nag", "5")
    assert "--embeds holds one prompt, and guidance needs the negative one too" in refusal_of(words, capsys)


def test_a_plan_counts_the_second_pass_and_the_second_caches(capsys):
    """Seen to fail with either left out. NAG reads twice as much text, and no more."""
    plain, cfg, nag = (result_of(["plan", *how], capsys) for how in ([], ["--cfg", "5"], ["--nag", "5"]))
    assert cfg["kv_bytes"] == 2 * plain["kv_bytes"]
    assert cfg["peak_bytes"] - plain["peak_bytes"] == plain["kv_bytes"] + cfg["text_bytes"] - plain["text_bytes"]
    assert cfg["tflops"] == pytest.approx(2 * plain["tflops"], rel=1e-3)
    assert nag["kv_bytes"] == plain["kv_bytes"]
    assert plain["tflops"] < nag["tflops"] < 1.05 * plain["tflops"]
