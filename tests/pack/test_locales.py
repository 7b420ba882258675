"""Every word that a node shows, in every language: as ComfyUI reads it, and none that is out of date.

A translation cannot be read by a test, but it can be there for all, for nothing else, and with the same numbers.
"""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OBJECT_INFO = json.loads((ROOT / "docs" / "object_info.json").read_text(encoding="utf-8"))
OURS = {name: info for name, info in OBJECT_INFO.items() if name.startswith("HiStream")}
LANGUAGES = ("en", "zh", "ja", "ko", "de", "fr", "es")
TRANSLATED = LANGUAGES[1:]
HOSTS = {
    "Load Video": ("加载视频", "ビデオを読み込む", "비디오 불러오기", "Charger une vidéo", "Cargar video"),
    "Save Video": ("保存视频", "ビデオを保存", "비디오 저장", "Enregistrer la vidéo", "Guardar video"),
    "SamplerCustomAdvanced": (
        "自定义采样器", "カスタムサンプラー", "고급 사용자 정의 샘플러",
        "ÉchantillonneurPersonnaliséAvancé", "SamplerCustomAdvanced",
    ),
    "Upscale Image": ("缩放图像", "画像を拡大", "이미지 확대", "Agrandir l'image", "Ampliar Imagen"),
    "Load Diffusion Model": (
        "UNet加载器", "拡散モデルを読み込む", "확산 모델 로드", "Charger Modèle Diffusion", "Cargar Modelo de Difusión",
    ),
    "Preview as Text": (
        "预览任意", "プレビュー任意", "미리보기 아무거나", "Aperçu de n'importe quel", "Vista previa de cualquier",
    ),
}  # fmt: skip
"""ComfyUI's names of its nodes in zh, ja, ko, fr and es, without what is in brackets; it does not come in German."""
SYNTAX = re.compile(r"\{'(.)'\}")
"""How a sign is written that means something to ComfyUI's vue-i18n: | in a message would cut it in two."""


def words(language: str) -> dict:
    return json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


def inputs(info: dict) -> dict[str, str]:
    """The tooltip of each input."""
    found = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    return {name: options[0]["tooltip"] for name, (_, *options) in found.items()}


def outputs(info: dict) -> dict[str, dict[str, str]]:
    """Name and tooltip of each output, by its number. One that is called like its type has the host's name for it."""
    found = {}
    for index, (name, kind, tooltip) in enumerate(
        zip(info["output_name"], info["output"], info["output_tooltips"], strict=True)
    ):
        named = {} if name == kind else {"name": name}
        found[str(index)] = named | {"tooltip": quoted(tooltip)}
    return found


def source() -> dict:
    """The words of the nodes themselves, in the form of a locale."""
    return {
        name: {
            "display_name": quoted(info["display_name"]),
            "description": quoted(info["description"]),
            "inputs": {key: {"name": key, "tooltip": quoted(text)} for key, text in inputs(info).items()},
            "outputs": outputs(info),
        }
        for name, info in OURS.items()
    }


def quoted(text: str) -> str:
    return re.sub(r"[|@{}$]", lambda sign: f"{{'{sign[0]}'}}", text)


def messages(node: dict) -> dict[str, str]:
    """Everything that is shown of a node, by where."""
    shown = {"display_name": node["display_name"], "description": node["description"]}
    for key, entry in node["inputs"].items():
        shown |= {f"{key} name": entry["name"], f"{key} tooltip": entry["tooltip"]}
    for key, entry in node["outputs"].items():
        shown |= {f"output {key} {what}": text for what, text in entry.items()}
    return shown


def numbers(text: str) -> list[str]:
    return sorted(re.findall(r"\d+(?:\.\d+)?", text))


def test_the_english_words_are_those_of_the_nodes():
    """Rewritten where they are stale; translate what changed, and commit all of them. Seen to fail on one tooltip."""
    path, now = ROOT / "locales" / "en" / "nodeDefs.json", source()
    stale = words("en") != now
    if stale:
        path.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert not stale, f"{path} was stale and is now rewritten: bring the other languages up to date"


@pytest.mark.parametrize("language", TRANSLATED)
def test_every_node_input_and_output_has_its_words(language):
    """And nothing else has. Seen to fail with an input taken out, and with an output."""
    ours, theirs = source(), words(language)
    assert set(theirs) == set(ours)
    for name, node in ours.items():
        assert set(messages(theirs[name])) == set(messages(node)), name
        assert all(messages(theirs[name]).values()), name


@pytest.mark.parametrize("language", TRANSLATED)
def test_the_numbers_and_the_lines_are_the_same_in_every_language(language):
    """So that a default or a size that changes is noticed. Seen to fail with 10.5 GB that became 10.6."""
    ours, theirs = source(), words(language)
    for name, node in ours.items():
        for where, text in messages(node).items():
            told = messages(theirs[name])[where]
            if where.endswith(" name"):
                continue
            assert numbers(told) == numbers(text), (name, where)
            assert told.count("\n") == text.count("\n"), (name, where)


@pytest.mark.parametrize("language", TRANSLATED)
def test_it_is_a_translation(language):
    """Seen to fail where English was left in place."""
    ours, theirs = source(), words(language)
    same = [
        (name, where)
        for name, node in ours.items()
        for where, text in messages(node).items()
        if not where.endswith(" name") and messages(theirs[name])[where] == text
    ]
    assert not same


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_node_is_called_what_it_is_called_in_that_language(language):
    """Ours, and ComfyUI's. Seen to fail with a Load Video in Japanese that no menu has."""
    ours, theirs = source(), words(language)
    names = {bare(node["display_name"]): bare(theirs[name]["display_name"]) for name, node in ours.items()}
    if language != "de":
        names |= {name: called[("zh", "ja", "ko", "fr", "es").index(language)] for name, called in HOSTS.items()}
    missing = [
        (node, where, name, called)
        for node, own in ours.items()
        for where, text in messages(own).items()
        for name, called in names.items()
        if re.search(rf"\b{re.escape(name)}\b", text)
        and where != "display_name"
        and called.casefold() not in messages(theirs[node])[where].casefold()
    ]
    assert not missing


def bare(name: str) -> str:
    """A node's name without what stands in brackets behind it."""
    return name.split(" (")[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_sign_means_something_to_the_page(language):
    """Seen to fail with a bare | in the tooltip of Step Schedule's steps: ComfyUI showed the half before it."""
    for node in words(language).values():
        for where, text in messages(node).items():
            assert not set(SYNTAX.sub("", text)) & set("|@{}$"), where


def test_every_help_page_shows_its_node_wired():
    for name in OURS:
        page = (ROOT / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert f"]({name}.jpg)" in page, name
        assert (ROOT / "web" / "docs" / f"{name}.jpg").stat().st_size > 5000, name
