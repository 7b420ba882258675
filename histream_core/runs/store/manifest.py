"""The manifest of a run: everything its latents and its video depend on, as one value that is written to disk.

Each chunk has a recipe: a hash of everything that decides its latent, including the recipe of the chunk before it. A
chunk file with another recipe was made by another run or seed, or has the wrong number.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import repeat
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from ...files.reading import parse_json
from ...files.values import digest, parse, plain, short
from ...plan.chunks import Chunk, Plan
from ...plan.guidance import NO_GUIDANCE
from ...plan.histories import CLEAN
from ...plan.order import CHUNKS
from ...plan.sizes import MAX_PIXEL_FRAMES, MAX_SIDE
from ...plan.speed import DEFAULTS, Speed
from ...stream.noise import SeededNoise
from ...video.formats import Format, find_format
from ...video.writers import frame_rate
from . import format_1

FORMAT = 2
"""Version of manifest.json; version 1, which listed the plan's chunks, can be read too, others are refused."""

NEGATIVE = "negative prompt"
"""Key in a fingerprint for the hash of the negative prompt's embedding."""

UPSAMPLER = "upsampler"
"""Key in a fingerprint for the hash of the network that takes LOW estimates to HIGH."""

_NAME = re.compile(r"[^/\\:*?\"<>|\x00-\x1f]{1,120}")
_HASH = re.compile(r"[0-9a-f]{64}")
_RESERVED = (
    "manifest.json",
    "lock",
    "chunks",
    "snapshots",
    "texts",
    "sound.mka",
    "draft.png",
    "segments",
    "cuts.edl",
    "cuts.json",
    "video.latent",
)


@dataclass(frozen=True)
class Settings:
    """The user's choices, besides prompts and seeds."""

    preset: str
    mode: str
    size: tuple[int, int]
    """Width and height of the picture; the plan may generate a larger one, which is cropped."""
    fps: float
    format: str
    output: str
    """Name of the video, or of the folder of pictures, inside the run's folder."""
    dtype: str
    """The dtype that the network computes in, such as "float32"."""
    depth: int | None = None
    """Bits per channel in the file; None: the default of the format."""
    section_files: bool = False
    """Whether each section of the video is also written as a file of its own."""
    fp8_kv: bool = False
    """Whether keys and values of past frames are kept in FP8; all other memory tiers give the same frames."""
    sound: str | None = None
    """The SHA-256 of the sound in the run's folder that goes into the video; None: no sound."""
    speed: Speed = DEFAULTS
    """The approximate speed choices; exact choices are not stored."""

    def __post_init__(self):
        check_name(self.output)
        if not all(0 < side <= MAX_SIDE for side in self.size):
            raise ValueError(
                f"a picture of {self.size[0]}x{self.size[1]} cannot be: use 832x480, or at most {MAX_SIDE}"
            )
        format = find_format(self.format, self.depth)
        frame_rate(self.fps, format)
        if self.section_files and format.is_sequence:
            raise ValueError(
                f"{format.name} is a folder of pictures, and the cut list tells which of them belong to a section: "
                "leave section files out"
            )
        if self.sound and format.is_sequence:
            raise ValueError(f"{format.name} is a folder of pictures and holds no sound: leave the sound out")


@dataclass(frozen=True)
class Section:
    """A prompt and the chunk it begins at; `text` is the hash of its embedding."""

    first_chunk: int
    prompt: str
    text: str
    recache: bool = False
    blended: bool = False
    """Whether the section continues a blend that began in the section before: another text, but no cut."""

    def __post_init__(self):
        _check_hash(self.text, "a prompt's embedding")


@dataclass(frozen=True)
class Seed:
    """A seed and the first chunk whose noise it draws."""

    first_chunk: int
    seed: int


@dataclass(frozen=True)
class Base:
    """The run that the first `chunks` chunks are shared with; `recipe` is the recipe of the last of them."""

    run: str
    chunks: int
    recipe: str

    def __post_init__(self):
        _check_hash(self.recipe, "the last shared chunk")


