"""The module tables of docs/architecture.md name the modules that exist, each once."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
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


def modules(folder):
    """The modules under a folder, by their paths within it."""
    paths = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.py") if path.stem != "__init__")
    return [path.as_posix() for path in paths]


def covered(names, module):
    """How many of `names` are a module or a folder above it."""
    return sum(module == name or module.startswith(f"{name}/") for name in names)


def test_every_module_of_the_core_is_named_once():
    """Seen to fail without a module, and with one that is there no more."""
    names, there = named(CORE), modules(ROOT / "histream_core")
    assert {module: covered(names, module) for module in there} == dict.fromkeys(there, 1)
    assert all(any(covered([name], module) for module in there) for name in names)


def test_every_module_that_nodes_share_is_named_once():
    """Seen to fail without a module, and with one under two headings."""
    nodes = ROOT / "nodes"
    there = [module for module in modules(nodes) if not is_node(nodes / f"{module}.py")]
    assert sorted(named(NODES)) == sorted(there)


def test_every_path_on_the_page_leads_somewhere():
    """Seen to fail with the name of a file that had been split."""
    paths = set(re.findall(r"`(?:python )?([\w/]+/[\w/]*(?:\.py)?)`", PAGE))
    assert {"nodes/", "runs/store", "tests/laws/reference.py"} <= paths
    for path in paths:
        core, nodes = ROOT / "histream_core", ROOT / "nodes"
        places = [ROOT / path, core / path, core / f"{path}.py", nodes / f"{path}.py"]
        assert any(place.exists() for place in places), path


def test_every_path_to_open_leads_somewhere():
    """Seen to fail with a file that had been renamed."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page.split("## To change X, open Y")[1]
    paths = set(re.findall(r"`(\w+/[\w/]*(?:\.py)?)`", table))
    assert len(paths) > 30
    for path in paths:
        assert (ROOT / path).exists() or (ROOT / "histream_core" / path).exists(), path


def test_every_name_in_the_table_is_in_the_file_before_it():
    """Seen to fail with a method that had been renamed."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page.split("## To change X, open Y")[1]
    named = re.findall(r"`(\w+/[\w/]*\.py)`[^`]*?\(`([\w.]+)`\)", table)
    assert len(named) >= 7
    for path, name in named:
        place = next(place for place in (ROOT / path, ROOT / "histream_core" / path) if place.exists())
        code = place.read_text(encoding="utf-8")
        assert all(re.search(rf"^ *(?:def |class )?{part}\b", code, re.MULTILINE) for part in name.split(".")), name
