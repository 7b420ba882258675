"""The pictures of docs/performance.md are drawn from the plan's own counts; those in the repository are up to date."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from histream_core.cli import main
from histream_core.lab.charts.benchmarks import plots, steps_cost, tflops

DOCS = Path(__file__).parents[2] / "docs"


def words(svg: bytes) -> list[str]:
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.text and element.text.strip()]


@pytest.mark.slow
def test_the_pictures_in_the_docs_are_what_is_drawn():
    """Words and figures; lines differ between versions of matplotlib. Seen to fail with a step more in HiStream+."""
    drawn = dict(plots())
    assert {path.name for path in (DOCS / "plots").iterdir()} == set(drawn)
    for name, svg in drawn.items():
        assert words((DOCS / "plots" / name).read_bytes()) == words(svg)
        assert f"plots/{name}" in (DOCS / "performance.md").read_text("utf-8")


def test_a_window_makes_the_cost_flat_and_half_resolution_makes_steps_cheaper():
    """Seen to fail with the window left out of the arms."""
    assert tflops("histream-plus", frames=321) < 1.1 * tflops("histream-plus")
    assert tflops("history", frames=321) > 3 * tflops("history")
    assert steps_cost(8, 4) < 0.7 * steps_cost(8, 0)
    assert "ours, histream-plus" in words(dict(plots())["cost-others.svg"])


def test_a_folder_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["bench", "--plots", str(tmp_path / "none")]) != 0
    assert "there is no such folder" in capsys.readouterr().err
    assert main(["bench", "--plots", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in (DOCS / "plots").iterdir()}
