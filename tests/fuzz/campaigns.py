"""The campaigns: each makes a case of a number, with its files in the scratch folder of a place, and judges its end."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random

import tiny_text_encoder
import torch
from safetensors import safe_open
from safetensors.torch import save
from tiny_cli import RED
from tiny_weights import WEIGHTS

from histream_core import cli
from histream_core.lab.judge.drift_meter import meter
from histream_core.runs import Journal, list_runs
from histream_core.runs.store.fingerprint import hash_tensor
from histream_core.runs.store.journal import _hash_all
from histream_core.runs.store.whole_latent import map_latent, write_latent
from histream_core.video.edit.ranges import join_ranges, range_at, write_range
from histream_core.video.formats import find_format
from histream_core.video.pictures import read_picture
from histream_core.video.reading import frames_of, index_video
from histream_core.video.sound import TIMES, pack_sound

from . import mutate, mutate_media
from .case import VERBS, Case, Judge, calls, line_of, says
from .child import Outcome, Place, Tree, Work, tree
from .links import copy_media, plant
from .seeds import INDEX, Seeds, Words, same_video

# Checkpoints


def checkpoints(chance: Random, seeds: Seeds, place: Place) -> Case:
    """A spoilt file of weights that is inspected, converted, or loaded as each of the files of a video."""
    name, data = chance.choice(list(seeds.checkpoints.items()))
    if name.endswith(".pt") and chance.random() < 0.45:
        data = mutate.hostile_torch(chance, WEIGHTS if "embeds" not in name else {"embeds": WEIGHTS["head.modulation"]})
    for _ in range(chance.choice((1, 1, 2))):
        data = (mutate.spoil_zip if data[:4] == b"PK\x03\x04" and chance.random() < 0.7 else _spoil_weights)(
            chance, data
        )
    path = place.scratch / f"evil{chance.choice((Path(name).suffix, '.safetensors', '.pt'))}"
    if name == INDEX:
        path = place.scratch / name
        (place.scratch / "wan.safetensors").write_bytes(seeds.checkpoints["wan.safetensors"])
    path.write_bytes(data)
    words = _use_of_weights(chance, seeds, name, path)
    return Case(f"{name} spoilt: {line_of(words)}", says(words, stop=4))


def encoders(chance: Random, seeds: Seeds, place: Place) -> Case:
    """A spoilt text encoder, or its tokenizer, that encodes a prompt."""
    tensors = tiny_text_encoder.weights() | {"spiece_model": _tokenizer()}
    kind = chance.random()
    if kind < 0.5:
        spoilt = mutate.spoil_bytes(chance, tensors["spiece_model"].numpy().tobytes()) or b"x"
        tensors["spiece_model"] = torch.frombuffer(bytearray(spoilt), dtype=torch.uint8)
    elif kind < 0.7:
        name = chance.choice(list(tensors))
        tensors[name] = _forged(chance, tensors[name])
    data = save({name: x.contiguous() for name, x in tensors.items()})
    path = place.scratch / "umt5.safetensors"
    path.write_bytes(mutate.spoil_safetensors(chance, data) if kind >= 0.7 else data)
    files = ("--model", seeds.weights / "wan.safetensors", "--vae", seeds.weights / "vae.safetensors")
    told: Words = (
        "render",
        *files,
        "--text-encoder",
        path,
        "--prompt",
        RED,
        "--frames",
        "9",
        *_SIZE,
        "--out",
        "out.mp4",
    )
    return Case("a text encoder spoilt", says(told, stop=1))


@cache
def _tokenizer() -> torch.Tensor:
    return tiny_text_encoder.tokenizer()


def _spoil_weights(chance: Random, data: bytes) -> bytes:
    return mutate.spoil_safetensors(chance, data) if data[8:9] == b"{" else mutate.spoil_bytes(chance, data)


def _use_of_weights(chance: Random, seeds: Seeds, name: str, path: Path) -> Words:
    kind = chance.randrange(5)
    if kind == 0:
        return ["inspect", path]
    if kind == 1:
        return ["convert", path, "out.safetensors", *chance.choice(([], ["--dtype", "bf16"]))]
    if kind == 2:
        return ["plan", "--model", path, "--frames", "9", "--size", "32x32"]
    files = {
        part: seeds.weights / f"{file}.safetensors"
        for part, file in (("model", "wan"), ("vae", "vae"), ("embeds", "embeds"))
    }
    part = next((p for p, sign in (("embeds", "embeds"), ("vae", "vae"), ("vae", "taehv")) if sign in name), "model")
    files[part if chance.random() < 0.9 else chance.choice(list(files))] = path
    options = [word for part, file in files.items() for word in (f"--{part}", file)]
    return ["render", *options, "--frames", "9", "--size", "32x32", "--out", "out.mp4"]


# Folders of runs


def runs(chance: Random, seeds: Seeds, place: Place) -> Case:
    """A kept run with files that are spoilt, swapped with another run's, removed, or no files any more; and a verb."""
    name = chance.choice(list(seeds.starts))
    folder = Path(shutil.copytree(seeds.runs / name, place.scratch / "run"))
    (folder / "letter.txt").write_text("mine\n")
    kind, resigned = chance.random(), True
    if kind < 0.12 and (path := _forge(chance, folder)):
        done = [f"{path.relative_to(folder)} forged"]
    elif kind < 0.4:
        path = folder / "manifest.json"
        path.write_bytes(mutate.resign(chance, path.read_bytes()))
        done = ["manifest.json re-signed"]
    else:
        resigned = False
        done = [_spoil_file(chance, seeds, folder, place) for _ in range(chance.choice((1, 1, 2, 3)))]
    lines = chance.choice(VERBS)
    what = f"{name}: {', '.join(done)}: {'; '.join(map(line_of, lines))}"
    if lines[-1] == ("runs",) and chance.random() < 0.5:
        return Case(f"{what} as a function", calls(lambda: list_runs(Path())))
    if chance.random() < 0.04:
        return Case(f"{what}, its latents as one file", calls(_latents_of(chance, folder)))
    return Case(what, says(*lines), _judge_run(seeds, folder, lines, forged=resigned))


