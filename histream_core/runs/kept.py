"""Runs of bare weights that are kept in a folder: how they are described, and how they go on.

B batch, C channels, T latent frames, F pixel frames, H W in pixels here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext, suppress

import torch
from torch import Tensor

from .. import __version__
from ..network.forward import Text
from ..plan.chunks import Plan, replay
from ..stream.noise import Noise
from ..stream.stream import Given, Prompt, Stream
from ..stream.timeline import Stretch, shares_of
from ..video.writing import BackgroundWriter
from . import (
    Journal,
    Manifest,
    Section,
    Seed,
    Session,
    Settings,
    Snapshots,
    environment,
    fingerprint_weights,
    hash_tensor,
)
from .render import Progress, Report, Weights, count_calls, open_decoder, open_stream, silent, start, timed_decode
from .store.video import chunks_on_disk, first_frame, join_finished, join_video, open_video, write_cuts

FIRST_FRAME = "first frame"
"""In the fingerprint of a run that begins with a picture: the hash of its latent."""


def describe_run(
    weights: Weights,
    plan: Plan,
    settings: Settings,
    *,
    prompt: str,
    text: Tensor,
    seed: int,
    source: Mapping[str, str | None],
    changes: Sequence[Stretch] = (),
    given: Tensor | None = None,
) -> Manifest:
    """The manifest of a run that is about to begin; `text` is the prompt's embedding [1, tokens, channels].

    `changes` are what the text becomes later, `given` is the clean latent of the first chunk where it is not denoised.
    """
    return Manifest(
        plan=plan,
        settings=settings,
        sections=(Section(0, prompt, hash_tensor(text)), *sections_of(changes)),
        seeds=(Seed(0, seed),),
        fingerprint=fingerprints(weights) | ({} if given is None else {FIRST_FRAME: hash_tensor(given)}),
        source=source,
        made_with=environment(weights.device, weights.kernels().in_use),
    )


def sections_of(stretches: Sequence[Stretch], first_chunk: int = 0) -> tuple[Section, ...]:
    """Stretches as sections of a run, counted from `first_chunk`."""
    return tuple(
        Section(part.first_chunk - first_chunk, part.prompt, hash_tensor(part.text), part.recache, part.blended)
        for part in stretches
    )


def text_before(manifest: Manifest, texts: Sequence[Tensor], chunk: int) -> Tensor | None:
    """The text that the chunk before `chunk` was made under; `texts` are those of the run's sections."""
    found = [text for section, text in zip(manifest.sections, texts, strict=True) if section.first_chunk < chunk]
    return found[-1] if found else None


def keep_given(journal: Journal, given: Tensor | None) -> None:
    """Write the first chunk of a run that begins with a picture, so that going on needs the picture no more."""
    if given is not None and not journal.finished:
        journal.write(0, given)


def fingerprints(weights: Weights) -> dict[str, str]:
    return {"model": fingerprint_weights(weights.model), "vae": fingerprint_weights(weights.vae)}


def metadata(prompts: Sequence[str], seeds: Sequence[int]) -> dict[str, str]:
    """What is written into a video about itself."""
    return {
        "prompt": " | ".join(filter(None, prompts)),
        "seed": ", ".join(map(str, seeds)),
        "software": f"HiStream {__version__}",
    }


def go_on(
    weights: Weights,
    journal: Journal,
    texts: Sequence[Tensor],
    *,
    snapshots: Snapshots | None = None,
    report: Report = silent,
) -> Progress:
    """Take a run of bare weights to its end from wherever it stands, as `make_video` does.

    `texts` are the sections' embeddings.
    """

    def make_session(progress: Progress, watch: Report) -> Session:
        def make_stream(plan: Plan, noise: Noise, given: Given) -> Stream:
            prompts = prompts_of(journal.manifest, texts, device=weights.device)
            return open_stream(weights, plan, noise, prompts, given, progress=progress, report=watch)

        return Session(journal, make_stream, open_decoder(weights), snapshots=snapshots)

    return make_video(journal, make_session, report=report)


def make_video(
    journal: Journal,
    make_session: Callable[[Progress, Report], Session],
    *,
    tags: Mapping[str, str] | None = None,
    report: Report = silent,
    on_frames: Callable[[Tensor], None] | None = None,
    stops: tuple[type[BaseException], ...] = (KeyboardInterrupt,),
) -> Progress:
    """Take a run to its end from wherever it stands, and write its video and cut list; return the counts and times.

    `make_session` gets the progress, to count its network calls in, and what to report it to before each of them.
    `tags` are stored in the video besides prompts and seeds. `on_frames` is shown the frames [F, H, W, 3] of each
    chunk. Raises ValueError and OSError that say what to change; what is finished stays then. After an exception of
    `stops`, with which the user stopped the run, there is also a video of what is finished.
    """
    manifest, folder = journal.manifest, journal.folder
    tags = metadata([s.prompt for s in manifest.sections], [seed.seed for seed in manifest.seeds]) | dict(tags or {})
    first = chunks_on_disk(folder, manifest)
    progress = begin(journal, first)
    if first == manifest.num_chunks:
        writer = None
    else:
        writer = BackgroundWriter(open_video(folder, manifest, first, tags), times=progress.times)
        writer.keep_on = stops

    def watch(progress: Progress) -> None:
        if writer:
            progress.note_first(writer.num_frames, 1)
        report(progress)

    session = make_session(progress, watch)
    try:
        with closing(session.run(first)) as chunks, writer or nullcontext():
            for finished in timed_decode(chunks, progress.times):
                if finished.frames is not None:
                    writer.write(finished.frames[0])
                    progress.count_chunk(finished.frames.shape[1])
                    if on_frames:
                        on_frames(finished.frames[0])
                watch(progress)
    except stops:
        with suppress(OSError, ValueError):  # a courtesy: the segments are there in any case
            join_finished(folder, manifest, tags)
        raise
    if writer:
        progress.note_first(writer.num_frames, 1)
    join_video(folder, manifest, tags)
    write_cuts(folder, manifest)
    return progress


def begin(journal: Journal, first: int) -> Progress:
    """The progress of a run whose first `first` chunks are in files, before it goes on."""
    manifest = journal.manifest
    progress = start(manifest.plan)
    recached = sum(section.recache for section in manifest.sections) * len(manifest.plan.grids)
    progress.num_calls = count_calls(replay(manifest.plan, journal.finished)) + recached
    progress.chunks = first
    progress.frames = progress.skipped_frames = frames_before(manifest, first)
    return progress


def prompts_of(manifest: Manifest, texts: Sequence[Tensor], *, device: torch.device) -> list[Prompt]:
    """The prompts of a run's sections; `texts` are their embeddings [B, tokens, channels]."""
    shares = shares_of([section.blended for section in manifest.sections])
    return [
        Prompt(Text(text.to(device)), section.first_chunk, section.recache, share)
        for section, text, share in zip(manifest.sections, texts, shares, strict=True)
    ]


def frames_before(manifest: Manifest, chunk: int) -> int:
    """Pixel frames of the video in the chunks before `chunk`."""
    chunks = manifest.plan.chunks
    return first_frame(chunks[chunk]) if chunk < len(chunks) else manifest.plan.num_pixel_frames
