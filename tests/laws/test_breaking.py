"""The texts that break tables quote are in the code exactly once, else a break would silently break nothing."""

import importlib.util
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def breaks_of(path: Path) -> list[tuple]:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BREAKS


@pytest.mark.parametrize(
    ("table", "folder", "tests"),
    [("laws/break_laws.py", "histream_core", "."), ("host/break_host.py", ".", "host")],
    ids=["engine", "host"],
)
def test_every_break_finds_its_text_once_and_its_test(monkeypatch, table, folder, tests):
    """Seen to fail on eleven entries whose code had been rewritten."""
    monkeypatch.syspath_prepend(str(TESTS / "laws"))
    breaks, stale = breaks_of(TESTS / table), []
    for file, old, new, test_file, name in breaks:
        source = (TESTS.parent / folder / file).read_text(encoding="utf-8")
        words = (TESTS / tests / test_file).read_text(encoding="utf-8")
        known = all(word in words for word in name.replace(" or ", " and ").split(" and "))
        if source.count(old) != 1 or old == new or not known:
            stale.append((file, old, name))
    assert breaks and not stale
