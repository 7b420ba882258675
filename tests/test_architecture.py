"""What docs/architecture.md says of modules is what there is."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CORE, NODES = (
    PAGE.split("## Modules of `histream_core`")[1].split("## Decisions")[0].split("`nodes/` is the only place")
)


def named(part):
    """The modules in the first cells of a part's tables."""
    return [
        name
        for line in part.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(.+?)`", line.split("|")[1])
    ]


def is_node(path):
    """Whether a file of nodes/ is that of a node."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bases = (ast.unparse(base) for found in tree.body if isinstance(found, ast.ClassDef) for base in found.bases)
    return "io.ComfyNode" in bases


def test_every_module_of_the_core_is_named_once():
    """Seen to fail without a module, and with one that is there no more."""
    there = [
        path.stem
        for path in (ROOT / "histream_core").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    assert sorted(named(CORE)) == sorted(set(there) - {"__init__"})


def test_every_module_that_nodes_share_is_named_once():
    """Seen to fail without a module, and with one under two headings."""
    files = [path for path in (ROOT / "nodes").glob("*.py") if path.name != "__init__.py" and not is_node(path)]
    assert sorted(named(NODES)) == sorted(path.stem for path in files)


def test_every_path_on_the_page_leads_somewhere():
    """Seen to fail with the name of a file that had been split."""
    paths = set(re.findall(r"`(?:python )?([\w/]+/[\w/]*(?:\.py)?)`", PAGE))
    assert {"nodes/", "session/segments", "tests/reference.py"} <= paths
    for path in paths:
        places = [ROOT / path, ROOT / "histream_core" / f"{path}.py"]
        assert any(place.exists() for place in places), path
