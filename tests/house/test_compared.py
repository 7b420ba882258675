"""Every claim of docs/compared.md names a test that exists, or a picture."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "compared.md").read_text(encoding="utf-8")
ROWS = [line.strip("|").split("|") for line in TABLE.splitlines() if line.startswith("| ")][1:]


def rows() -> list[tuple[str, str, str]]:
    """Rows of the table: the feature, ours, and the evidence."""
    return [(row[0].strip(), row[5].strip(), row[6].strip()) for row in ROWS]


def test_what_is_claimed_is_shown():
    """Seen to fail with a test that had been renamed, and with a claim that had none."""
    for what, ours, shown in rows():
        named, pictures = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", shown), re.findall(r"\]\(([^)]+)\)", shown)
        assert bool(named or pictures) or ours == "no", what
        for path, test in named:
            tests = (ROOT / path).read_text(encoding="utf-8")
            assert not test or re.search(rf"def test_\w*{test}", tests), f"{path} has no test {test}"
        assert all((ROOT / "docs" / picture).exists() for picture in pictures), what


def test_the_table_has_its_columns_and_says_no_where_it_is_no():
    """Seen to fail without a row, with a cell left out, and with a word that the page does not explain."""
    assert len(ROWS) >= 44
    assert all(len(row) == 7 for row in ROWS)
    said = {cell.strip() for row in ROWS for cell in row[1:5]}
    assert said == {"yes", "no", "partly", "?", "-", "own", "by another pack"}
    assert sum(ours.startswith("no") for _, ours, _ in rows()) >= 3