@dataclass(frozen=True)
class Manifest:
    """A run. `fingerprint` has a hash for each input ("model", "vae", "given", ...).

    "vae" and keys that begin with it concern only decoding, all others the latents too. `source` tells how to load the
    inputs again; it is not compared, nor is `made_with`, the environment.
    """

    plan: Plan
    settings: Settings
    sections: tuple[Section, ...]
    seeds: tuple[Seed, ...]
    fingerprint: Mapping[str, str]
    source: Mapping[str, str | None]
    made_with: Mapping[str, str]
    base: Base | None = None
    part: range | None = None
    """The chunks that are kept in this folder, where other folders keep the others; None: all."""

    def __post_init__(self):
        for name, starts in (("prompt", self.sections), ("seed", self.seeds)):
            firsts = [start.first_chunk for start in starts]
            if not firsts or firsts[0] != 0 or firsts != sorted(set(firsts)):
                raise ValueError(
                    f"each {name} must begin after the one before it, the first at chunk 0, got {short(repr(firsts))}"
                )
        if self.plan.num_pixel_frames > MAX_PIXEL_FRAMES:
            raise ValueError(
                f"a run of {self.plan.num_pixel_frames} frames is too long: a video has at most {MAX_PIXEL_FRAMES}"
            )
        if self.base and not 0 < self.base.chunks <= self.plan.num_chunks:
            raise ValueError(f"{self.base.chunks} chunks cannot be shared: the run has {self.plan.num_chunks}")
        if self.part is not None and not 0 <= self.part.start < self.part.stop <= self.plan.num_chunks:
            raise ValueError(
                f"chunks {self.part.start} to {self.part.stop} are no part of a run of {self.plan.num_chunks}"
            )
        if self.plan.guidance.is_on != (NEGATIVE in self.fingerprint):
            has = "has" if NEGATIVE in self.fingerprint else "lacks"
            raise ValueError(f"the run is planned with {self.plan.guidance} and {has} a negative prompt: use both")
        if NEGATIVE in self.fingerprint:
            _check_hash(self.fingerprint[NEGATIVE], "the negative prompt's embedding")
        for seed in self.seeds:
            SeededNoise(seed.seed)
        planned, chosen = self.plan.levers, self.settings.speed.levers
        if planned != chosen:
            raise ValueError(
                f"the run is planned with {' and '.join(planned) or 'clean keys'}, not with "
                f"{' and '.join(chosen) or 'clean keys'}: leave that as it is, or begin a new run"
            )

    def section(self, chunk: int) -> Section:
        """The section that a chunk belongs to."""
        return self.sections[bisect_right(self._first_chunks[0], chunk) - 1]

    def seed(self, chunk: int) -> int:
        return self.seeds[bisect_right(self._first_chunks[1], chunk) - 1].seed

    @cached_property
    def _first_chunks(self) -> tuple[list[int], list[int]]:
        """The first chunks of sections and of seeds."""
        return [section.first_chunk for section in self.sections], [seed.first_chunk for seed in self.seeds]

    @property
    def keeps_low(self) -> bool:
        """Whether the LOW estimates of its chunks are stored, which a learned upsampler remembers."""
        return UPSAMPLER in self.fingerprint

    @property
    def num_chunks(self) -> int:
        return self.plan.num_chunks

    @property
    def kept(self) -> range:
        """The chunks that are kept in the run's folder."""
        return self.part or range(self.num_chunks)


class ChunkSeeds:
    """Noise whose seed depends on the chunk, for runs that were retried with another seed."""

    def __init__(self, manifest: Manifest):
        self.manifest = manifest

    def __call__(self, chunk: int, step: int, shape: torch.Size) -> Tensor:
        return SeededNoise(self.manifest.seed(chunk))(chunk, step, shape)


