"""Notes and titles of the workflows in every language; web/words.js puts them in the place of the English ones."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OBJECT_INFO = json.loads((ROOT / "docs" / "object_info.json").read_text(encoding="utf-8"))
GRAPHS = {
    str(int(re.search(r"\d+", path.stem)[0])): json.loads(path.read_text(encoding="utf-8"))
    for path in (ROOT / "workflows").glob("*.json")
}
HOSTS = {"LoadImage": "Load Image", "ImageScale": "Upscale Image", "KSamplerSelect": "KSamplerSelect"}
"""ComfyUI's names of nodes that notes name and no workflow has."""
PLACE = re.compile(r"\{([\w.]+)\}")
TRANSLATED = ("zh", "ja", "ko", "de", "fr", "es")


def words(language: str) -> dict:
    return json.loads((ROOT / "locales" / language / "main.json").read_text(encoding="utf-8"))["histream"]


def fill(text: str, graph: dict) -> str:
    """The English text with the names that the menu shows, as web/words.js fills the others."""

    def name(found: re.Match) -> str:
        kind, _, wanted = found[1].partition(".")
        if kind == "models":
            models = [model for node in graph["nodes"] for model in node["properties"].get("models", [])]
            return "\n".join(f"- [**{it['name']}**]({it['url']}): **{it['directory']}**" for it in models)
        if wanted:
            every = OBJECT_INFO[kind]["input"]
            assert wanted in every.get("required", {}) | every.get("optional", {}), found[1]
            return wanted
        return HOSTS.get(kind) or OBJECT_INFO[kind]["display_name"] or kind

    return PLACE.sub(name, text)


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:\.\d+)?", re.sub(r"\]\(http\S*\)", "", text)))


def test_the_english_words_are_those_of_the_workflows():
    """So they name nodes as the menu does. Seen to fail with Memory Plan called Memory Planner in a note.

    A node that has no other name is called by its class.
    """
    english = words("en")
    assert set(english["notes"]) == set(GRAPHS)
    for number, graph in GRAPHS.items():
        note, *others = (node for node in graph["nodes"] if node["type"] == "MarkdownNote")
        text = fill(english["notes"][number], graph)
        assert note["widgets_values"] == [text]
        assert text.startswith(f"# {note['title']}\n") and not others
        titles = {node["title"] for node in graph["nodes"] if node is not note and "title" in node}
        assert titles <= set(english["titles"])


@pytest.mark.parametrize("language", TRANSLATED)
def test_every_note_and_title_is_translated(language):
    """With the same nodes, files and numbers. Seen to fail with a note left in English, and 249 that became 294."""
    english, own = words("en"), words(language)
    assert set(own["titles"]) == set(english["titles"]) and all(own["titles"].values())
    assert set(own["notes"]) == set(english["notes"])
    for number, text in english["notes"].items():
        told = own["notes"][number]
        assert told != text
        assert set(PLACE.findall(told)) == set(PLACE.findall(text)), number
        assert re.findall(r"\]\((\S+)\)", told) == re.findall(r"\]\((\S+)\)", text), number
        assert numbers(text) <= numbers(told), number
        assert told.startswith("# ") and "`" not in told
