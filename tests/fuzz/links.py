"""A campaign: links, pipes, folders and other people's files under every name that a verb reads or writes."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Collection, Iterator
from pathlib import Path
from random import Random

from tiny_cli import RED

from .case import VERBS, Case, Judge, line_of, says
from .child import Outcome, Place, tree
from .seeds import TWO, Seeds, Words, same_video

# What stands where a file is expected

PLANTS = (
    "a link to a dear file", "a link to nothing in a dear folder", "a hard link to a dear file",
    "a link to a dear folder", "a pipe", "a link to a pipe", "a folder", "a full folder", "a socket",
    "empty", "3 GB of nothing", "/dev/zero",
)  # fmt: skip


def plant(chance: Random, path: Path, place: Place, kinds: Collection[str] = PLANTS) -> str:
    """Put something hostile under a name; says what it is."""
    kind = chance.choice(tuple(kinds))
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    dear = place.dear / chance.choice((".bashrc", "photo.png", "video.mp4", "manifest.json"))
    if kind.startswith("a link to a pipe"):
        if not os.path.lexists(place.scratch / "pipe"):
            os.mkfifo(place.scratch / "pipe")
        path.symlink_to(place.scratch / "pipe")
    elif kind in ("a folder", "a full folder"):
        path.mkdir()
        if kind == "a full folder":
            (path / "letter.txt").write_text("mine\n")
    elif kind in ("empty", "3 GB of nothing"):
        with path.open("wb") as file:
            file.truncate(0 if kind == "empty" else 3 * 2**30)
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        _bind(path)
    elif kind == "a hard link to a dear file":
        path.hardlink_to(dear)
    else:
        path.symlink_to(
            {"/dev/zero": Path("/dev/zero"), PLANTS[0]: dear, PLANTS[1]: place.dear / "new"}.get(
                kind, place.dear / "album"
            )
        )
    return kind


def _bind(path: Path) -> None:
    """A socket under a name, which may be longer than a socket's address."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


# Links, pipes and folders at every name

_OUTPUTS = {
    "out.mp4": ("demo", RED, "--seconds", "0.5", "--out", "out.mp4"),
    "out.partial.mp4": ("demo", RED, "--seconds", "0.5", "--out", "out.mp4"),
    "histream-demo.mp4": ("demo", RED, "--seconds", "0.5"),
    "histream-demo.partial.mp4": ("demo", RED, "--seconds", "0.5"),
    "plot.png": ("drift", "clip.mp4", "--plot", "plot.png"),
    "plot.partial.png": ("drift", "clip.mp4", "--plot", "plot.png"),
    "out.safetensors": ("convert", "wan.safetensors", "out.safetensors"),
    ".out.safetensors.partial": ("convert", "wan.safetensors", "out.safetensors"),
    "out.partial.safetensors": ("convert", "wan.safetensors", "out.safetensors", "--overwrite"),
    "wan.safetensors": ("inspect", "wan.safetensors"),
    "clip.mp4": ("drift", "clip.mp4"),
    "picture.png": ("demo", RED, "--seconds", "0.5", "--first-frame", "picture.png"),
    "sound.m4a": ("demo", RED, "--seconds", "0.5", "--sound", "sound.m4a"),
    "words.txt": ("demo", "--seconds", "0.5", "--timeline", "words.txt"),
    ".new.partial": ("branch", "run", "new", "--from", "1"),
    "new": ("branch", "run", "new", "--from", "1"),
    "run": ("demo", RED, "--seconds", "0.5", "--run-dir", "run"),
}
"""Files outside of a run's folder that a verb reads or writes, by name."""

_MORE_NAMES = (
    "lock", "chunks", "segments", "texts", "snapshots", "sound.mka", "video.latent", "video.partial.latent",
    "video.unfinished.mp4", "snapshots/00002.safetensors", "snapshots/00001.partial.safetensors",
    "snapshots/00002.partial.safetensors", "snapshots/.00002.safetensors.partial",
)  # fmt: skip
_APP = {"index.html": "<html>", "manifest.json": '{"name": "app", "icons": []}', "lock": "mine", "video.mp4": "mine",
        "cuts.edl": "mine", "cuts.json": "{}", "chunks/00000.safetensors": "mine", "segments/seg-00000.mp4": "mine",
        "texts/0123456789abcdef.safetensors": "mine", "sound.mka": "mine", "video/video.00000.png": "mine"}  # fmt: skip
