"""The video of a run, in pieces that survive a kill: a closed segment for every chunk, or single pictures.

Whole pieces are never made again. Segments are joined without encoding when the last one is finished, and stay, so that
a run can be made longer. For editors each section, a stretch of one prompt and one seed, can be a file too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from ...files.disk import write_whole
from ...plan.chunks import Chunk, Plan
from ...plan.schedule import Scale
from ...video.container import join
from ...video.edit import cut_lists as cutlist
from ...video.formats import Format, find_format
from ...video.pixels import Metadata
from ...video.space import check_space
from ...video.writers import PictureFolder, Segments, frame_rate, segment_name
from .folder import SEGMENTS, inside
from .journal import sound_path
from .manifest import Manifest, Settings, kept_frames
from .segments import KeptSegments, check_segments, checksum_path

CUTS = ("cuts.edl", "cuts.json")

LATENT_CHANNELS, FLOAT_BYTES = 16, 4

LATENT_COPIES = 2
"""Latents are stored as one file per chunk, and all in one file for the host's nodes."""

SOUND_COPIES = 2
"""The sound is stored in the run's folder and in the video."""


def format_of(settings: Settings) -> Format:
    return find_format(settings.format, settings.depth)


def usual_output(format: Format) -> str:
    """Default name of a run's video, or of its folder of pictures."""
    return "video" if format.is_sequence else f"video{format.suffix}"


def video_path(folder: Path, manifest: Manifest) -> Path:
    """Path of the finished video, or of the folder of pictures."""
    return inside(folder / manifest.settings.output)


def section_paths(folder: Path, manifest: Manifest) -> list[Path]:
    """Paths of the files of sections, beside the video: video.01.mov, video.02.mov, ...; empty if not requested."""
    return [inside(folder / section.file) for section in cut_sections(manifest) if section.file]


def run_bytes(plan: Plan, settings: Settings, first: int = 0, *, sound: bytes | None = None) -> dict[str, int]:
    """Estimated bytes that a run writes from chunk `first` on, for its latents, segments, video and sound.

    The video is counted whole, because it is joined from all segments.
    """
    format = format_of(settings)
    left = plan.num_pixel_frames - (
        first_frame(plan.chunks[first]) if first < len(plan.chunks) else plan.num_pixel_frames
    )
    height, width = plan.grids[Scale.HIGH]
    latents = sum(len(chunk.frames) for chunk in plan.chunks[first:]) * LATENT_CHANNELS * height * width * FLOAT_BYTES
    found = {"latents": LATENT_COPIES * latents * (1 + plan.keeps_steps), "sound": SOUND_COPIES * len(sound or b"")}
    if format.is_sequence:
        return found | {"segments": 0, "video": format.num_bytes(settings.size, left)}
    copies = 1 + settings.section_files
    video = format.num_bytes(settings.size, plan.num_pixel_frames) * copies
    return found | {"segments": format.num_bytes(settings.size, left), "video": video}


def check_room(folder: Path, plan: Plan, settings: Settings, first: int = 0, *, sound: bytes | None = None) -> None:
    """Raise ValueError or OSError if latents and video from chunk `first` on cannot be written.

    `folder` need not exist yet. `sound` is the sound to store, if it is not in the folder yet.
    """
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    format = format_of(settings)
    format.check_size(settings.size)
    frame_rate(settings.fps)
    needed = run_bytes(plan, settings, first, sound=sound)
    check_space(place, format, settings.size, plan.num_pixel_frames, copies=0, other_bytes=sum(needed.values()))


def first_frame(chunk: Chunk) -> int:
    """The number of a chunk's first frame in the video."""
    return chunk.first_pixel_frame


def _chunk_frames(plan: Plan) -> list[range]:
    """The range of pixel frames of each chunk in the video."""
    starts = [first_frame(chunk) for chunk in plan.chunks]
    return [range(*between) for between in pairwise([*starts, plan.num_pixel_frames])]


def chunks_on_disk(folder: Path, manifest: Manifest) -> int:
    """Number of chunks, from the first on, whose frames are all in whole files."""
    format = format_of(manifest.settings)
    chunks = manifest.plan.chunks
    if not format.is_sequence:
        segments = inside(folder / SEGMENTS)
        names = (inside(segment_name(segments, format, chunk.index)) for chunk in chunks)
        return next((index for index, name in enumerate(names) if not name.exists()), len(chunks))
    there = {path.name for path in picture_files(folder, manifest)}
    names = (_picture(manifest, format, index) for index in range(manifest.plan.num_pixel_frames))
    count = next((index for index, name in enumerate(names) if name not in there), manifest.plan.num_pixel_frames)
    return sum(part.stop <= count for part in _chunk_frames(manifest.plan))


def open_video_writer(
    folder: Path, manifest: Manifest, first: int, metadata: Metadata | None = None
) -> Segments | PictureFolder:
    """A writer that continues with chunk `first`; each of its `write` calls must be one chunk."""
    settings, format = manifest.settings, format_of(manifest.settings)
    size, fps = settings.size, settings.fps
    if not format.is_sequence:
        return KeptSegments(inside(folder / SEGMENTS), format, size=size, fps=fps, first=first)
    start = first_frame(manifest.plan.chunks[first])
    return PictureFolder(video_path(folder, manifest), format, size=size, fps=fps, metadata=metadata, first_frame=start)


