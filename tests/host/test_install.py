"""Installing and loading the pack only adds its nodes to a ComfyUI."""

import ast
import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
OPTIONAL = {"flash_attn", "triton", "ray", "transformers", "kornia", "sageattention", "xformers", "tensorrt", "cv2"}
OF_THE_HOST = {"comfy_api.torch_helpers", "comfy_api.torch_helpers.torch_compile"}

LOAD = """
import asyncio, importlib.util, json, os, sys
root, comfyui = sys.argv[1:]
sys.path.insert(0, comfyui)
import comfy.options
comfy.options.enable_args_parsing(False)
from comfy.cli_args import args
args.cpu = True
import nodes, server, comfy.ldm.wan.ar_model, comfy_api.latest
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("a_pack", root + "/__init__.py", submodule_search_locations=[root])
pack = importlib.util.module_from_spec(spec)
sys.modules["a_pack"] = pack
spec.loader.exec_module(pack)
extension = asyncio.run(pack.comfy_entrypoint())
found = asyncio.run(extension.get_node_list())
for node in found:
    node.GET_SCHEMA()
print(json.dumps([len(found), sorted(set(sys.modules) - before)]))
"""


@pytest.fixture(scope="module")
def loaded(comfyui) -> tuple[int, list[str]]:
    """Nodes, and modules that were imported, of the pack in a ComfyUI that has started."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    told = subprocess.run(
        [sys.executable, "-c", LOAD, str(ROOT), str(comfyui)], capture_output=True, text=True, env=environment
    )
    assert told.returncode == 0, told.stderr[-2000:]
    return json.loads(told.stdout.splitlines()[-1])


def test_loading_imports_its_own_modules_and_nothing_that_the_host_has_not_loaded(loaded):
    """So a start of the host takes no longer than they do. Seen to fail with `import kornia` in a node file."""
    count, modules = loaded
    assert count >= 16
    assert {name for name in modules if name.split(".")[0] != "a_pack"} <= OF_THE_HOST


def imported_at_load(path: Path) -> set[str]:
    """The packages that a module imports when it is imported itself, not those of its functions."""
    parts, found = [ast.parse(path.read_text(encoding="utf-8"))], set()
    for part in parts:
        if isinstance(part, ast.Import):
            found |= {alias.name.split(".")[0] for alias in part.names}
        elif isinstance(part, ast.ImportFrom) and not part.level:
            found.add(part.module.split(".")[0])
        elif not isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
            parts += ast.iter_child_nodes(part)
    return found


def test_no_module_of_the_pack_imports_what_the_host_may_have_imported_before():
    """It brings transformers, so what is new in sys.modules does not tell. Seen to fail with an import of that."""
    modules = [ROOT / "__init__.py", *(ROOT / "nodes").rglob("*.py"), *(ROOT / "histream_core").rglob("*.py")]
    assert len(modules) > 100
    for path in modules:
        assert not imported_at_load(path) & OPTIONAL, path


def test_it_brings_no_module_that_another_pack_could_take_for_its_own(loaded):
    """`nodes`, `utils` and their like stay those of the host. Seen to fail with an absolute import in a node file."""
    _, modules = loaded
    ours = {name for name in modules if "histream" in name or name.startswith("a_pack")}
    assert all(name.split(".")[0] == "a_pack" for name in ours)
    assert not {"nodes", "utils", "histream_core"} & set(modules)


def test_installing_what_it_requires_changes_no_package():
    """Installed by requirements.txt, as the Manager does, and by pyproject.toml: pip freeze prints an equal list after.

    Seen to fail with a line `einops>=99` in requirements.txt, and with such a dependency in pyproject.toml.
    """
    before = installed()
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    dependencies = json.loads(re.search(r"^dependencies = (\[.*\])$", project, re.MULTILINE)[1])
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--disable-pip-version-check"]
    wanted = ["-r", str(ROOT / "requirements.txt"), *dependencies]
    done = subprocess.run([*command, *wanted], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert installed() == before


def installed() -> list[str]:
    command = [sys.executable, "-m", "pip", "freeze", "--all", "--disable-pip-version-check"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_nothing_of_the_pack_runs_when_it_is_installed():
    """Files of these names are run by the Manager and by the host before packs are loaded."""
    assert not [name for name in ("install.py", "prestartup_script.py", "setup.py") if (ROOT / name).exists()]


def test_the_registry_reads_its_metadata(comfyui, monkeypatch, capsys):
    """ComfyUI's own parser and that of comfy-cli, which publishes. Seen to fail without `[tool.comfy.version]`."""
    pytest.importorskip("pydantic_settings", reason="pydantic-settings is not installed")
    parser = pytest.importorskip("comfy_cli.registry.config_parser", reason="comfy-cli is not installed")
    from comfy_config.config_parser import extract_node_configuration

    from histream_core import __version__

    monkeypatch.chdir(ROOT)
    host, registry = extract_node_configuration(str(ROOT)), parser.extract_node_configuration()
    assert "arning" not in capsys.readouterr().out
    assert registry.project.version == __version__
    assert registry.project.license.text == "Apache-2.0"
    assert host.project.name == registry.project.name == "histream"
    assert host.project.supported_os == ["OS Independent"]
    assert host.project.supported_comfyui_version == ">=0.33.0"
    assert host.tool_comfy.display_name == "HiStream"


def test_a_node_that_is_renamed_is_replaced_in_old_graphs(comfyui, pack, monkeypatch):
    """Its links and widgets go along. Seen to fail where the extension does not register."""
    import server
    from app.node_replace_manager import NodeReplaceManager

    import nodes

    ours, io = pack.part("nodes"), pack.part("nodes.host.api").io
    renamed = io.NodeReplace(
        new_node_id="HiStreamListRuns",
        old_node_id="HiStreamOldList",
        input_mapping=[{"new_id": "folder", "old_id": "where"}],
        output_mapping=[{"new_idx": 0, "old_idx": 0}],
    )
    manager = NodeReplaceManager()
    monkeypatch.setattr(ours.renamed, "RENAMED", (renamed,))
    monkeypatch.setattr(server.PromptServer, "instance", SimpleNamespace(node_replace_manager=manager), raising=False)
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "HiStreamListRuns", object)
    asyncio.run(ours.HiStreamExtension().on_load())
    prompt = {
        "1": {"class_type": "HiStreamOldList", "inputs": {"where": "a/b"}, "_meta": {"title": ""}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}, "_meta": {"title": ""}},
    }
    manager.apply_replacements(prompt)
    assert prompt["1"] == {"class_type": "HiStreamListRuns", "inputs": {"folder": "a/b"}, "_meta": {"title": ""}}
    assert prompt["2"]["inputs"]["source"] == ["1", 0]


def test_every_node_can_be_searched_for_by_what_it_does(pack):
    for node in pack.part("nodes").NODES:
        schema = node.define_schema()
        assert "HiStream" in schema.search_aliases, schema.node_id
        assert len(schema.search_aliases) >= 2, schema.node_id
