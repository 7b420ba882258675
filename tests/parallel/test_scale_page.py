"""The page of predictions shows what is predicted."""

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tables_of_the_page_are_those_that_are_predicted():
    """`python benchmarks/scale.py --json benchmarks/2026-11-29-scale.json --plots docs` prints them anew."""
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    kept = json.loads((ROOT / "benchmarks" / "2026-11-29-scale.json").read_text(encoding="utf-8"))
    found = runpy.run_path(str(ROOT / "benchmarks" / "scale.py"))["tables"]()
    assert kept["tables"] == found
    assert all("\n".join(lines) in page for lines in found.values())
