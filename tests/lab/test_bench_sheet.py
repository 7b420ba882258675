"""The six-minute sheet, at tiny sizes on the CPU: every row is there, and nothing that fails takes the others along."""

import itertools
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from slow import slow

from histream_core.cli import main
from histream_core.lab.bench import sheet_run
from histream_core.lab.bench.sheet import Row, guarded, sheet_report, sheet_table, tiny_setup
from histream_core.lab.bench.sheet_run import SECTIONS, Section, run_sheet, serve

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tiny_sheet():
    """All rows of a tiny sheet, made in this process, however long they take."""
    setup = tiny_setup()
    return [row for section in SECTIONS for row in guarded(section.rows, setup)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    "copy within the device, read and written", "copy to main memory, pinned", "product 64 x 64 x 64",
    "pass high, later chunk, eager", "pass high, cache pass of a later chunk, compiled", "pass low, first chunk, eager",
    "one call, compiled from eager", "pass with full history, chunk 6, eager",
    "attention high, later, flash", "attention low, later, math",
    "VAE decode, native", "VAE decode, channels last", "first 9 frames of histream-plus with the VAE",
    "VAE decode, TAEHV", "VAE decode, a quarter of the width", "later chunks of histream-plus with TAEHV",
    "histream-plus with last-step, denoising, compiled", "slowest later chunk / median, the VAE",
    "pass high, later chunk, compiled, FP8 products", "pass high, later chunk, eager, kv_memory cpu, 64x64",
    "product 48 x 96 x 128, FP8, time without / with", "product 48 x 96 x 96, FP8, the rounding in it",
    "norm with modulation, plain", "product 48 x 96 x 96", "rotations, complex / compiled",
    "histream-plus with the VAE", "tokens of a chunk, high",
])  # fmt: skip
def test_every_figure_of_the_sheet_is_there(tiny_sheet, name):
    (row,) = [row for row in tiny_sheet if row.name == name]
    assert row.value is not None and row.value >= 0


@pytest.mark.slow
def test_nothing_fails_and_no_target_applies_at_tiny_sizes(tiny_sheet):
    assert [row for row in tiny_sheet if row.failed] == []
    assert [row for row in tiny_sheet if row.target is not None] == []
    assert sheet_report(tiny_sheet)["ok"]
    assert len(sheet_table(tiny_sheet)) < 4000, "a short table"


@pytest.mark.slow
def test_compiled_layers_predict_what_eager_ones_do(tiny_sheet):
    """Seen to fail with a compiled block that left out the cross-attention."""
    (error,) = [row.value for row in tiny_sheet if "compiled from eager" in row.name]
    assert error < 1e-5


@pytest.mark.slow
def test_what_is_not_installed_or_not_there_is_a_row_that_says_so(tiny_sheet):
    rows = {row.name: row for row in tiny_sheet if row.value is None}
    assert rows["attention high, later, cudnn"].note.startswith("absent")
    assert rows["attention high, later, fa3"].note == "absent: not installed"
    assert rows["peak memory of histream-plus with the VAE"].note.startswith("absent")
    assert {"passes at LOW as CUDA graphs", "VAE decode, 2 strips"} <= rows.keys()


# The order, the time and the processes


def test_the_sections_take_six_minutes_together_the_most_valuable_first():
    names = [section.name for section in SECTIONS]
    assert sum(section.seconds for section in SECTIONS) <= 360
    valued = ["ceilings", "attention", "passes", "with_taehv", "with_vae", "decoding", "last_step", "full_history"]
    assert [name for name in names if name in valued] == valued
    assert {section.name for section in SECTIONS if section.apart} == {
        "fp8_passes",
        "packaged_attention",
        "graphed_passes",
    }


def section(name, seconds, *, apart=False):
    def rows(setup):
        raise AssertionError("a worker makes them")

    rows.__name__ = name
    return Section(rows, seconds, apart)


