"""Manifests of runs: that of a new run, and that of a run as these weights would begin it now.

B batch, C channels, T latent frames, H W latent grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from .. import __version__
from ..cost.fitting import check_strips
from ..network.forward import Text
from ..plan import Plan
from ..stream.prompts import Prompt, continues, led_away, with_shares
from .backend import Backend
from .restyle import SOURCE_VIDEO, SourceVideo
from .store.fingerprint import environment, hash_tensor
from .store.manifest import NEGATIVE, UPSAMPLER, Manifest, Section, Seed, Settings
from .store.video import check_room

FIRST_FRAME = "first frame"
"""Key in a fingerprint for the hash of the latents that the video begins with."""


class NotEnoughMemoryError(ValueError):
    """Raised for a plan that needs more memory than there is; the message says what would fit."""


@dataclass(frozen=True)
class NewRun:
    """Inputs of a run that is about to begin."""

    plan: Plan
    prompts: tuple[Prompt, ...]
    seed: int
    settings: Settings
    """The user's choices; `new_manifest` adds the settings that follow from the weights."""
    given: Tensor | None = None
    """The clean latent [1, C, T, H, W] of the first chunks, if the plan does not denoise them."""
    sound: bytes | None = None
    """The sound as packed by `pack_sound`, if the settings name one."""
    video: SourceVideo | None = None
    """The video that is restyled, if there is one."""
    source: Mapping[str, str | None] = field(default_factory=dict)
    """Names and paths by which the weights can be loaded again."""
    part: range | None = None
    """The chunks to make, where others make the others; None: all."""

    @property
    def texts(self) -> list[Tensor]:
        """The embeddings to keep: those of the prompts, and that of the negative prompt if there is one."""
        texts = [prompt.text.context for prompt in self.prompts]
        return texts if self.negative is None else [*texts, self.negative]

    @property
    def negative(self) -> Tensor | None:
        """The embedding of the negative prompt; None where the plan is without guidance."""
        negative = self.prompts[0].text.negative
        return negative.context if negative and self.plan.guidance.is_on else None


def new_manifest(backend: Backend, run: NewRun) -> Manifest:
    """The manifest of a new run."""
    inputs = {} if run.given is None else {FIRST_FRAME: hash_tensor(run.given)}
    if run.negative is not None:
        inputs[NEGATIVE] = hash_tensor(run.negative)
    source = dict(run.source)
    if run.video:
        inputs[SOURCE_VIDEO], source["video"] = run.video.index.digest, str(run.video.path.resolve())
    return Manifest(
        plan=run.plan,
        settings=completed_settings(run.settings, backend),
        sections=sections_of(run.prompts),
        seeds=(Seed(0, run.seed),),
        fingerprint=backend.fingerprint() | inputs,
        source=source,
        made_with=environment(backend.device, backend.kernels().in_use),
        part=run.part,
    )


def manifest_now(manifest: Manifest, backend: Backend) -> Manifest:
    """The manifest that this run would have if it were begun now with these weights."""
    return replace(
        manifest,
        settings=completed_settings(manifest.settings, backend),
        fingerprint={key: x for key, x in manifest.fingerprint.items() if key != UPSAMPLER} | backend.fingerprint(),
        made_with=environment(backend.device, backend.kernels().in_use),
    )


def completed_settings(settings: Settings, backend: Backend) -> Settings:
    """The settings with the fields that the backend decides: dtype, FP8 keys, approximations."""
    dtype = str(backend.dtype).removeprefix("torch.")
    return replace(settings, dtype=dtype, fp8_kv=backend.kv == "fp8", speed=backend.speed.approximations)


def check_possible(
    backend: Backend,
    folder: Path,
    manifest: Manifest,
    first: int = 0,
    *,
    sound: bytes | None = None,
    ignore_memory: bool = False,
) -> None:
    """Check that there is room on the disk and in memory from chunk `first` on. Raises ValueError or OSError.

    `folder` need not exist yet; `sound` is the sound to store, if it is not in the folder yet.
    """
    check_room(folder, manifest.plan, manifest.settings, first, sound=sound, low=manifest.keeps_low)
    check_memory(backend, manifest.plan, num_prompts=len(manifest.sections), ignore=ignore_memory)


def check_memory(backend: Backend, plan: Plan, *, num_prompts: int = 1, ignore: bool = False) -> None:
    """Raise NotEnoughMemoryError for a plan that needs more memory than there is.

    With `ignore` only the number of strips is checked.
    """
    check_strips(plan, int(backend.speed.vae_strips))
    if ignore:
        return
    problems = backend.memory_problems(backend.cost(plan, num_prompts=num_prompts))
    if problems:
        raise NotEnoughMemoryError("; ".join(problems))


def sections_of(prompts: Sequence[Prompt], first_chunk: int = 0) -> tuple[Section, ...]:
    """The prompts as sections of a manifest, with chunks counted from `first_chunk`."""
    return tuple(
        Section(
            prompt.first_chunk - first_chunk,
            prompt.words,
            hash_tensor(prompt.text.context),
            prompt.recache,
            blended,
        )
        for prompt, blended in zip(prompts, continues(prompts), strict=True)
    )


def prompts_of(manifest: Manifest, texts: Sequence[Tensor], negative: Tensor | None = None) -> tuple[Prompt, ...]:
    """The sections of a manifest as prompts; `texts` are their embeddings [B, tokens, channels], as is `negative`."""
    sections = manifest.sections
    prompts = [
        Prompt(Text(text), section.first_chunk, section.recache, words=section.prompt)
        for section, text in zip(sections, texts, strict=True)
    ]
    prompts = with_shares(prompts, [section.blended for section in sections])
    return prompts if negative is None else led_away(prompts, negative)


def text_before(manifest: Manifest, texts: Sequence[Tensor], chunk: int) -> Tensor | None:
    """The embedding in force in the chunk before `chunk`; `texts` are those of the run's sections."""
    found = [text for section, text in zip(manifest.sections, texts, strict=True) if section.first_chunk < chunk]
    return found[-1] if found else None


def video_tags(prompts: Sequence[str], seeds: Sequence[int]) -> dict[str, str]:
    """Tags to store in a video file: its prompts, seeds and software."""
    return {
        "prompt": " | ".join(filter(None, prompts)),
        "seed": ", ".join(map(str, seeds)),
        "software": f"HiStream {__version__}",
    }