def join_video(folder: Path, manifest: Manifest, metadata: Metadata | None = None) -> Path:
    """Join all segments into the video and the files of its sections; return the path of the video.

    The run's sound goes into the video, up to the last picture; the files of sections have no sound. If `metadata` has
    the tags "prompt" and "seed", those of a section's file are the section's. Raises ValueError for a segment that
    does not fit.
    """
    path = video_path(folder, manifest)
    if format_of(manifest.settings).is_sequence:
        return path
    _join(folder, manifest, range(manifest.plan.num_pixel_frames), path, metadata, sound_path(folder, manifest))
    for section in cut_sections(manifest):
        if section.file:
            own = {"prompt": section.prompt, "seed": str(section.seed)}
            tags = {name: own.get(name, text) for name, text in (metadata or {}).items()}
            _join(folder, manifest, range(section.start, section.stop), inside(folder / section.file), tags)
    unfinished_path(folder, manifest).unlink(missing_ok=True)
    return path


def unfinished_path(folder: Path, manifest: Manifest) -> Path:
    """Path of the video of a stopped run's finished part."""
    path = video_path(folder, manifest)
    return inside(path.with_name(f"{path.stem}.unfinished{path.suffix}"))


def join_finished(folder: Path, manifest: Manifest, metadata: Metadata | None = None) -> Path | None:
    """Join the finished part of a stopped run into a video; return its path, or None if there is nothing to join."""
    done, chunks = chunks_on_disk(folder, manifest), manifest.plan.chunks
    if not done or format_of(manifest.settings).is_sequence:
        return None
    path = unfinished_path(folder, manifest)
    end = first_frame(chunks[done]) if done < len(chunks) else manifest.plan.num_pixel_frames
    _join(folder, manifest, range(end), path, metadata, sound_path(folder, manifest))
    return path


def _join(
    folder: Path,
    manifest: Manifest,
    frames: range,
    path: Path,
    metadata: Metadata | None,
    sound: Path | None = None,
) -> None:
    """Join the segments of the chunks whose first pixel frame is in `frames` into the file `path`."""
    format, segments = format_of(manifest.settings), inside(folder / SEGMENTS)
    parts = [(index, len(part)) for index, part in enumerate(_chunk_frames(manifest.plan)) if part.start in frames]
    names = [segment_name(segments, format, index) for index, _ in parts]
    check_segments(names)
    join(names, path, format, lengths=[length for _, length in parts], metadata=metadata, sound=sound)


def cut_sections(manifest: Manifest) -> list[cutlist.Section]:
    """The sections of the video, each of one prompt and one seed, with the names of their files if they have some."""
    chunks, settings = manifest.plan.chunks, manifest.settings
    cuts = (section for section in manifest.sections if not section.blended)
    starts = {start.first_chunk for start in (*cuts, *manifest.seeds) if start.first_chunk < len(chunks)}
    frames = [*(first_frame(chunks[start]) for start in sorted(starts)), manifest.plan.num_pixel_frames]
    sections = [
        cutlist.Section(manifest.section(start).prompt, manifest.seed(start), *between)
        for start, between in zip(sorted(starts), pairwise(frames), strict=True)
    ]
    return _with_files(sections, settings.output) if settings.section_files else sections


def _with_files(sections: Sequence[cutlist.Section], output: str) -> list[cutlist.Section]:
    video = Path(output)
    names = (f"{video.stem}.{number:02d}{video.suffix}" for number in range(1, len(sections) + 1))
    return [replace(section, file=name) for section, name in zip(sections, names, strict=True)]


def write_cuts(folder: Path, manifest: Manifest) -> None:
    """Write the cut list for editors beside the video, as an EDL and as JSON."""
    settings, sections = manifest.settings, cut_sections(manifest)
    for name, make in zip(CUTS, (cutlist.edl, cutlist.cut_list), strict=True):
        write_whole(inside(folder / name), make(sections, file_name=settings.output, fps=settings.fps).encode())


def drop_segment(folder: Path, manifest: Manifest, index: int) -> None:
    """Delete the segment of a chunk, so that it is written again."""
    format = format_of(manifest.settings)
    if not format.is_sequence:
        path = segment_name(inside(folder / SEGMENTS), format, index)
        path.unlink(missing_ok=True)
        checksum_path(path).unlink(missing_ok=True)


def common_segments(folder: Path, old: Manifest, new: Manifest, num_chunks: int) -> list[Path]:
    """Segments in `folder`, of the first `num_chunks` chunks, that the `new` run would write identically.

    Empty for pictures, because their names and tags are those of the new run.
    """
    format, segments = format_of(old.settings), inside(folder / SEGMENTS)
    if format.is_sequence or _encoding(old) != _encoding(new):
        return []
    pairs = zip(old.plan.chunks[: min(num_chunks, chunks_on_disk(folder, old))], new.plan.chunks, strict=False)
    return [
        segment_name(segments, format, chunk.index)
        for chunk, other in pairs
        if kept_frames(old.plan, chunk) == kept_frames(new.plan, other)
    ]


def _encoding(manifest: Manifest) -> tuple:
    """Everything that decides the bytes of a segment, besides the latents."""
    settings = manifest.settings
    vae = {name: value for name, value in manifest.fingerprint.items() if name.startswith("vae")}
    return vae, settings.preset, settings.size, settings.fps, format_of(settings)


def picture_files(folder: Path, manifest: Manifest) -> list[Path]:
    """Paths of all pictures of a sequence."""
    name, suffix = manifest.settings.output, format_of(manifest.settings).suffix
    pattern = re.compile(rf"{re.escape(name)}\.[0-9]{{5,}}(\.partial)?{re.escape(suffix)}")
    return sorted(path for path in video_path(folder, manifest).glob("*") if pattern.fullmatch(path.name))


def _picture(manifest: Manifest, format: Format, index: int) -> str:
    return f"{manifest.settings.output}.{index:05d}{format.suffix}"
