"""Names and docstrings of the house: few rooms, and docstrings that begin with a noun or a verb."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "histream_core").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")])
MOST_OPENINGS = 20
OPENING = re.compile(r"(What|The same|Likewise|As|Of)\b")


def docstrings():
    """Each docstring of the engine and of the nodes, with its place."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"
                yield place, ast.get_docstring(node) or ""


def test_the_engine_has_few_names_at_its_top():
    there = {path.name for path in (ROOT / "histream_core").iterdir() if path.name != "__pycache__"}
    assert len(there) <= 16


def test_docstrings_say_what_a_thing_is_or_does():
    """Seen to fail with one that begins with "What"."""
    found = [f"{place} {text.splitlines()[0]}" for place, text in docstrings() if OPENING.match(text)]
    assert len(found) < MOST_OPENINGS, "\n".join(found)
