"""The video of a run, in pieces that survive a kill: a closed segment for every chunk, or single pictures.

Whole pieces are never made again. Segments are joined without encoding when the last one is finished, and stay, so that
a run can be made longer. For editors each section, a stretch of one prompt and one seed, can be a file too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from ...files.disk import nearest_existing, partial_name, write_whole
from ...files.reading import MEGABYTE, parse_json, read_bytes
from ...files.values import digest
from ...plan.chunks import Plan
from ...plan.schedule import Scale
from ...video.container import join
from ...video.edit import cut_lists as cutlist
from ...video.formats import Format, find_format
from ...video.pixels import Metadata
from ...video.space import check_space
from ...video.writers import frame_rate, segment_name
from .folder import SEGMENTS, DamagedRunError, check_folder_of_run, inside
from .journal import Journal, sound_path
from .manifest import Manifest, Settings, kept_frames
from .segments import (
    KeptPictures,
    KeptSegments,
    check_pictures,
    check_segments,
    checksum_path,
    checksums_of,
    is_file,
    pictures_made_by,
    segment_files,
    segment_made_by,
)

CUTS = ("cuts.edl", "cuts.json")
"""The cut lists, in the order in which they are written."""

MAX_CUTS = 64 * MEGABYTE

LATENT_CHANNELS, FLOAT_BYTES = 16, 4

LATENT_COPIES = 2
"""Latents are stored as one file per chunk, and all in one file for the host's nodes."""

SOUND_COPIES = 2
"""The sound is stored in the run's folder and in the video."""


def format_of(settings: Settings) -> Format:
    return find_format(settings.format, settings.depth)


def video_path(folder: Path, manifest: Manifest) -> Path:
    """Path of the finished video, or of the folder of pictures."""
    return inside(folder / manifest.settings.output)


def section_paths(folder: Path, manifest: Manifest) -> list[Path]:
    """Paths of the files of sections, beside the video: video.01.mov, video.02.mov, ...; empty if not requested."""
    return [inside(folder / section.file) for section in cut_sections(manifest) if section.file]


def run_bytes(
    plan: Plan, settings: Settings, first: int = 0, *, sound: bytes | None = None, low: bool
) -> dict[str, int]:
    """Estimated bytes that a run writes from chunk `first` on, for its latents, segments, video and sound.

    `low`: the LOW estimates of its chunks are among the latents.
    The video is counted whole, because it is joined from all segments.
    """
    format = format_of(settings)
    left = plan.num_pixel_frames - (
        plan.chunks[first].first_pixel_frame if first < len(plan.chunks) else plan.num_pixel_frames
    )
    height, width = plan.grids[Scale.HIGH]
    done = plan.chunks[first].frames.start if first < len(plan.chunks) else plan.generated_frames
    cells = LATENT_COPIES * height * width * (1 + plan.keeps_steps) + low * math.prod(plan.grids.get(Scale.LOW, (0,)))
    latents = (plan.generated_frames - done) * LATENT_CHANNELS * FLOAT_BYTES * cells
    found = {"latents": latents, "sound": SOUND_COPIES * len(sound or b"")}
    if format.is_sequence:
        return found | {"segments": 0, "video": format.num_bytes(settings.size, left)}
    copies = 1 + settings.section_files
    video = format.num_bytes(settings.size, plan.num_pixel_frames) * copies
    return found | {"segments": format.num_bytes(settings.size, left), "video": video}


def check_targets(folder: Path, manifest: Manifest) -> None:
    """Raise DamagedRunError for a folder in the place of a file that the run will write, or the other way round."""
    video = video_path(folder, manifest)
    files = [unfinished_path(folder, manifest), *section_paths(folder, manifest), *(folder / name for name in CUTS)]
    if format_of(manifest.settings).is_sequence:
        check_folder_of_run(video)
    else:
        files.append(video)
    for path in (name for file in files for name in (file, partial_name(file))):
        if path.is_dir() and not path.is_symlink():
            raise DamagedRunError(f"{path} is a folder, and the run writes a file there: move it away")


