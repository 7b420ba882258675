"""The ten-minute sheet, at tiny sizes on the CPU: every row is there, and nothing that fails takes the others along."""

import json

import pytest

from histream_core.cli import main
from histream_core.lab.bench import sheet, sheet_network, sheet_parts
from histream_core.lab.bench.sheet import Row, sheet_report, sheet_table


@pytest.fixture(scope="module")
def tiny_sheet():
    """All rows of a tiny sheet, however long they take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheet, "MINUTES", 10**6)
        return list(sheet.sheet_rows(tiny=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    "pass high, later chunk, eager", "pass high, cache pass of a later chunk, compiled", "pass low, first chunk, eager",
    "histream, denoising, eager", "histream-plus, denoising, compiled", "one call, compiled from eager",
    "core-style loop with full history / histream", "attention high, later, flash", "attention low, later, math",
    "VAE decode, native", "VAE decode, channels last", "first 9 frames of histream-plus with the VAE",
    "VAE decode, TAEHV", "VAE decode, a quarter of the width", "histream-plus with TAEHV beside sampling",
    "histream-plus with last-step, denoising, compiled", "latents of histream-plus with survivors, from exact ones",
    "pass high, later chunk, compiled, FP8 products", "pass low, first chunk, eager, torch's order of attention",
    "product 48 x 96 x 128, FP8, time without / with", "product 48 x 96 x 96, FP8, the rounding in it",
    "norm with modulation, plain",
    "histream-plus with the VAE", "90th percentile of chunks / median", "tokens of a chunk, high",
])  # fmt: skip
def test_every_figure_of_the_sheet_is_there(tiny_sheet, name):
    (row,) = [row for row in tiny_sheet if row.name == name]
    assert row.value is not None and row.value >= 0


@pytest.mark.slow
def test_nothing_fails_and_no_target_applies_at_tiny_sizes(tiny_sheet):
    assert [row for row in tiny_sheet if row.note.startswith(("failed", "not reached"))] == []
    assert [row for row in tiny_sheet if row.target is not None] == []
    assert sheet_report(tiny_sheet)["ok"]


@pytest.mark.slow
def test_compiled_layers_predict_what_eager_ones_do(tiny_sheet):
    """Seen to fail with a compiled block that left out the cross-attention."""
    errors = [row.value for row in tiny_sheet if "compiled from eager" in row.name]
    assert len(errors) == 2 and max(errors) < 1e-5


@pytest.mark.slow
def test_what_is_not_installed_or_not_there_is_a_row_that_says_so(tiny_sheet):
    rows = {row.name: row for row in tiny_sheet if row.value is None}
    assert rows["attention high, later, cudnn"].note.startswith("absent")
    assert rows["attention high, later, fa3"].note == "absent: not installed"
    assert rows["peak memory of histream-plus with the VAE"].note.startswith("absent")
    assert {"FP8 attention", "passes at LOW as CUDA graphs", "VAE decode, 2 strips"} <= rows.keys()


def sections(monkeypatch, **functions):
    """A sheet of nothing but these sections of `sheet_parts`."""
    for module in (sheet_parts, sheet_network):
        for name in vars(module).copy():
            if name in SECTIONS:
                monkeypatch.setattr(module, name, functions.get(name, lambda setup: iter(())))


SECTIONS = {
    "machine", "tokens", "attention", "decoding", "products", "rotations", "convolutions", "absent",
    "passes", "graphed_passes", "chosen_passes", "fp8_products", "norms", "whole_videos", "end_to_end", "full_history",
    "flatness", "levers",
}  # fmt: skip


def test_a_section_that_fails_is_a_row_and_the_next_one_is_measured(monkeypatch, capsys):
    """Seen to fail with the sections not guarded: the sheet ended there."""

    def products(setup):
        yield setup.row("a first product", 1.0)
        raise RuntimeError("CUDA error: out of luck\nand a long trace")

    sections(monkeypatch, products=products, rotations=lambda setup: iter([setup.row("a rotation", 2.0)]))
    monkeypatch.setattr(products, "__name__", "products")
    assert main(["bench", "--gpu", "--tiny", "--json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["row"] for line in lines[:-1]] == ["a first product", "products", "a rotation"]
    assert lines[1]["note"] == "failed: CUDA error: out of luck"
    assert lines[-1]["rows"] == lines[:-1]


def test_no_section_is_begun_when_the_time_is_up(monkeypatch):
    monkeypatch.setattr(sheet, "MINUTES", -1)
    rows = list(sheet.sheet_rows(tiny=True))
    assert {row.note for row in rows} == {"not reached: no time was left"} and len(rows) == len(SECTIONS)
    assert not sheet_report(rows)["ok"]


def test_rows_are_printed_as_they_are_made(monkeypatch, capsys):
    """A run that is cut off still tells. Seen to fail with all rows printed at the end."""
    seen = []

    def rotations(setup):
        seen.append(capsys.readouterr().out)
        yield setup.row("a rotation", 2.0)

    sections(monkeypatch, products=lambda setup: iter([setup.row("a product", 1.0)]), rotations=rotations)
    assert main(["bench", "--gpu", "--tiny"]) == 0
    assert json.loads(seen[0])["row"] == "a product"
    assert capsys.readouterr().out.splitlines()[-2:] == [line.rstrip() for line in (
        "a product           1", "a rotation          2")]  # fmt: skip


def test_a_target_is_a_bar_where_it_was_measured():
    rows = [
        Row("fast", 0.4, "s", 0.5), Row("slow", 0.6, "s", 0.5), Row("ratio", 2.5, "times", 2.3, at_least=True),
        Row("gone", None, "s", 0.5, note="absent: not installed"), Row("told", 1.0, "s"),
    ]  # fmt: skip
    found = sheet_report(rows)
    assert [bar["ok"] for bar in found["bars"]] == [True, True, False, True] and not found["ok"]
    assert "MISSED" in sheet_table(rows).splitlines()[1]


def test_without_a_gpu_the_real_sheet_is_refused_in_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["bench", "--gpu"]) == 2
    assert "--gpu --tiny" in capsys.readouterr().err
