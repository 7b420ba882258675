"""Walls of the house: what may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "nodes", "server", "execution"}
DENOISE_PATH = (
    "plan",
    "schedule",
    "rope",
    "cache",
    "attention",
    "wan",
    "wan_model",
    "stream",
    "transfer",
    "noise",
    "presets",
    "checkpoint",
)
ALLOWED = {"torch", "numpy", "einops", "safetensors"} | set(sys.stdlib_module_names)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", sorted((ROOT / "histream_core").rglob("*.py")), ids=lambda path: path.name)
def test_core_does_not_know_the_host(path):
    assert not set(imports(path)) & HOST


@pytest.mark.parametrize("module", DENOISE_PATH)
def test_the_denoise_path_needs_four_packages_alone(module):
    assert set(imports(ROOT / "histream_core" / f"{module}.py")) <= ALLOWED


def test_no_pickle_no_eval_no_network_in_the_pack():
    for path in [*(ROOT / "histream_core").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]:
        assert not set(imports(path)) & {"pickle", "requests", "urllib", "socket", "http", "subprocess"}, path
        calls = {node.func.id for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
        assert not calls & {"eval", "exec", "__import__"}, path


def test_importing_the_engine_loads_nothing_heavy():
    """A hard import of an optional package would take the whole pack down where it is missing."""
    code = (
        "import sys; sys.path.append(sys.argv[1]); import histream_core.stream, histream_core.wan, histream_core.cli; "
        "print(*{'av', 'transformers', 'kornia', 'flash_attn', 'triton', 'ray', 'comfy'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, check=True)
    assert out.stdout.split() == []
