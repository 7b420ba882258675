"""Results of a run, as text and as plain values."""

from __future__ import annotations

from ..plan.chunks import Plan
from ..plan.schedule import Scale
from ..runs.progress import Progress
from ..runs.restyle import EncodedSource
from ..stream.inputs import Source
from ..video.formats import Format


def describe_video(plan: Plan, format: Format, size: tuple[int, int], fps: float) -> dict:
    """The video that a plan makes, as plain values."""
    width, height = plan.size
    return {
        "format": format.name,
        "depth": format.depth,
        "width": size[0],
        "height": size[1],
        "fps": fps,
        "seconds": plan.num_pixel_frames / fps,
        "frames": plan.num_pixel_frames,
        "latent_frames": plan.num_latent_frames,
        "chunks": len(plan.chunks),
        "generated_width": width,
        "generated_height": height,
    }


def describe_entries(source: Source | None) -> dict:
    """How the chunks of a restyled video began, as plain values; nothing for another video.

    `share` is the share of noise, `told` the noise level that the network was told, `frame` the chunk's first frame.
    """
    if not isinstance(source, EncodedSource):
        return {}
    pairs = zip(source.plan.chunks, source.entries, strict=False)  # a run that is finished asks for none
    return {
        "entries": [
            {"chunk": chunk.index, "frame": chunk.first_pixel_frame, "share": entry.share, "told": entry.told}
            for chunk, entry in pairs
        ]
    }


def describe_progress(progress: Progress) -> dict:
    """Counts and times of a run, as plain values; times are seconds from the start of sampling."""
    return {
        "passes": {"high": progress.calls[Scale.HIGH], "low": progress.calls[Scale.LOW]},
        "ttff_s": round(progress.first_frames or 0, 2),
        "s_per_frame": round(progress.seconds_per_frame, 4),
        "bottleneck": progress.times.bottleneck,
        "seconds_taken": round(progress.seconds, 2),
    }


def sentence(result: dict) -> str:
    """One sentence about a result."""
    made = (
        f"{result['file']}: {result['frames']} frames of {result['width']}x{result['height']}, "
        f"{result['seconds']:.1f} s at {result['fps']:g} fps"
    )
    if not result["s_per_frame"]:
        return f"{made}; nothing was left to do"
    return (
        f"{made}; took {result['seconds_taken']:.1f} s, first frames after {result['ttff_s']:.1f} s, "
        f"{result['s_per_frame']:.3g} s for each, most of it to {result['bottleneck']}"
    )