def chain(manifest: Manifest) -> Iterator[str]:
    """Yield the recipe of every chunk, each made of the one before it.

    Chunks shared with another run have an empty one, except the last of them.
    """
    plan, base = manifest.plan, manifest.base
    shared = base.chunks if base else 0
    common = digest([
        [plain(getattr(plan, name)) for name in ("grids", "ntk", "window", "temporal", "resize")],
        manifest.settings.dtype,
        *(["fp8_kv"] if manifest.settings.fp8_kv else []),
        *(["anchor_match", plan.anchor_match] if plan.anchor_match else []),
        *(["restyle", plain(plan.restyle)] if plan.restyle else []),
        *(["histories", plan.histories] if plan.histories != CLEAN else []),
        *(["order", plan.order] if plan.order != CHUNKS else []),
        *(["sinks", plain(plan.sinks)] if plan.sinks else []),
        *([] if plan.anchor_source.stays else ["anchor_source", plain(plan.anchor_source)]),
        *(["guidance", plain(plan.guidance)] if plan.guidance != NO_GUIDANCE else []),
        *(["second_weights"] if plan.second_weights else []),
        *([plain(manifest.settings.speed)] if manifest.settings.speed != DEFAULTS else []),
        {name: value for name, value in manifest.fingerprint.items() if not name.startswith("vae")},
    ])  # fmt: skip
    last = base.recipe if base else ""
    yield from repeat("", shared - 1)
    if base:
        yield last
    for index in range(shared, plan.num_chunks):
        chunk = plan.chunks[index]
        before = plan.chunks[chunk.index - 1].cache_steps if chunk.index else ()
        section = manifest.section(chunk.index)
        recached = section.recache and section.first_chunk == chunk.index
        made_of = [last, common, before, chunk.frames, chunk.context, chunk.steps]
        made_of += [plan.anchor(chunk.frames.start)] if plan.anchor(chunk.frames.start) else []
        made_of += ["jump"] if chunk.frames.start in plan.jumps else []
        last = digest([*made_of, section.text, recached, manifest.seed(chunk.index)])
        yield last


def to_json(manifest: Manifest) -> str:
    """Format manifest.json: one object with a version, a checksum, and the run."""
    run = plain(manifest)
    if manifest.part is None:  # as it was before there were parts
        del run["part"]
    if manifest.plan.guidance == NO_GUIDANCE:  # as it was before there was guidance
        del run["plan"]["guidance"]
    if manifest.plan.anchor_source.stays:  # nor anchors that walk
        del run["plan"]["anchor_source"]
    if not manifest.plan.jumps:
        del run["plan"]["jumps"]
    return json.dumps({"format": FORMAT, "sha256": digest(run), "run": run}, indent=1, allow_nan=False) + "\n"


def envelope(text: str) -> dict[str, Any]:
    """The object in a manifest's text: format, sha256 and run, not looked into. Raises ValueError for another one."""
    try:
        data = parse_json(text)
    except ValueError as error:
        raise ValueError("is not JSON") from error
    if not isinstance(data, dict) or "format" not in data:
        raise ValueError("is not the manifest of a run")
    if data.keys() != {"format", "sha256", "run"}:
        raise ValueError(f"has the keys {short(', '.join(data))}: they must be format, sha256, run")
    return data


def from_json(text: str) -> Manifest:
    """Read what `to_json` wrote. Raises ValueError that names the version, the key or the edit that is wrong."""
    data = envelope(text)
    if data["format"] not in (format_1.FORMAT, FORMAT):
        raise ValueError(f"has format {short(data['format'])} and this version of HiStream reads {FORMAT}")
    run, changed = data["run"], digest(data["run"]) != data["sha256"]
    if data["format"] == format_1.FORMAT and not changed:
        run = format_1.with_recipe(run)
    manifest = parse(Manifest, run, "run")
    _check_output(manifest.settings)
    if changed:
        raise ValueError("was changed after it was written: its checksum does not fit")
    return manifest


def refuse_part(folder: Path, manifest: Manifest) -> None:
    """Raise ValueError for the run of a part, which only its farm goes on with."""
    if manifest.part is not None:
        raise ValueError(
            f"{folder} holds a part of a run alone: submit the list of its farm again, and take the whole run then"
        )


def differences(old: Manifest, new: Manifest) -> list[str]:
    """Differences between two runs, in words: "the model", "the seed (1, was 0)", ..."""
    found = [f"the {name}" for name in sorted(old.fingerprint.keys() | new.fingerprint.keys())
             if old.fingerprint.get(name) != new.fingerprint.get(name)]  # fmt: skip
    for name in (field.name for field in fields(Settings)):
        then, now = getattr(old.settings, name), getattr(new.settings, name)
        if then != now and name == "sound":
            found.append("the sound")
        elif then != now and name == "speed":
            found.extend(_field_differences(then, now))
        elif then != now:
            found.append(f"the setting {name} ({_words(now)}, was {_words(then)})")
    if [section.prompt for section in old.sections] != [section.prompt for section in new.sections]:
        found.append(f"the prompt ({_prompts(new)}, was {_prompts(old)})")
    elif old.sections != new.sections:
        found.append("what the text encoder makes of the prompt, or where a prompt begins")
    if old.seeds != new.seeds:
        found.append(f"the seed ({words_of_seeds(new)}, was {words_of_seeds(old)})")
    return found + _plan_differences(old.plan, new.plan)


