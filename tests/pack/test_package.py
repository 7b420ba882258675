"""The pack as ComfyUI finds it, without a ComfyUI: entry point, help pages, the folders it looks into."""

import ast
import asyncio
import importlib.util
import json
import re
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
OBJECT_INFO = json.loads((ROOT / "docs" / "object_info.json").read_text(encoding="utf-8"))
OURS = {name: info for name, info in OBJECT_INFO.items() if name.startswith("HiStream")}
NODE_FILES = sorted((ROOT / "nodes").rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def inputs(info: dict) -> dict[str, list]:
    return {**info["input"].get("required", {}), **info["input"].get("optional", {})}


def load_pack():
    """Import the pack as ComfyUI does: by its path, under a name that is no package of ours."""
    spec = importlib.util.spec_from_file_location("a_pack_at_some_path", ROOT / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_importing_the_pack_does_no_work_and_needs_no_host():
    before = set(sys.modules)
    module = load_pack()
    assert set(sys.modules) == before
    assert callable(module.comfy_entrypoint)
    assert not hasattr(module, "NODE_CLASS_MAPPINGS"), "ComfyUI would take the old style and ignore the entry point"
    assert (ROOT / module.WEB_DIRECTORY / "docs").is_dir()


@pytest.mark.parametrize("version", ["0.3.75", "0.32.1"])
def test_a_comfyui_that_is_too_old_is_told_so(monkeypatch, version):
    """It would otherwise leave the nodes out without a word that a user understands."""
    monkeypatch.setitem(sys.modules, "comfyui_version", SimpleNamespace(__version__=version))
    with pytest.raises(RuntimeError, match=rf"needs ComfyUI 0\.33 or later and this is {version}"):
        asyncio.run(load_pack().comfy_entrypoint())


def test_inside_the_pack_imports_are_relative():
    """The host has a module `nodes` of its own, and never puts the pack on sys.path."""
    for path in NODE_FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module.split(".")[0] not in ("nodes", "histream_core"), path


def test_the_node_api_is_imported_once_and_by_number():
    """An exception: names that TorchCompileModel leaves in a model have no numbered API."""
    importers = {
        (path.name, node.module)
        for path in NODE_FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("comfy_api")
        and not node.module.startswith("comfy_api.torch_helpers.")
    }
    assert len(importers) == 1
    assert re.fullmatch(r"comfy_api\.v\d+_\d+_\d+", importers.pop()[1])


def test_execute_is_short():
    for path in NODE_FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef) and node.name == "execute":
                body = node.body[-1].end_lineno - node.body[0].lineno + 1
                assert body <= 25, path


def test_the_ids_are_those_that_were_shipped():
    """For ever: a graph that somebody saved must load. Add new ones here, take none away."""
    assert set(OURS) == {
        "HiStreamLoadModel",
        "HiStreamDualResolutionCache",
        "HiStreamSpeed",
        "HiStreamStepSchedule",
        "HiStreamAnchorWindowSampler",
        "HiStreamAnchorWindowSamplerSelect",
        "HiStreamStreamingVAEDecode",
        "HiStreamVideoFrames",
        "HiStreamRangesToVideo",
        "HiStreamVideoOutput",
        "HiStreamResumeRun",
        "HiStreamExtendRun",
        "HiStreamBranchRun",
        "HiStreamListRuns",
        "HiStreamCleanRun",
        "HiStreamPromptTimeline",
        "HiStreamTimelineSection",
        "HiStreamFirstFrame",
        "HiStreamMemoryPlan",
        "HiStreamDriftMeter",
        "HiStreamDemoModel",
        "HiStreamDemoVideo",
        "HiStreamVideoToVideo",
        "HiStreamLive",
        "HiStreamEngine",
        "HiStreamReleaseWorkers",
        "HiStreamFarmSubmit",
        "HiStreamFarmCollect",
    }
    declared = set(re.findall(r'node_id="(\w+)"', "".join(path.read_text(encoding="utf-8") for path in NODE_FILES)))
    assert declared == set(OURS), "docs/object_info.json is stale: run the host tests, they rewrite it"


@pytest.mark.parametrize("name", OURS)
def test_every_node_and_every_input_says_what_it_does(name):
    info = OURS[name]
    assert len(info["description"]) > 40
    for key, (_, *options) in inputs(info).items():
        assert len((options or [{}])[0].get("tooltip", "")) > 20, key


UNITS = re.compile(r"frame|second|pixel|GiB|chunk|factor|Time shift|as a part|range|[Ss]eed|\b0: ")
"""Words that say what a number is counted in, or what 0 means."""
NAMES = {"preset", "bit_depth", "model_name"}
"""Choices that are names or numbers, of which there is nothing to say one by one."""


@pytest.mark.parametrize("name", OURS)
def test_every_number_has_a_unit_and_every_choice_its_consequence(name):
    """Seen to fail on three choices whose tooltips left options out."""
    for key, (what, *rest) in inputs(OURS[name]).items():
        options = (rest or [{}])[0]
        tooltip, choices = options.get("tooltip", ""), what if isinstance(what, list) else options.get("options", [])
        assert what not in ("INT", "FLOAT") or UNITS.search(tooltip), key
        assert key in NAMES or not [choice for choice in choices if choice not in tooltip], key


@pytest.mark.parametrize("name", OURS)
def test_expert_widgets_may_be_left_out(name):
    """So that graphs of other programs keep working when one more is added."""
    for key, (_, *options) in OURS[name]["input"].get("required", {}).items():
        assert not (options or [{}])[0].get("advanced"), key


@pytest.mark.parametrize("name", OURS)
def test_every_node_has_a_help_page_that_explains_each_input(name):
    page = (ROOT / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {OURS[name]['display_name']}\n")
    sockets = {"model", "positive"}
    unexplained = [key for key in inputs(OURS[name]) if key not in sockets and f"**{key}**" not in page]
    assert not unexplained
    for word in re.findall(r"\*\*([a-z]\w*)\*\*", page):
        assert word in inputs(OURS[name]), f"the page explains {word}, which is no input"


def test_help_pages_are_of_nodes_that_exist():
    assert {path.stem for path in (ROOT / "web" / "docs").glob("*.md")} == set(OURS)
