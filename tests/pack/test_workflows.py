"""Every shipped workflow fits the nodes, as docs/object_info.json describes them (the host tests keep that true)."""

import json
import re
from pathlib import Path

import pytest

from histream_core.demo.trained import FLAT, SCENES, told, trained, untrained
from histream_core.demo.words import VOCABULARY, plain_words, unknown_words

ROOT = Path(__file__).parents[2]
OBJECT_INFO = json.loads((ROOT / "docs" / "object_info.json").read_text(encoding="utf-8"))
PATHS = sorted((ROOT / "workflows").glob("*.json"))
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
NOTES = ("MarkdownNote",)
TITLE = 30
"""Pixels that the title of a node takes above it."""
SCREEN = (1600, 1000)
FILLED = 0.75
"""Share of the window that the host fills when it opens a template."""
EDGE = 10
"""Pixels that the host leaves around the nodes, in their scale."""
LEAST_SCALE = 0.75
"""At which words are read; the classic canvas writes none below 0.57."""
PLAYERS = {
    "HiStreamExtendRun": 290,
    "HiStreamBranchRun": 330,
    "HiStreamResumeRun": 226,
    "HiStreamStreamingVAEDecode": 272,
    "HiStreamVideoToVideo": 452,
    "HiStreamLive": 652,
    "HiStreamDemoVideo": 164,
    "HiStreamAnchorWindowSampler": 376,
    "HiStreamFarmCollect": 152,
}
"""Height of a node of that type without its player, which is as wide as the node: sockets, widgets, and a line."""
DRAWN = {"HiStreamDualResolutionCache": 294}
"""Height that both canvases give a node of that type at least, whatever a workflow says: a text grows in it."""
ANY = "*"
"""The type of a socket that takes everything."""
FILES = {"model_name", "lora_name", "clip_name", "vae_name"}
OWN = {"my_wan2.1_1.3b_lora.safetensors"}
"""Names that stand for a file of the user."""
FOLDERS = {"model_name": "diffusion_models", "clip_name": "text_encoders", "vae_name": "vae"}
"""The folder in ComfyUI/models of the file that an input names."""
each_workflow = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def empty_latents(path: Path) -> list[dict]:
    """The nodes that set size and length, where a workflow makes a video."""
    return [node for node in load(path)["nodes"] if node["type"] == "EmptyHunyuanLatentVideo"]


def specs(kind: str) -> dict[str, tuple]:
    """Every input of a node class in order: its type and its options."""
    info = OBJECT_INFO[kind]
    found = {}
    for group in ("required", "optional"):
        for name in info["input_order"].get(group, []):
            what, *options = info["input"][group][name]
            found[name] = (what, options[0] if options else {})
    return found


def is_widget(what) -> bool:
    return isinstance(what, list) or what in WIDGETS


def widgets(node: dict) -> dict[str, tuple]:
    """Name to (spec, saved value) of a node's widgets; the last optional ones may be missing, as in older workflows."""
    values = list(node["widgets_values"])
    found = {}
    for name, (what, options) in specs(node["type"]).items():
        if is_widget(what) and not options.get("forceInput"):
            optional = name in OBJECT_INFO[node["type"]]["input"].get("optional", {})
            found[name] = ((what, options), values.pop(0) if values or not optional else options["default"])
            if options.get("control_after_generate"):
                assert values.pop(0) in ("fixed", "randomize", "increment", "decrement")
    assert not values, "more values than widgets"
    return found


@each_workflow
def test_all_its_nodes_exist(path):
    assert {node["type"] for node in load(path)["nodes"]} <= {*OBJECT_INFO, *NOTES}


@each_workflow
def test_every_link_joins_sockets_of_one_type(path):
    graph = load(path)
    nodes = {node["id"]: node for node in graph["nodes"]}
    for link, source, output, target, slot, kind in graph["links"]:
        assert OBJECT_INFO[nodes[source]["type"]]["output"][output] == kind
        entry = nodes[target]["inputs"][slot]
        wanted = specs(nodes[target]["type"])[entry["name"]][0]
        assert (entry["link"], entry["type"]) == (link, wanted)
        assert wanted in (kind, ANY)
        assert link in nodes[source]["outputs"][output]["links"]


@each_workflow
def test_every_required_socket_is_linked(path):
    for node in load(path)["nodes"]:
        if node["type"] in NOTES:
            continue
        linked = {entry["name"] for entry in node["inputs"] if entry["link"] is not None}
        required = OBJECT_INFO[node["type"]]["input"].get("required", {})
        assert {name for name, (what, *_) in required.items() if not is_widget(what)} <= linked


