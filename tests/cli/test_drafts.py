"""Drafts by the command line: a video of half the size, a sheet of seeds, and chunks that are looked at."""

import io

import numpy as np
import pytest
import torch
from clips import probe
from tiny_cli import LENGTH, RED, files_in, refusal_of

from histream_core.cli import main, review
from histream_core.cli.review import ask_for_seed
from histream_core.cli.verbs import sheet
from histream_core.demo import load_text_encoder
from histream_core.stream.noise import MAX_SEED
from histream_core.video.pictures import write_png

RUN = ["demo", RED, *LENGTH, "--run-dir"]


class Terminal(io.StringIO):
    """A terminal at which these lines are typed."""

    def isatty(self):
        return True


@pytest.fixture
def type_lines(monkeypatch):
    """Sit at a terminal and type these lines; what is asked comes back."""

    def sit(*lines):
        asked = Terminal()
        monkeypatch.setattr("sys.stdin", Terminal("".join(f"{line}\n" for line in lines)))
        monkeypatch.setattr("sys.stderr", asked)
        return asked

    return sit


def test_a_draft_is_a_video_of_half_the_size_without_a_call_at_full(here, say):
    _, whole = say("demo", RED, *LENGTH)
    status, draft = say("demo", RED, *LENGTH, "--draft")
    assert status == 0
    assert (draft["width"], draft["height"], draft["frames"]) == (16, 16, whole["frames"])
    assert draft["passes"] == {"high": 3 * 2 + 2, "low": 0}  # the only grid of a draft is that of LOW
    assert probe(draft["file"]).num_frames == 33


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--mode", "full", "--draft"], "take mode histream"),
        (["--run-dir", "kept", "--draft"], "leave --run-dir out"),
        (["--review"], "there is none: leave it out, or look at many seeds at once with histream sheet --drafts 12"),
    ],
)
def test_what_has_no_draft_is_refused_before_the_weights(here, capsys, monkeypatch, words, why):
    monkeypatch.setattr("histream_core.cli.verbs.videos._load", lambda *_: pytest.fail("the weights were loaded"))
    assert why in refusal_of(["demo", RED, *LENGTH, *words], capsys)
    assert not [*here.iterdir()]


def test_a_sheet_shows_the_drafts_of_many_seeds(here, say, monkeypatch):
    shown = []
    make = sheet.make_strips

    def make_strips(weights, orders, moments, *, size):
        shown.extend((label, order.plan.size, order.noise.seed, size) for label, order in orders)
        return make(weights, orders, moments, size=size)

    monkeypatch.setattr(sheet, "make_strips", make_strips)
    words = ["sheet", "--model", "demo", "--prompt", RED, "--size", "64x64", "--frames", "9", "--seed", "5"]
    status, found = say(*words, "--drafts", "2")
    assert (status, found["strips"]) == (0, ["seed 5", "seed 6"])
    assert shown == [("seed 5", (32, 32), 5, (32, 32)), ("seed 6", (32, 32), 6, (32, 32))]
    assert "at most 1000" in say(*words, "--drafts", "1001")[1]
    assert "leave --prompts and --settings out" in say(*words, "--drafts", "2", "--settings", "thin")[1]


def test_a_draft_of_the_demo_has_the_words_of_its_seed(here, say, monkeypatch):
    """Each is the video of its seed. Seen to fail with the words of the first seed for all."""
    encoder, orders = load_text_encoder(), []
    monkeypatch.setattr(sheet, "completed", lambda prompt, seed: prompt.replace("right", {5: "right", 6: "up"}[seed]))
    monkeypatch.setattr(sheet, "make_strips", lambda _, found, *args, **rest: orders.extend(found) or [[]])
    picture = np.zeros((8, 8, 3), "uint8")
    monkeypatch.setattr("histream_core.lab.charts.contact_sheet.contact_sheet", lambda *_, **__: picture)
    words = ["sheet", "--model", "demo", "--prompt", RED, "--size", "64x64", "--frames", "9", "--seed", "5"]
    assert say(*words, "--drafts", "2")[0] == 0
    told = [order.prompts[0].text.context for _, order in orders]
    wanted = [encoder.encode(prompt) for prompt in (RED, RED.replace("right", "up"))]
    assert not torch.equal(*wanted) and torch.equal(torch.stack(told), torch.stack(wanted))


def test_a_reviewed_run_is_that_of_its_answers(here, say, type_lines, monkeypatch):
    """The picture is there while somebody is asked, and gone then. Seen to fail with a picture that stays."""
    pictures = []

    def write(path, picture):
        pictures.append((path, picture.shape))
        write_png(path, picture)

    monkeypatch.setattr(review, "write_png", write)
    asked = type_lines("y", "n", "perhaps", "yes", "40", "")
    status, found = say(*RUN, "seen", "--review")
    assert (status, found["seed"]) == (0, 40)
    assert "chunk 1 of 3, seed 0" in asked.getvalue() and "chunk 3 of 3, seed 40" in asked.getvalue()
    assert {shape for _, shape in pictures} == {(16, 3 * 16, 3)} and len(pictures) == 5
    assert not (here / "seen" / "draft.png").exists()
    say(*RUN, "plain")
    say("branch", "plain", "once", "--from", "1", "--seed", "1")
    status, _ = say("branch", "once", "again", "--from", "2", "--seed", "40")
    assert files_in("seen")["video.mp4"] == files_in("again")["video.mp4"]
    assert files_in("seen")["cuts.json"] == files_in("again")["cuts.json"]


def test_a_review_that_ends_without_an_answer_keeps_what_is_finished(here, say, type_lines):
    asked = type_lines("y")
    assert main([*RUN, "seen", "--review"]) == 130
    assert "1 of 3 chunks are kept" in asked.getvalue()
    type_lines("y", "y")
    status, found = say("resume", "seen", "--review")
    assert (status, found["chunks_kept"]) == (0, 1)
    say(*RUN, "plain")
    assert files_in("seen") == files_in("plain")


def test_a_review_without_a_run_is_refused(here, type_lines):
    asked = type_lines()
    assert main(["demo", RED, *LENGTH, "--review"]) == 2
    assert "give --run-dir too" in asked.getvalue()


@pytest.mark.parametrize(
    ("typed", "seed", "wanted"),
    [("n", MAX_SEED, 0), ("7", 7, "asked again"), (str(MAX_SEED + 1), 0, "asked again"), ("3", 7, 3), ("", 7, None)],
)
def test_answers(type_lines, typed, seed, wanted):
    type_lines(typed, "99")
    assert ask_for_seed("a chunk", seed) == (99 if wanted == "asked again" else wanted)