FORGED: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    lambda x: x[..., :-1], lambda x: x[None], lambda x: x.flatten(), lambda x: x[:0],
    lambda x: torch.zeros(0, 2**30, 2**30), lambda x: x.double(), lambda x: x.to(torch.int64),
    lambda x: x.to(torch.float8_e4m3fn), lambda x: x.bool(),
    lambda x: x * float("nan"), lambda x: torch.cat([x, x]), lambda x: torch.full_like(x, 2**30),
    lambda x: torch.zeros(()),
)  # fmt: skip


def _forged(chance: Random, x: torch.Tensor) -> torch.Tensor:
    with contextlib.suppress(IndexError, RuntimeError):  # of a change that a tensor of that kind cannot have
        return chance.choice(FORGED)(x)
    return x.float()


def _forge(chance: Random, folder: Path) -> Path | None:
    """Change a chunk or a snapshot and give it the checksum that a forger computes for it."""
    files = [path for name in ("chunks", "snapshots") for path in sorted((folder / name).glob("*.safetensors"))]
    if not files:
        return None
    path = chance.choice([*files, files[-1]])
    with safe_open(path, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    name = chance.choice(list(tensors))
    if chance.random() < 0.8:
        tensors[name] = _forged(chance, tensors[name])
    else:
        metadata[chance.choice(list(metadata))] = chance.choice(
            ("", "-1", "0", "1", "3", "99999", mutate.DIGITS, "\u0663")
        )
    signed = hash_tensor(tensors["latent"]) if "latent" in tensors else _hash_all(tensors)
    path.write_bytes(save({key: x.contiguous() for key, x in tensors.items()}, metadata | {"sha256": signed}))
    return path


def _latents_of(chance: Random, folder: Path) -> Callable[[], object]:
    """Do as a node does with the latents of a run, where a spoilt file of them is there."""

    def work() -> float:
        with Journal(folder) as journal:
            path = write_latent(journal, lambda latent: latent)
            path.write_bytes(mutate.spoil_safetensors(chance, path.read_bytes()))
            return float(map_latent(write_latent(journal, lambda latent: latent)).sum())

    return work


def _spoil_file(chance: Random, seeds: Seeds, folder: Path, place: Place) -> str:
    files = [path for path in sorted(folder.rglob("*")) if _is_plain(path) and path.name != "letter.txt"]
    path = folder / "manifest.json" if chance.random() < 0.25 or not files else chance.choice(files)
    name, kind = path.relative_to(folder), chance.random()
    if kind < 0.5 and _is_plain(path):
        path.write_bytes(_spoilt(chance, path))
        return f"{name} spoilt"
    if kind < 0.65:
        other = seeds.runs / chance.choice(list(seeds.starts)) / name
        source = other if other.is_file() else chance.choice(files or [folder / "letter.txt"])
        if _is_plain(path):
            path.write_bytes(source.read_bytes())
        return f"{name} from {source.parent.name}/{source.name}"
    if kind < 0.72 and _is_plain(path):
        other = chance.choice([file for file in files if file.suffix == path.suffix])
        one, two = path.read_bytes(), other.read_bytes()
        path.write_bytes(two)
        other.write_bytes(one)
        return f"{name} and {other.relative_to(folder)} swapped"
    if kind < 0.82 and _is_plain(path):
        path.unlink()
        return f"{name} removed"
    if kind < 0.86 and path.parent != folder:
        shutil.rmtree(path.parent)
        return f"{name.parent} removed"
    return f"{name} is now {plant(chance, path, place)}"


def _is_plain(path: Path) -> bool:
    """Whether a path is a file of its own, not one that was planted."""
    about = path.lstat() if os.path.lexists(path) else None
    return about is not None and stat.S_ISREG(about.st_mode) and about.st_nlink == 1 and 0 < about.st_size < 2**26


def _spoilt(chance: Random, path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".json":
        return mutate.spoil_json(chance, data) if data[:1] == b"{" else mutate.spoil_bytes(chance, data)
    if path.suffix == ".safetensors":
        return mutate.spoil_safetensors(chance, data)
    return mutate_media.spoil_media(chance, data, path.suffix) if len(data) > 64 else mutate.spoil_bytes(chance, data)


def _judge_run(seeds: Seeds, folder: Path, lines: tuple[Words, ...], *, forged: bool) -> Judge:
    """Judge of a verb over a spoilt run: what is not the run's stays, and a video that is made is the right one."""
    before = _kept(tree(folder))
    manifest = folder / "manifest.json"
    name = (
        seeds.manifests.get(manifest.read_bytes()) if manifest.is_file() and manifest.stat().st_size < 2**20 else None
    )

    def judge(outcome: Outcome, place: Place) -> Iterator[str]:
        if (folder / "letter.txt").read_text() != "mine\n":
            yield "outside: letter.txt in the run's folder was changed"
        after = _kept(tree(folder)) if folder.is_dir() else {}
        verb = lines[-1][0]
        lost = {
            name for name in before if after.get(name) != before[name] and (verb, name) != ("extend", "manifest.json")
        }
        if len(lines) == 1 and outcome.status == 2 and lost:
            yield f"outside: refused, and changed {sorted(lost)[:3]}"
        if outcome.status == 0 and verb in ("resume", "extend", "branch", "demo") and not (forged and verb != "demo"):
            start = "" if verb == "demo" else name
            if start is not None:
                wrong = same_video(
                    place.scratch / ("new" if verb == "branch" else "run"), seeds.expected(start, *lines[-1:])
                )
                if wrong and "checksum" not in outcome.said:
                    yield f"wrong: {wrong}"

    return judge


def _kept(found: Tree) -> Tree:
    """The files that no refusal may change in a run: all but the lock, what is half-written, segments and videos."""
    return {
        name: about for name, about in found.items()
        if name.startswith(("chunks/0", "texts/", "sound.mka", "manifest.json", "letter")) and ".partial" not in name
    }  # fmt: skip


# Words: timelines and arguments

_SAFE = {"--help", "--run-dir", "--out", "--clip", "--teacher", "--json", "--compile", "--elementwise"}
"""Options that are left out; to compile takes longer than a case may."""


def words(chance: Random, seeds: Seeds, place: Place) -> Case:
    """A timeline, or the arguments of a verb, with hostile values."""
    copy_media(seeds, place)
    if chance.random() < 0.4:
        text = mutate_media.timeline(chance)
        if chance.random() < 0.5 or "\0" in text:
            (place.scratch / "words.txt").write_bytes(
                text.encode("utf-8", "surrogateescape" if "\udcff" in text else "surrogatepass")
            )
            text = "words.txt"
        told: Words = ("demo", "--timeline", text, "--seconds", chance.choice(("1", "2", "30")), "--out", "out.mp4")
        return Case(f"timeline: {line_of(told)}", says(told, stop=3))
    verb = chance.choice([*_BASE, "demo", "plan"])
    if verb in ("resume", "extend", "branch", "clean", "runs"):
        shutil.copytree(seeds.runs / chance.choice(list(seeds.starts)), place.scratch / "run")
    told = [verb, *_arguments(chance, verb, seeds)]
    return Case(line_of(told), says(told, stop=24), reads=True)


_SIZE = ("--size", "32x32")
_BASE = {
    "demo": (RED, "--seconds", "0.5"), "render": ("--model", "demo", "--prompt", RED, "--frames", "9", *_SIZE),
    "plan": ("--frames", "9"), "resume": ("run",), "extend": ("run", "--seconds", "0.5"), "branch": ("run", "new"),
    "runs": (".",), "clean": ("run",), "inspect": ("wan.safetensors",), "drift": ("clip.mp4",), "eval": ("clip.mp4",),
    "convert": ("wan.safetensors", "out.safetensors"), "sheet": ("--model", "demo", "--frames", "9", *_SIZE),
    "v2v": ("clip.mp4", "--model", "demo", "--prompt", RED),
}  # fmt: skip


def _arguments(chance: Random, verb: str, seeds: Seeds) -> list[str]:
    """Words that work, with one to three options set to what their type takes, or to what it does not."""
    told = list(_BASE[verb])
    parser = cli._parser(verb)._subparsers._group_actions[0].choices[verb]
    options = [action for action in parser._actions if action.option_strings and action.option_strings[-1] not in _SAFE]
    for action in chance.sample(options, min(len(options), chance.randint(1, 3))):
        told.append(chance.choice(action.option_strings))
        if action.nargs != 0:
            told.append(_value(chance, action))
    if chance.random() < 0.2:
        told[chance.randrange(len(told))] = chance.choice(mutate.TEXTS)
    return [word.replace("\0", "") for word in told]


def _value(chance: Random, action: argparse.Action) -> str:
    if action.choices and chance.random() < 0.8:
        return chance.choice([str(choice) for choice in action.choices])
    if action.type in (int, float):
        near = ("0.001", "1e8", "1e300", "-1", "0", "1", "5", "100000", "1e-9", "nan", "inf", mutate.DIGITS)
        return chance.choice((*near, *(str(number)[:1000] for number in mutate.NUMBERS)))
    if action.dest in ("size",):
        return chance.choice(
            ("32x32", "0x0", "1x1", "16x16", "100000x100000", f"{mutate.DIGITS}x16", "32x-32", "8192x16", "٣٢x32")
        )
    if action.dest in ("device", "vae_device"):
        return chance.choice(
            ("meta", "cuda", "cuda:99", "mps", "xpu", "cpu:7", "", "vulkan", "hpu", "fpga", "cpu", mutate.EVIL_TEXT[:9])
        )
    files = ("clip.mp4", "sound.m4a", "picture.png", "wan.safetensors", "run", ".", "missing", "/dev/zero", "/dev/null")
    return chance.choice((*files, *mutate.TEXTS))


# Media


def media(chance: Random, seeds: Seeds, place: Place) -> Case:
    """A spoilt picture, video or sound, or a playlist, in each place that takes one."""
    source = chance.choice(sorted(seeds.media.iterdir()))
    name, data = source.name, source.read_bytes()
    if chance.random() < 0.12:
        other = seeds.media / "heard.mp4"
        shutil.copyfile(other, place.dear / "film.mp4")
        name, data = mutate_media.playlist(chance, str(place.dear / "film.mp4"), seeds.port)
    elif chance.random() < 0.1:
        name, data = "packed.mka", mutate_media.forged_times(chance, (seeds.media / "packed.mka").read_bytes(), TIMES)
    else:
        for _ in range(chance.choice((1, 1, 2))):
            data = mutate_media.spoil_media(chance, data, source.suffix) or b"\0"
    path = place.scratch / name
    path.write_bytes(data)
    uses = _uses_of_pictures(path) if name.startswith("picture") else _uses_of_media(path, seeds)
    what, work = chance.choice(uses)
    foreign = name.startswith(("list", "clip")) and name not in {path.name for path in seeds.media.iterdir()}

    def judge(outcome: Outcome, place: Place) -> Iterator[str]:
        if seeds.was_called():
            yield "outside: connected to another program"
        if foreign and outcome.status in (0, 130):
            yield f"outside: {name} was read as what it names"

    return Case(f"{name}: {what}", work, judge)


def _uses_of_pictures(path: Path) -> list[tuple[str, Work]]:
    start: Words = ("demo", RED, "--seconds", "0.5", "--first-frame", path, "--out", "out.mp4")
    return [("first frame", says(start, stop=1)), ("read_picture", calls(lambda: read_picture(path))),
            ("drift", says(("drift", path))), ("sound", says(("demo", RED, "--sound", path), stop=1))]  # fmt: skip


def _uses_of_media(path: Path, seeds: Seeds) -> list[tuple[str, Work]]:
    half: Words = ("demo", RED, "--seconds", "0.5", "--sound", path)

    def ranges() -> None:
        index = index_video(path)
        part = range_at(0, num_frames=index.num_frames, size=9, overlap=1, fps=float(index.rate), source=index.digest)
        format, video = find_format("h264-mp4"), Path("again.mp4")
        frames = (frame[None] for frame in frames_of(path, 0, len(part.frames)))
        if not write_range(video, format, part, (32, 32), frames):
            join_ranges(video, format, part)

    return [
        ("drift", says(("drift", path))),
        ("drift --plot", says(("drift", path, "--plot", "plot.png"))),
        ("drift meter", calls(lambda: list(meter(frames_of(path), float(index_video(path).rate))))),
        ("eval", says(("eval", path))),
        ("sound", says((*half, "--out", "out.mp4"))),
        ("sound of a run", says((*half, "--format", "prores-422hq", "--run-dir", "run"))),
        ("pack_sound", calls(lambda: pack_sound(path, start=0.1, duration=0.3))),
        ("index", calls(lambda: index_video(path))),
        ("frames", calls(lambda: [None for _ in frames_of(path, 3, 5, overlap=2)])),
        ("first frame", says((*half[:4], "--first-frame", path), stop=1)),
        ("extend", says(("demo", RED, "--seconds", "2", "--extend-video", path, "--whole", "--out", "out.mp4"))),
        ("ranges", calls(ranges)),
        ("v2v", says(("v2v", path, "--model", "demo", "--prompt", RED, "--out", "out.mp4"))),
    ]