@each_workflow
def test_every_widget_has_a_value_that_it_allows(path):
    for node in load(path)["nodes"]:
        if node["type"] in NOTES:
            continue
        for name, ((what, options), value) in widgets(node).items():
            choices = what if isinstance(what, list) else options.get("options")
            if name in FILES:
                assert value.endswith((".safetensors", ".pt"))
            elif choices:
                assert value in choices, name
            elif what in ("INT", "FLOAT"):
                assert options.get("min", value) <= value <= options.get("max", value), name


@pytest.mark.parametrize("path", [path for path in PATHS if empty_latents(path)], ids=lambda path: path.stem)
def test_its_size_and_length_are_some_that_the_sampler_takes(path):
    from histream_core.plan.sizes import grid_for, latent_frames

    for node in empty_latents(path):
        values = {name: value for name, (_, value) in widgets(node).items()}
        grid_for(values["width"], values["height"])
        assert latent_frames(values["length"]) > 1


@each_workflow
def test_it_explains_itself_in_a_note(path):
    """In words that can be read in both canvases. Seen to fail with file names in backticks."""
    notes = [node["widgets_values"][0] for node in load(path)["nodes"] if node["type"] in NOTES]
    assert notes
    for node in load(path)["nodes"]:
        for name, (_, value) in widgets(node).items() if node["type"] in OBJECT_INFO else ():
            if name in FILES:
                assert f"**{value}**" in notes[0], "the note must name every file that is needed"
    assert "`" not in notes[0], "Vue nodes write code in blue on brown, which nobody can read: make it bold"


@each_workflow
def test_every_file_it_needs_can_be_downloaded(path):
    """ComfyUI reads `properties.models` to offer missing files; the note and the README link the same address.

    Seen to fail without the property, with another directory, and with an address that is in no README.
    """
    graph, readme = load(path), (ROOT / "README.md").read_text(encoding="utf-8")
    note = next(node["widgets_values"][0] for node in graph["nodes"] if node["type"] in NOTES)
    for node in graph["nodes"]:
        needed = {} if node["type"] in NOTES else {k: v for k, (_, v) in widgets(node).items() if k in FILES}
        wanted = [(name, FOLDERS[key]) for key, name in needed.items() if name not in OWN]
        models = node["properties"].get("models", [])
        assert [(model["name"], model["directory"]) for model in models] == wanted
        for model in models:
            assert model["url"].startswith("https://huggingface.co/") and "/resolve/main/" in model["url"]
            assert model["url"].endswith(f"/{model['name']}")
            assert f"[**{model['name']}**]({model['url']})" in note
            assert f"[`{model['name']}`]({model['url']})" in readme


@each_workflow
def test_what_it_asks_of_the_demo_model_was_trained(path):
    """Prompts and the sentences in its note. Seen to fail with a yellow square on a purple background."""
    nodes = load(path)["nodes"]
    if not any(node["type"] == "HiStreamDemoModel" for node in nodes):
        return
    prompts = [
        line.split("]")[-1]
        for node in nodes
        for name, (_, value) in (widgets(node) if node["type"] in OBJECT_INFO else {}).items()
        if name in ("text", "timeline")
        for line in value.splitlines()
    ]
    notes = " ".join(node["widgets_values"][0] for node in nodes if node["type"] in NOTES)
    sentences = [text for text in re.findall(r"\*([^*\n]+)\*", notes) if any(told(text)[1].values())]
    assert prompts
    assert untrained([*prompts, *(text for text in sentences if not unknown_words(text))]) == []


def test_lists_of_the_demo_models_words_are_those_of_training():
    """In the note of the first workflow, on the help page and in the node, in all languages."""
    note = next(node for node in load(PATHS[0])["nodes"] if node["type"] in NOTES)
    lines = re.findall(r"\n- (.*)", note["widgets_values"][0])
    listed = [{*plain_words(line)} & {*VOCABULARY} for line in lines]
    kinds = {*SCENES.kinds} - {"colour"}
    assert all({*trained(SCENES, kind)} in [found - {"on"} for found in listed] for kind in kinds)
    shown = [(ROOT / "web" / "docs" / "HiStreamDemoModel.md").read_text(encoding="utf-8")]
    for path in sorted((ROOT / "locales").glob("*/nodeDefs.json")):
        shown.append(json.loads(path.read_text(encoding="utf-8"))["HiStreamDemoModel"]["outputs"]["1"]["tooltip"])
    assert len(shown) == 8
    for text in shown:
        assert all(", ".join(trained(FLAT, kind)) in text for kind in FLAT.kinds), text
        assert all(", ".join(trained(SCENES, kind)) in text for kind in kinds - {"motion"}), text
        assert all(word in text for word in trained(SCENES, "motion")), text