def _field_differences(then: Speed, now: Speed) -> list[str]:
    pairs = [(field.name, getattr(then, field.name), getattr(now, field.name)) for field in fields(Speed)]
    return [f"the setting {name} ({new}, was {old})" for name, old, new in pairs if old != new]


def _plan_differences(old: Plan, new: Plan) -> list[str]:
    words = {"num_latent_frames": "the length", "grids": "the size", "ntk": "the NTK factors",
             "schedule": "the steps", "anchor_match": "the anchor match", "given_frames": "the first frame",
             "first_chunk_attention": "the attention scale of the first chunk", "restyle": "the strength",
             "cropped_frames": "the length", "guidance": "CFG or NAG",
             "anchor_source": "what the anchor holds", "jumps": "where the time jumps"}  # fmt: skip
    return [words.get(field.name, f"the {field.name}") for field in fields(Plan)
            if getattr(old, field.name) != getattr(new, field.name)]  # fmt: skip


def check_longer(old: Plan, new: Plan) -> None:
    """Raise ValueError for a plan that does not begin as `old` does."""
    if new.num_latent_frames <= old.num_latent_frames:
        raise ValueError(
            f"{new.num_pixel_frames} frames are not more than the {old.num_pixel_frames} there are: ask for more"
        )
    begun = old.generated_frames
    starts = {"anchors": new.anchors, "scenes": new.scenes, "jumps": new.jumps}
    starts = {name: tuple(first for first in firsts if first < begun) for name, firsts in starts.items()}
    length = {"num_latent_frames": old.num_latent_frames, "cropped_frames": old.cropped_frames}
    head = replace(new, **length, **starts)
    found = _plan_differences(old, head)
    if found:
        raise ValueError(f"the longer plan differs from the run's in {', '.join(found)}: only the length may change")


def check_name(name: str) -> None:
    """Raise ValueError for a name that is not a plain file name."""
    whole = PurePosixPath(name).name == name and _NAME.fullmatch(name) and name == name.strip(" .")
    if not whole or name.lower() in _RESERVED:
        raise ValueError(f"{name!r} cannot be the name of a video in a run's folder: use one like video.mp4")


def usual_output(format: Format) -> str:
    """The name of a run's video, or of its folder of pictures."""
    return "video" if format.is_sequence else f"video{format.suffix}"


def _check_output(settings: Settings) -> None:
    """Refuse a manifest that takes another file of the folder for the run's video. Raises ValueError."""
    usual = usual_output(find_format(settings.format, settings.depth))
    if settings.output != usual:
        raise ValueError(f"names {short(repr(settings.output))} as its video, and that of a run is called {usual}")


def _check_hash(text: str, name: str) -> None:
    if not _HASH.fullmatch(text):
        raise ValueError(f"the hash of {name} is {short(repr(text))}: it has 64 digits from 0 to f")


def whole_chunks(plan: Plan) -> Plan:
    """The plan without the crop at its end: whole chunks are stored, so that a run can be made longer."""
    return replace(plan, num_latent_frames=plan.generated_frames, cropped_frames=0)


def kept_frames(plan: Plan, chunk: Chunk) -> int:
    """Number of latent frames of a chunk that are in the video."""
    return min(len(chunk.frames), plan.num_latent_frames - chunk.frames.start)


def _words(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _prompts(manifest: Manifest) -> str:
    return " | ".join(f'"{section.prompt}"' for section in manifest.sections)


def words_of_seeds(manifest: Manifest) -> str:
    """The seeds and the chunks they begin at: "3, 99 from chunk 2"."""
    seeds: Sequence[Seed] = manifest.seeds
    return ", ".join(
        f"{seed.seed} from chunk {seed.first_chunk}" if seed.first_chunk else str(seed.seed) for seed in seeds
    )