def check_room(
    folder: Path, plan: Plan, settings: Settings, first: int = 0, *, sound: bytes | None = None, low: bool
) -> None:
    """Raise ValueError or OSError if latents and video from chunk `first` on cannot be written.

    `folder` need not exist yet. `sound` is the sound to store, if it is not in the folder yet. `low`: see `run_bytes`.
    """
    format = format_of(settings)
    format.check_size(settings.size)
    frame_rate(settings.fps, format)
    needed = sum(run_bytes(plan, settings, first, sound=sound, low=low).values())
    place = nearest_existing(folder)
    check_space(place, format, settings.size, plan.num_pixel_frames, copies=0, other_bytes=needed)


def _frames_of(plan: Plan, index: int) -> range:
    """The range of pixel frames of a chunk in the video."""
    chunks = plan.chunks
    return range(
        chunks[index].first_pixel_frame,
        chunks[index + 1].first_pixel_frame if index + 1 < len(chunks) else plan.num_pixel_frames,
    )


def binding(journal: Journal, index: int) -> str:
    """A hash of all that decides the frames of a chunk in files: its latent, how it is decoded and how encoded."""
    manifest = journal.manifest
    settings, kept = manifest.settings, kept_frames(manifest.plan, manifest.plan.chunks[index])
    vae = {name: value for name, value in manifest.fingerprint.items() if name.startswith("vae")}
    how = [settings.preset, settings.size, float(settings.fps), settings.format, format_of(settings).depth]
    return digest([journal.recipe(index), kept, vae, how])


def chunks_on_disk(journal: Journal) -> int:
    """Number of chunks, from the first on, whose frames are all in whole files of this run.

    Files that another run made do not count, nor do those that have no checksums behind others that have some.
    """
    any_checked = False
    for index in range(journal.manifest.num_chunks):
        files = _files_of(journal, index)
        if not all(map(is_file, files)):
            return index
        if format_of(journal.manifest.settings).is_sequence:
            made_by = pictures_made_by(inside(journal.folder / SEGMENTS), index, files)
        else:
            made_by = segment_made_by(files[0])
            if made_by is None and any_checked and checksums_of(files):
                continue  # an older version went on with the run
        if made_by is None and not any_checked:
            continue
        if made_by != binding(journal, index):
            return index
        any_checked = True
    return journal.manifest.num_chunks


def _files_of(journal: Journal, index: int) -> list[Path]:
    """The files of a chunk's frames."""
    folder, manifest = journal.folder, journal.manifest
    format = format_of(manifest.settings)
    if not format.is_sequence:
        return [segment_name(inside(folder / SEGMENTS), format, index)]
    place = video_path(folder, manifest)
    return [place / _picture(manifest, format, frame) for frame in _frames_of(manifest.plan, index)]


def lacks_checksums(folder: Path, manifest: Manifest) -> bool:
    """Whether files of a run's video have no checksums that bind them to it, as an older version left them."""
    files = {path.name for path in segment_files(folder) if ".partial" not in path.name}
    if format_of(manifest.settings).is_sequence:
        return not any(name.startswith("pic-") for name in files) and bool(picture_files(folder, manifest))
    suffix = format_of(manifest.settings).suffix
    segments = (inside(folder / SEGMENTS) / name for name in files if name.endswith(suffix))
    return any(segment_made_by(segment) is None for segment in segments)


def open_video_writer(journal: Journal, first: int, metadata: Metadata | None = None) -> KeptSegments | KeptPictures:
    """A writer that continues with chunk `first`; each of its `write` calls must be one chunk."""
    folder, manifest = journal.folder, journal.manifest
    settings, format = manifest.settings, format_of(manifest.settings)
    segments, bind = inside(folder / SEGMENTS), partial(binding, journal)
    if not format.is_sequence:
        return KeptSegments(segments, format, size=settings.size, fps=settings.fps, first=first, bind=bind)
    return KeptPictures(
        video_path(folder, manifest),
        format,
        size=settings.size,
        fps=settings.fps,
        metadata=metadata,
        first_frame=manifest.plan.chunks[first].first_pixel_frame,
        segments=segments,
        next_chunk=first,
        bind=bind,
    )