def test_the_folder_holds_workflows_and_their_pictures_alone():
    """ComfyUI lists every JSON in it as a template; of two such folders it lists both and serves one."""
    names = {path.name for path in (ROOT / "workflows").iterdir()}
    assert names <= {f"{path.stem}{ending}" for path in PATHS for ending in (".json", ".jpg")}
    others = ("example_workflows", "example", "examples", "workflow")
    assert not [name for name in others if (ROOT / name).exists()]


def test_names_are_titles_that_a_search_finds():
    """ComfyUI's template browser shows and searches the names of files. Seen to fail with underscores."""
    names = [path.stem for path in PATHS]
    assert [name[:12] for name in names] == [f"HiStream {number:02} " for number in range(1, len(names) + 1)]
    assert all(re.fullmatch(r"[\w ,-]+", name) and "_" not in name for name in names)
    found = " ".join(names).lower()
    for wanted in ("wan sampler", "long video", "image to video", "upscaler", "lora", "live", "1080p"):
        assert wanted in found
    nodes = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "nodes").rglob("*.py"))
    for wanted in ("Wan sampler", "video sampler", "long video", "load Wan model"):
        assert f'"{wanted}"' in nodes, "an alias of a node"


def test_every_node_of_ours_stands_in_a_workflow():
    """Where an artist meets it. Seen to fail with the Drift Meter taken out of workflow 4."""
    used = {node["type"] for path in PATHS for node in load(path)["nodes"]}
    assert {name for name in OBJECT_INFO if name.startswith("HiStream")} <= used


def test_a_list_of_runs_is_made_after_all_that_changes_them():
    """Or it shows how they were before. Seen to fail with a Resume Run that it did not wait for."""
    listed = 0
    for graph in map(load, PATHS):
        kinds = {node["id"]: node["type"] for node in graph["nodes"]}
        changing = {
            number
            for number, kind in kinds.items()
            if kind == "HiStreamCleanRun" or "run" in OBJECT_INFO.get(kind, {}).get("output_name", [])
        }
        for lister in (number for number, kind in kinds.items() if kind == "HiStreamListRuns"):
            listed += 1
            assert {source for _, source, _, target, *_ in graph["links"] if target == lister} == changing
    assert listed


@each_workflow
def test_it_opens_large_enough_to_read(path):
    """The host fits a template into a window of SCREEN. Seen to fail at 51% with a note of 520 pixels."""
    graph = load(path)
    right, bottom = (max(node["pos"][axis] + node["size"][axis] for node in graph["nodes"]) for axis in (0, 1))
    left, top = (min(node["pos"][axis] for node in graph["nodes"]) for axis in (0, 1))
    width, height = right - left + 2 * EDGE, bottom - top + TITLE + 2 * EDGE
    scale = min(FILLED * SCREEN[0] / width, FILLED * SCREEN[1] / height)
    assert scale >= LEAST_SCALE
    assert graph["extra"]["ds"]["scale"] == pytest.approx(min(scale, 1), abs=0.011), "opened as a file"


@each_workflow
def test_a_node_has_room_for_its_player(path):
    """Or it grows over another one when it is run, also one that sleeps yet. Seen to fail in workflow 6 of before."""
    graph = load(path)
    square = any(node["type"] == "HiStreamDemoModel" for node in graph["nodes"])
    for node in graph["nodes"]:
        if node["type"] in PLAYERS:
            width, height = node["size"]
            assert height >= PLAYERS[node["type"]] + (width if square else width * 9 // 16), node["type"]
            assert "asleep" not in node.get("title", ""), "it is said by its colour, and untrue when it is awake"


@each_workflow
def test_a_node_is_as_high_as_it_is_drawn(path):
    """Or nobody sees that it lies on another. Seen to fail with 202, before it had its negative prompt."""
    for node in load(path)["nodes"]:
        assert node["size"][1] >= DRAWN.get(node["type"], 0), node["type"]


@each_workflow
def test_no_node_lies_on_another(path):
    """Titles stand above their nodes. Seen to fail with a Drift Meter that is put upon the sampler."""
    boxes = [(node["type"], *node["pos"], *node["size"]) for node in load(path)["nodes"]]
    for index, (one, left, top, width, height) in enumerate(boxes):
        for other, x, y, w, h in boxes[index + 1 :]:
            apart = x >= left + width or left >= x + w or y - TITLE >= top + height or top - TITLE >= y + h
            assert apart, (one, other)
