"""Streamed, resumed and branched runs score as plain ones do. Tiny random weights."""

import json

import numpy as np
import pytest

from histream_core import demo
from histream_core.cli import main
from histream_core.lab.judge import ways

SIDE = 64


@pytest.fixture
def here(here, monkeypatch):
    monkeypatch.setattr(demo, "WIDTH", SIDE)
    monkeypatch.setattr(demo, "HEIGHT", SIDE)
    return here


@pytest.mark.parametrize("mode", ["histream", "histream-plus"])
def test_all_ways_give_the_same_frames_and_scores(here, mode, capsys):
    """Seen to fail when a branch begins with the caches of nothing, or a resumed run decodes without its past."""
    words = ["--prompts", "2", "--frames", "45", "--mode", mode]
    assert main(["eval", "--demo", "--ways", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["ways"]) == ["plain", "streamed", "resumed", "branched"]
    for one in found["ways"].values():
        assert one["equal_frames"] == 2 * 45 and one["largest_difference"] == 0


def test_a_way_that_scores_otherwise_is_told(here, monkeypatch, capsys):
    """Seen to fail when only means are compared."""

    def wrong(weights, plan, text, asked, folder):
        return np.random.default_rng(0).integers(0, 256, (21, SIDE, SIDE, 3), np.uint8)

    monkeypatch.setitem(ways.WAYS, "streamed", wrong)
    assert main(["eval", "--demo", "--ways", "--prompts", "2", "--frames", "21"]) == 1
    assert "they do not score the same" in capsys.readouterr().out


def test_one_chunk_cannot_be_stopped_in_the_middle(here, capsys):
    assert main(["eval", "--demo", "--ways", "--frames", "9"]) == 2
    assert "use --frames 33" in capsys.readouterr().err