class Workers:
    """Stand-ins for processes, on a clock of their own: a number is so many seconds of work, a text is a row, None the
    end of a section, EOFError the end of the process."""

    def __init__(self, *sections):
        self.work, self.now, self.opened, self.ended = sections, 0.0, 0, 0

    def __call__(self):
        self.opened += 1
        return self

    def begin(self, place):
        self.steps = iter(self.work[place])

    def next(self, seconds):
        for step in self.steps:
            if step is None:
                return None
            if step is EOFError:
                raise EOFError
            if isinstance(step, str):
                return Row(step, 1.0)
            self.now += min(step, seconds)
            if step > seconds:
                raise TimeoutError
        raise AssertionError("nothing was asked for any more")

    def end(self):
        self.ended += 1

    def rows(self, *sections):
        made = [(row.name, row.note) for row in run_sheet(sections, self, lambda: self.now)]
        assert self.opened == self.ended, "no process is left"
        return made


def test_a_section_that_hangs_is_stopped_when_its_time_is_over_and_the_next_one_is_measured():
    """Seen to fail with the process asked again, and with no end of the time for a section."""
    workers = Workers([2, "a", 10**6], [3, "b", None], ["c", None])
    found = workers.rows(section("one", 10), section("two", 5), section("three", 5))
    assert found == [("a", ""), ("one", "failed: stopped, as its time was over"), ("b", ""), ("c", "")]
    assert workers.opened == 2 and workers.now == 13


def test_time_that_is_left_over_is_for_the_sections_behind():
    workers = Workers([1, None], [13, "b", 2], [None])
    found = workers.rows(section("one", 10), section("two", 5), section("three", 5))
    assert found == [("b", ""), ("two", "failed: stopped, as its time was over")]
    assert workers.now == 15


def test_a_process_that_dies_takes_no_other_section_along():
    """Seen to fail with the end of the pipe not caught."""
    workers = Workers(["a", EOFError], ["b", None])
    assert workers.rows(section("one", 10), section("two", 5)) == [
        ("a", ""), ("one", "failed: its process ended"), ("b", ""),
    ]  # fmt: skip
    assert workers.opened == 2


def test_risky_kernels_have_a_process_of_their_own():
    """Seen to fail with the process kept for the next section."""
    workers = Workers([None], [None], [None], [None])
    workers.rows(section("one", 1), section("two", 1), section("risky", 1, apart=True), section("three", 1))
    assert workers.opened == 3


def test_no_process_is_left_where_nobody_reads_on():
    workers = Workers(["a", "b", None])
    rows = run_sheet([section("one", 10)], workers, lambda: workers.now)
    next(rows)
    rows.close()
    assert workers.ended == workers.opened == 1


@pytest.mark.parametrize("error", [RuntimeError, AssertionError, KeyError, ZeroDivisionError])
def test_whatever_a_section_raises_is_a_row_with_its_name(error):
    """Seen to fail with the errors of kernels and packages alone caught."""

    def products(setup):
        yield setup.row("a first product", 1.0)
        raise error("out of luck\nand a long trace")

    rows = list(guarded(products, tiny_setup()))
    assert [row.name for row in rows] == ["a first product", "products"]
    assert rows[1].note.startswith(f"failed: {error.__name__}: ") and "out of luck" in rows[1].note
    assert rows[1].failed and not sheet_report(rows)["ok"]
    assert "products" in sheet_table(rows).splitlines()[0]


class Pipe:
    """Asks for the first section twice."""

    def __init__(self):
        self.sent, self.asked = [], iter([0, 0])

    def send(self, row):
        self.sent.append(row)

    def recv(self):
        try:
            return next(self.asked)
        except StopIteration:
            raise EOFError from None


@pytest.mark.parametrize("usable", [True, False])
def test_a_process_whose_device_faulted_ends(monkeypatch, usable):
    """A fault stays: all that follows would fail. Seen to fail with the device not asked."""

    def end(status):
        raise SystemExit(status)

    monkeypatch.setattr(sheet_run, "SECTIONS", [Section(lambda setup: iter([setup.row("a", 1.0)]), 1)])
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(sheet_run, "is_usable", lambda setup: usable)
    pipe = Pipe()
    if usable:
        serve(pipe, tiny=True)
        assert [row and row.name for row in pipe.sent] == ["a", None, "a", None]
    else:
        with pytest.raises(SystemExit, match="1"):
            serve(pipe, tiny=True)
        assert [row.name for row in pipe.sent] == ["a"]