def join_video(journal: Journal, metadata: Metadata | None = None) -> Path:
    """Join all segments into the video and the files of its sections; return the path of the video.

    The run's sound goes into the video, up to the last picture; the files of sections have no sound. If `metadata` has
    the tags "prompt" and "seed", those of a section's file are the section's. Raises ValueError for a segment that
    does not fit, and for a picture that was changed.
    """
    folder, manifest = journal.folder, journal.manifest
    path = video_path(folder, manifest)
    if format_of(manifest.settings).is_sequence:
        for index in range(manifest.num_chunks):
            check_pictures(inside(folder / SEGMENTS), index, path)
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


def join_finished(journal: Journal, metadata: Metadata | None = None) -> Path | None:
    """Join the finished part of a stopped run into a video; return its path, or None if there is nothing to join."""
    folder, manifest = journal.folder, journal.manifest
    done = chunks_on_disk(journal)
    if not done or format_of(manifest.settings).is_sequence:
        return None
    path = unfinished_path(folder, manifest)
    end = _frames_of(manifest.plan, done - 1).stop
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
    ranges = enumerate(_frames_of(manifest.plan, index) for index in range(manifest.num_chunks))
    parts = [(index, len(part)) for index, part in ranges if part.start in frames]
    names = [segment_name(segments, format, index) for index, _ in parts]
    check_segments(names)
    join(names, path, format, lengths=[length for _, length in parts], metadata=metadata, sound=sound)


def cut_sections(manifest: Manifest) -> list[cutlist.Section]:
    """The sections of the video, each of one prompt and one seed, with the names of their files if they have some."""
    chunks, settings = manifest.plan.chunks, manifest.settings
    cuts = (section for section in manifest.sections if not section.blended)
    starts = {start.first_chunk for start in (*cuts, *manifest.seeds) if start.first_chunk < len(chunks)}
    frames = [*(chunks[start].first_pixel_frame for start in sorted(starts)), manifest.plan.num_pixel_frames]
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


def listed_frames(folder: Path) -> int | None:
    """The number of frames in the cut list, which a run writes last; None if there is none."""
    try:
        data = parse_json(read_bytes(inside(folder / CUTS[-1]), MAX_CUTS))
    except (OSError, ValueError):
        return None
    return data.get("num_frames") if isinstance(data, dict) else None


def is_written(folder: Path, manifest: Manifest) -> bool:
    """Whether the video is there with all its frames: a folder of pictures is there from the first one on."""
    return video_path(folder, manifest).exists() and listed_frames(folder) == manifest.plan.num_pixel_frames


def drop_segment(folder: Path, manifest: Manifest, index: int) -> None:
    """Delete the segment of a chunk, so that it is written again."""
    format = format_of(manifest.settings)
    if not format.is_sequence:
        path = segment_name(inside(folder / SEGMENTS), format, index)
        path.unlink(missing_ok=True)
        checksum_path(path).unlink(missing_ok=True)


def common_segments(old: Journal, new: Manifest, num_chunks: int) -> list[Path]:
    """Segments of a run, of its first `num_chunks` chunks, that the `new` run would write identically.

    Empty for pictures, because their names and tags are those of the new run.
    """
    format, segments = format_of(old.manifest.settings), inside(old.folder / SEGMENTS)
    if format.is_sequence or _encoding(old.manifest) != _encoding(new):
        return []
    plan = old.manifest.plan
    pairs = zip(plan.chunks[: min(num_chunks, chunks_on_disk(old))], new.plan.chunks, strict=False)
    return [
        segment_name(segments, format, chunk.index)
        for chunk, other in pairs
        if len(_frames_of(plan, chunk.index)) == len(_frames_of(new.plan, other.index))
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
