"""Bars of `histream bench`: their words, and the verdict on them."""

import json
import re

import pytest

from histream_core.cli import main
from histream_core.lab.bench import meta
from histream_core.lab.bench.bars import Bar, report, table

KEPT = Bar("kept", 1.0, 2, "naive", 3.0)
MISSED = Bar("missed", 3.0, 2, "naive", 4.0)
IDLE = Bar("measures nothing", 1.0, 2, "naive", 1.0)
TARGET = Bar("a target for a machine", 1.0, 2)


def test_a_bar_is_kept_at_its_limit_and_on_its_side():
    assert Bar("x", 2, 2).ok and not Bar("x", 2.01, 2).ok
    assert Bar("x", 2, 2, at_least=True).ok and not Bar("x", 1.99, 2, at_least=True).ok


@pytest.mark.parametrize(("bars", "ok"), [([KEPT, TARGET], True), ([KEPT, MISSED], False), ([IDLE], False)])
def test_all_is_well_where_every_bar_is_kept_and_every_control_fails(bars, ok):
    """Seen to fail with the controls left out of `ok`."""
    assert report(bars)["ok"] is ok


def test_a_report_lists_name_value_limit_and_ok():
    found = report([KEPT, MISSED, TARGET])
    assert [set(bar) for bar in found["bars"]] == [{"name", "value", "limit", "ok"}] * 3
    assert [bar["ok"] for bar in found["bars"]] == [True, False, True]
    assert found["controls"] == [
        {"name": "kept, at most: naive", "value": 3.0, "limit": 2, "ok": False},
        {"name": "missed, at most: naive", "value": 4.0, "limit": 2, "ok": False},
    ]


def test_the_table_says_what_is_wrong():
    text = table([KEPT, MISSED, IDLE])
    assert text.count("FAIL") == 1 and text.count("fails, as it must") == 2
    assert "PASSES: this bar measures nothing" in text


@pytest.mark.parametrize(("bar", "status"), [(KEPT, 0), (MISSED, 1), (IDLE, 1)])
def test_the_exit_status_is_1_where_a_bar_is_missed(bar, status, monkeypatch, capsys):
    """Seen to fail with a status of 0 for everything that ran."""
    monkeypatch.setattr(meta, "meta_bars", lambda: iter([bar]))
    assert main(["bench", "--meta", "--json"]) == status
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last)["bars"][0]["ok"] is bar.ok


def test_the_result_is_written_where_it_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(meta, "meta_bars", lambda: iter([KEPT]))
    assert main(["bench", "--meta", "--json", "--out", str(tmp_path / "found.json")]) == 0
    assert json.loads((tmp_path / "found.json").read_text()) == json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("words", "sentence"), [
    (["bench"], "one of the arguments --meta --cpu --limit --gpu --plots --live is required"),
    (["bench", "--meta", "--tiny"], "--tiny belongs to --gpu"),
    (["bench", "--meta", "--out", "nowhere/found.json"], "the folder .* does not exist"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(sentence, line)