# The command


def test_rows_are_printed_and_in_the_file_as_they_come(monkeypatch, capsys, tmp_path):
    """Seen to fail with all of them written at the end."""
    out, seen = tmp_path / "sheet.json", []

    def rows(*, tiny):
        assert tiny
        yield Row("a product", 1.0, is_main=True)
        seen.append((capsys.readouterr().out, json.loads(out.read_text())))
        yield Row("a rotation", 2.0)

    monkeypatch.setattr(sheet_run, "sheet_rows", rows)
    assert main(["bench", "--gpu", "--tiny", "--out", str(out)]) == 0
    printed, written = seen[0]
    assert json.loads(printed)["row"] == "a product"
    assert [row["row"] for row in written["rows"]] == ["a product"] and written["complete"] is False
    done = json.loads(out.read_text())
    assert [row["row"] for row in done["rows"]] == ["a product", "a rotation"] and done["complete"] is True
    assert capsys.readouterr().out.splitlines()[-2:] == ["a product          1", "and 1 more rows"]


def test_an_older_file_is_kept_unless_it_may_be_replaced(monkeypatch, capsys, tmp_path):
    out = tmp_path / "sheet.json"
    out.write_text("mine")
    monkeypatch.setattr(sheet_run, "sheet_rows", lambda *, tiny: iter([Row("a", 1.0), Row("b", 1.0)]))
    assert main(["bench", "--gpu", "--tiny", "--out", str(out)]) == 2
    assert out.read_text() == "mine" and "sheet.json" in capsys.readouterr().err
    assert main(["bench", "--gpu", "--tiny", "--out", str(out), "--overwrite"]) == 0
    assert len(json.loads(out.read_text())["rows"]) == 2


MOMENTS = random.Random(os.environ.get("HISTREAM_FUZZ_SEED")).sample(range(1, 40), 3)
"""Numbers of rows at which the sheet is killed: those of the seed, or another three in each run without one."""


@pytest.mark.parametrize("moment", [0, slow(1), slow(2)])
def test_a_sheet_that_is_killed_leaves_the_rows_that_it_has_measured(tmp_path, moment):
    """And no process. Seen to fail with the file written at the end, and with processes that outlive the first one."""
    out, wanted = tmp_path / "sheet.json", MOMENTS[moment]
    command = [sys.executable, "-c", "from histream_core.cli import main; main()", "bench", "--gpu", "--tiny"]
    # A pipe too small for the rows behind the last moment: the sheet cannot end before the test has seen it.
    small = {"stdout": subprocess.PIPE, "bufsize": 0, "pipesize": 4096}
    sheet = subprocess.Popen([*command, "--out", str(out)], cwd=ROOT, **small)
    assert sheet.stdout
    printed = [json.loads(line)["row"] for line in itertools.islice(sheet.stdout, wanted)]
    while len(rows_in(out)) < wanted:
        time.sleep(0.01)
    sheet.kill()
    printed += [json.loads(line)["row"] for line in sheet.stdout]  # ends when every process that holds it has ended
    sheet.wait()
    found = [row["row"] for row in rows_in(out)]
    assert len(found) >= wanted, f"killed at {wanted} rows"
    assert found in (printed, printed[:-1]) and json.loads(out.read_text())["complete"] is False


def rows_in(path):
    return json.loads(path.read_text())["rows"] if path.exists() else []


def test_a_target_is_a_bar_where_it_was_measured():
    rows = [
        Row("fast", 0.4, "s", 0.5), Row("slow", 0.6, "s", 0.5), Row("ratio", 2.5, "times", 2.3, at_least=True),
        Row("gone", None, "s", 0.5, note="absent: not installed"), Row("told", 1.0, "s"),
    ]  # fmt: skip
    found = sheet_report(rows)
    assert [bar["ok"] for bar in found["bars"]] == [True, True, False, True] and not found["ok"]
    rows = [replace(row, is_main=row.target is not None) for row in rows]
    assert "MISSED" in sheet_table(rows).splitlines()[1]


def test_without_a_gpu_the_real_sheet_is_refused_in_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["bench", "--gpu"]) == 2
    assert "--gpu --tiny" in capsys.readouterr().err