"""A folder that is dear to somebody, and no run."""


def links(chance: Random, seeds: Seeds, place: Place) -> Case:
    """Something hostile under a name that a verb reads or writes; or a user's folder that is taken for a run."""
    if chance.random() < 0.15:
        return _app(chance, place)
    (place.scratch / "words.txt").write_text(TWO)
    copy_media(seeds, place)
    run = chance.choice(list(seeds.starts))
    if chance.random() < 0.35:
        name, words = chance.choice(list(_OUTPUTS.items()))
        if "run" in words and name != "run":
            shutil.copytree(seeds.runs / run, place.scratch / "run")
        lines: tuple[Words, ...] = (words,)
    else:
        name, lines = _place_in_run(chance, seeds, place, run)
    done = plant(chance, place.scratch / name, place)
    reads = "link" in done  # by a user who named it
    what = f"{run}: {name} is {done}: {'; '.join(map(line_of, lines))}"
    return Case(what, says(*lines), _judge_links(seeds, place, lines, run if "run" in name else ""), reads=reads)


def copy_media(seeds: Seeds, place: Place) -> None:
    for source in (
        *(seeds.media / name for name in ("clip.mp4", "sound.m4a", "picture.png")),
        seeds.weights / "wan.safetensors",
    ):
        shutil.copyfile(source, place.scratch / source.name)


def _place_in_run(chance: Random, seeds: Seeds, place: Place, run: str) -> tuple[str, tuple[Words, ...]]:
    """A name in a run's folder, and verbs over it: a run that is there, or one that is begun over it."""
    names = {name for name in seeds.partials if not any(f"0000{n}" in name or f"000{n}" in name for n in range(2, 10))}
    there = {f"run/{path.relative_to(seeds.runs / run)}" for path in (seeds.runs / run).rglob("*")}
    names |= {name for name in there if not name.endswith(("2.png", "3.png", "4.png", "5.png", "6.png", "7.png"))}
    names |= {f"run/{name}" for name in _MORE_NAMES}
    name = chance.choice(sorted(names))
    words, _ = seeds.starts[run]
    if chance.random() < 0.25:
        (place.scratch / "run").mkdir()
        return name, ((*words, "--run-dir", "run"),)
    shutil.copytree(seeds.runs / run, place.scratch / "run")
    return name, chance.choice([lines for lines in VERBS if lines[-1][0] != "demo"])


def _judge_links(seeds: Seeds, place: Place, lines: tuple[Words, ...], run: str) -> Judge:
    begun = lines[-1][0] == "demo" and "--run-dir" in lines[-1]
    before = tree(place.scratch / "run") if begun and (place.scratch / "run").is_dir() else {}

    def judge(outcome: Outcome, place: Place) -> Iterator[str]:
        folder = place.scratch / "run"
        if begun and outcome.status == 2 and before and before != tree(folder):
            yield f"outside: refused, and changed {sorted(tree(folder).keys() ^ before.keys())[:3]}"
        made = outcome.status == 0 and run and not begun and lines[-1][0] in ("resume", "extend")
        if made and (wrong := same_video(folder, seeds.expected(run, *lines[-1:]))):
            yield f"wrong: {wrong}"

    return judge


def _app(chance: Random, place: Place) -> Case:
    folder = place.scratch / "run"
    left_out = chance.sample(list(_APP), chance.randint(0, 6))
    for name, text in _APP.items():
        if name not in left_out or name == "index.html":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    lines = chance.choice((*VERBS, (("demo", RED, "--seconds", "0.5", "--run-dir", "run"),),
                           (("demo", RED, "--seconds", "0.5", "--format", "png8", "--run-dir", "run"),)))  # fmt: skip
    before = tree(folder)

    def judge(outcome: Outcome, place: Place) -> Iterator[str]:
        after = tree(folder)
        if lost := sorted(name for name in before if after.get(name) != before[name]):
            yield f"outside: a user's {lost[:3]} changed, status {outcome.status}"
        if outcome.status == 2 and after != before:
            yield f"outside: refused, and left {sorted(after.keys() - before.keys())[:3]}"

    return Case(f"a user's folder without {left_out}: {'; '.join(map(line_of, lines))}", says(*lines), judge)
