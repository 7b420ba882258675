"""Summaries of runs: settings, times and kernels, as text."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...histream_core.cost.cost import GB
from ...histream_core.cost.pace import DecodePace, duration
from ...histream_core.live.stage import LiveSettings
from ...histream_core.plan.chunks import Plan
from ...histream_core.plan.sizes import generated_size
from ...histream_core.runs import Manifest
from ...histream_core.runs.progress import Progress
from ...histream_core.runs.store.video import cut_sections
from ...histream_core.stream.timeline import clock
from ..settings import VideoChoice
from .backend import HostBackend, MadeLatent
from .live import LiveFiles, Played
from .run_folders import name_of
from .sampler import ChunkSampler
from .sizes import size_in


def summary_of_latent(sampler: ChunkSampler, made: MadeLatent, seed: int) -> str:
    """Summary of a run that made a LATENT alone."""
    preset, _ = sampler.steps.resolve(sampler.settings)
    mode = "custom steps" if sampler.steps.table.strip() else f"mode {sampler.steps.mode}"
    backend, pace = made.backend, made.progress.pace
    videos = f"{backend.batch} videos" if backend.batch > 1 else "a video"
    lines = [
        f"a LATENT of {videos}: {size_line(pace.plan, size_in(made.latent))}",
        f"preset {preset.name}, {mode}, seed {seed}",
        f"{duration(pace.seconds)}, {pace.seconds_per_frame:.2f} s for each frame, decoding not counted",
    ]
    return "\n".join([*lines, *made.lines, *computed_with(backend, pace.plan)])


def summary_of_run(name: str, manifest: Manifest, made: Progress, backend: HostBackend) -> str:
    """Summary of a kept run; `made` is the progress of this attempt."""
    settings, seeds = manifest.settings, ", ".join(str(seed.seed) for seed in manifest.seeds)
    made_of = size_line(manifest.plan, generated_size(*settings.size))
    lines = [
        f"{name}: {made_of}, {settings.format} at {settings.fps:g} frames per second",
        f"preset {settings.preset}, mode {settings.mode}, seed {seeds}, {len(manifest.sections)} prompts",
        *restyled(manifest),
        *began(manifest),
        *taken(made),
    ]
    return "\n".join([*lines, *computed_with(backend, manifest.plan)])


def summary_of_decode(names: Sequence[str], size: tuple[int, int], choice: VideoChoice, pace: DecodePace) -> str:
    """Summary of decoding one LATENT into files of these names."""
    frames, times = pace.num_frames // pace.num_videos, pace.times
    made = f"{size[0]}x{size[1]}, {frames} frames, {choice.format} at {choice.fps:g} frames per second"
    return "\n".join([
        f"{', '.join(names)}: {made}",
        f"{pace.frames} frames in {duration(pace.seconds)}, {pace.seconds_per_frame:.2f} s for each",
        f"decode {times.decode:.1f} s, encode and write {times.write:.1f} s; slowest: {times.bottleneck}",
    ])  # fmt: skip


def summary_of_live(preset: str, settings: LiveSettings, played: Played, files: LiveFiles) -> str:
    """Summary of a live stream that is over."""
    report, plan, device = played.report, settings.plan, settings.device
    width, height = device.size
    strength = f"strength {plan.restyle.share:g}, " if plan.restyle else ""
    recorded = ", ".join(name_of(video.path) for video in files.saved)
    return "\n".join([
        f"live, {width}x{height}: {report['frames']} frames in {duration(report['seconds'])}, "
        f"{report['fps']:.2f} a second of {device.fps:g}",
        f"first picture after {report['ttff']:.2f} s; delay {report['p50']:.2f} s (p50), {report['p95']:.2f} s (p95), "
        f"{report['p99']:.2f} s (p99); jitter {report['jitter']:.3f} s",
        f"{report['misses']} of {report['chunks']} chunks late, {report['dropped']} of {report['arrived']} frames left "
        f"out",
        f"preset {preset}, {strength}{report['steps']} steps, seed {settings.seed}, policy {settings.policy}",
        f"recorded in {recorded}" if recorded else report["recording_error"] or "not recorded",
        f"its page was {played.address}",
        *report["log"],
    ])  # fmt: skip


def began(manifest: Manifest) -> Iterator[str]:
    """Where each prompt and seed begins, if there are several."""
    cuts, fps = cut_sections(manifest), manifest.settings.fps
    for cut in cuts if len(cuts) > 1 else ():
        yield f'"{cut.prompt}", seed {cut.seed}, begins at frame {cut.start} ({clock(cut.start / fps)})'


def restyled(manifest: Manifest) -> Iterator[str]:
    """How far a run changes its source, if it restyles one."""
    restyle = manifest.plan.restyle
    if restyle:
        name = Path(manifest.source.get("video") or "a video").name
        less = f", up to {restyle.motion.span:g} less where it moves" if restyle.motion else ""
        yield f"restyles {name}, strength {restyle.share:g}{less}"


def size_line(plan: Plan, size: tuple[int, int]) -> str:
    """The size that was asked for, the length and the work of a plan."""
    width, height = plan.size
    of = "" if size == plan.size else f" of {width}x{height}"
    return (
        f"{size[0]}x{size[1]}{of}, {plan.num_pixel_frames} frames, {len(plan.chunks)} chunks, {plan.num_steps()} steps"
    )


def taken(made: Progress) -> Iterator[str]:
    """Yield lines with the seconds of an attempt, by kind of work."""
    if made.skipped_frames:
        yield f"{made.skipped_frames} frames were there before"
    if made.frames == made.skipped_frames:
        return
    first = f", the first after {made.first_frames:.1f} s" if made.first_frames is not None else ""
    yield (
        f"{made.frames - made.skipped_frames} frames in {duration(made.seconds)}, "
        f"{made.seconds_per_frame:.2f} s for each{first}"
    )
    times = made.times
    yield (
        f"denoise {times.denoise:.1f} s, decode {times.decode:.1f} s, encode and write {times.write:.1f} s beside them "
        f"(waited for {times.wait:.1f} s); slowest: {times.bottleneck}"
    )


def computed_with(backend: HostBackend, plan: Plan) -> Iterator[str]:
    """The kernels and the caches of a run."""
    yield ", ".join(f"{name} {words}" for name, words in backend.kernels().in_use.items())
    yield f"keys and values {backend.kv_bytes(plan) / GB:.2f} GB ({backend.kv})"
