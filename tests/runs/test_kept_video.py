"""The video of a run: the files that editors want, what the cut list says, and what a branch need not write again.

Seen to fail: a section that begins a chunk late, sections that share a chunk, a section with the tags of the whole
video, a cut list without the files, room for two copies where three are written, section files that `clean` forgets.
"""

import errno
import json
import math
import os
import shutil
from collections import Counter, namedtuple
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny_runs
from clips import shapes
from slow import crossed, few, slow
from tiny_runs import SMALL, complete, files_in, manifest, plan, retry

from histream_core import runs as session
from histream_core.plan.schedule import Scale
from histream_core.runs import branched, clean, create_branch, create_run
from histream_core.runs.store.journal import read_manifest
from histream_core.runs.store.video import (
    check_room,
    join_video,
    open_video_writer,
    section_paths,
    write_cuts,
)
from histream_core.vae.decode import StreamingDecoder
from histream_core.video.formats import FORMATS

FILES = [known for known in FORMATS if not known.is_sequence]

LENGTHS = [21, 12, 20]
"""Frames of the sections: chunks 0 and 1, chunk 2 with another prompt, chunks 3 and 4 with another seed, cropped."""


def sectioned(known, **settings):
    size = tuple(max(64, least) for least in known.smallest)
    return manifest(
        seeds=((0, 1), (3, 7)),
        sections=[tiny_runs.section(), tiny_runs.section("a dog", 2)],
        **{"size": size, "format": known.name, "depth": known.depth, "output": f"video{known.suffix}"} | settings,
    )


def make_video(folder, run):
    """All segments of a run, and what is made of them."""
    width, height = run.settings.size
    frames = shapes(run.plan.num_pixel_frames, height, width)
    starts = [chunk.first_pixel_frame for chunk in run.plan.chunks]
    journal = SimpleNamespace(folder=folder, manifest=run, recipe=str)
    with open_video_writer(journal, 0) as writer:
        for begin, end in zip(starts, [*starts[1:], len(frames)], strict=True):
            writer.write(frames[begin:end])
    path = join_video(journal, {"prompt": "all", "seed": "all", "software": "HiStream"})
    write_cuts(folder, run)
    return path


def packets(path):
    """The number and the bytes of each picture in a file, and the file's tags."""
    import av

    with av.open(str(path)) as container:
        tags = {name.lower(): text for name, text in container.metadata.items()}
        found = [packet for packet in container.demux(video=0) if packet.size]
        numbers = [round(packet.pts * packet.time_base * 16) for packet in found]
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == len(found)
    return numbers, [bytes(packet) for packet in found], tags


@pytest.mark.parametrize("known", few(FILES, 4), ids=lambda known: f"{known.name}-{known.depth}")
def test_the_files_of_the_sections_are_the_video_cut_in_pieces(tmp_path, known):
    """Each frame once, and each as it is in the whole video, byte for byte."""
    run = sectioned(known, section_files=True)
    whole = make_video(tmp_path, run)
    files = section_paths(tmp_path, run)
    assert [path.name for path in files] == [f"video.0{number}{known.suffix}" for number in (1, 2, 3)]
    assert sorted(path.name for path in tmp_path.glob("video*")) == sorted([whole.name, *(p.name for p in files)])
    found = [packets(path) for path in files]
    assert [numbers for numbers, _, _ in found] == [list(range(length)) for length in LENGTHS]
    assert [picture for _, data, _ in found for picture in data] == packets(whole)[1]
    assert len(packets(whole)[1]) == 53


def test_a_section_says_its_own_prompt_and_seed(tmp_path):
    run = sectioned(FILES[0], section_files=True)
    whole = make_video(tmp_path, run)
    tags = [packets(path)[2] for path in (whole, *section_paths(tmp_path, run))]
    assert [(tag["prompt"], tag["seed"], tag["software"]) for tag in tags] == [
        (prompt, seed, "HiStream") for prompt, seed in (("all", "all"), ("a cat", "1"), ("a dog", "1"), ("a dog", "7"))
    ]


@pytest.mark.parametrize("section_files", [True, False])
def test_the_cut_list_names_the_files_that_are_there(tmp_path, section_files):
    run = sectioned(FILES[0], section_files=section_files)
    make_video(tmp_path, run)
    names = ["video.01.mp4", "video.02.mp4", "video.03.mp4"] if section_files else [None] * 3
    rows = json.loads((tmp_path / "cuts.json").read_text())["sections"]
    assert [row.get("file") for row in rows] == names
    assert [row["stop"] - row["start"] for row in rows] == LENGTHS
    lines = (tmp_path / "cuts.edl").read_text().splitlines()
    assert [line for line in lines if "COMMENT: FILE" in line] == [f"* COMMENT: FILE {name}" for name in names if name]
    assert lines.count("* FROM CLIP NAME: video.mp4") == 3
    assert [(tmp_path / name).is_file() for name in names if name] == [True] * (3 * section_files)


def test_a_folder_of_pictures_has_no_section_files():
    with pytest.raises(ValueError, match=r"png16 is a folder of pictures, .*: leave section files out"):
        manifest(format="png16", output="shot", section_files=True)


@pytest.mark.parametrize(("copies", "section_files"), [(2, False), (3, True)])
def test_room_is_asked_for_every_copy_and_for_the_latents(tmp_path, monkeypatch, copies, section_files):
    known = next(known for known in FILES if known.name == "prores-422hq")
    run = sectioned(known, size=(1920, 1080), section_files=section_files)
    latents = 2 * 16 * run.plan.generated_frames * 4 * math.prod(run.plan.grids[Scale.HIGH])
    needed = int((known.num_bytes((1920, 1080), 53) * copies + latents) * 1.1)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage(needed + 10))
    check_room(tmp_path, run.plan, run.settings, low=False)
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage(needed - 10))
    with pytest.raises(OSError, match="free space, choose another folder or a smaller format"):
        check_room(tmp_path, run.plan, run.settings, low=False)


def test_a_run_that_is_nearly_through_needs_room_for_the_whole_video(tmp_path, monkeypatch):
    """All segments are joined again. Seen to fail when only what is missing is counted."""
    known = next(known for known in FILES if known.name == "prores-422hq")
    run = sectioned(known, size=(1920, 1080))
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage(known.num_bytes((1920, 1080), 53)))
    with pytest.raises(OSError, match="53 frames of 1920x1080 as prores-422hq, and their run, need about"):
        check_room(tmp_path, run.plan, run.settings, run.num_chunks - 1, low=False)


def test_cleaning_takes_the_files_of_the_sections_with_the_video_and_nothing_else(tmp_path):
    folder, run = tmp_path / "run", sectioned(FILES[0], section_files=True)
    create_run(folder, run).close()
    make_video(folder, run)
    for name in ("video.04.mp4", "video.01.mov", "video.02.partial.mp4"):  # two are the user's, a kill left the third
        (folder / name).write_bytes(b"1")
    whole = shutil.copytree(folder, tmp_path / "whole")
    session.clean(folder)
    kept = {"video.mp4", "video.01.mp4", "video.02.mp4", "video.03.mp4", "cuts.edl", "cuts.json"}
    assert set(os.listdir(folder)) == {*kept, "video.04.mp4", "video.01.mov"}
    clean(whole, video=True)
    assert sorted(os.listdir(whole)) == ["video.01.mov", "video.04.mp4"]


def test_a_section_is_not_written_through_a_link(tmp_path):
    folder, run = tmp_path / "run", sectioned(FILES[0], section_files=True)
    folder.mkdir()
    (tmp_path / "mine.mp4").write_bytes(b"mine")
    (folder / "video.02.mp4").symlink_to(tmp_path / "mine.mp4")
    with pytest.raises(session.DamagedRunError, match=r"video.02.mp4 is a link to another place"):
        make_video(folder, run)
    assert (tmp_path / "mine.mp4").read_bytes() == b"mine"


def test_a_plan_of_many_sections_numbers_them_in_order(tmp_path):
    starts = range(102)
    run = manifest(plan(306), seeds=[(chunk, chunk) for chunk in starts], section_files=True)
    names = [path.name for path in section_paths(tmp_path, run)]
    assert (names[0], names[98:100], names[-1]) == ("video.01.mp4", ["video.99.mp4", "video.100.mp4"], "video.102.mp4")


def shared(folder, other):
    """The segments that two runs have in common, by number; each with its checksum."""
    one, two = (
        {path.stat().st_ino: (path.suffix == ".sha256", int(path.stem[4:])) for path in place.glob("segments/seg-*")}
        for place in (folder, other)
    )
    both = sorted(name for inode, name in one.items() if two.get(inode) == name)
    segments, checksums = ([number for kind, number in both if kind is wanted] for wanted in (False, True))
    assert segments == checksums
    return segments


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of 5 chunks, the last one cropped to 2 of 3 latent frames, in each of three formats."""
    place = tmp_path_factory.mktemp("runs")
    names = {"h264-mp4": "video.mp4", "prores-422hq": "video.mov", "png8": "video"}
    runs = {name: manifest(format=name, output=output, **SMALL) for name, output in names.items()}
    return {name: complete(create_run(place / name, run)) for name, run in runs.items()}


@pytest.fixture
def decoded(monkeypatch):
    """Latent frames that went through the VAE: "shown" for pictures, "warm" to remember them."""
    counts, purpose = Counter(), ["shown"]
    decode, warm_up = StreamingDecoder.decode, StreamingDecoder.warm_up

    def counting(self, latents):
        counts[purpose[-1]] += latents.shape[2]
        return decode(self, latents)

    def warming(self, latents, *, start):
        purpose.append("warm")
        warm_up(self, latents, start=start)
        purpose.pop()

    monkeypatch.setattr(StreamingDecoder, "decode", counting)
    monkeypatch.setattr(StreamingDecoder, "warm_up", warming)
    return counts


def longer(old, num_frames):
    return replace(old, plan=plan(num_frames))


BRANCHES = {
    "another seed": (3, lambda run: branched(run, 3, seed=7), [0, 1, 2], 5),
    "another prompt": (2, lambda run: branched(run, 2, sections=[tiny_runs.section("a dog", recache=True)]), [0, 1], 8),
    "the same again": (5, lambda run: run, [0, 1, 2, 3, 4], 0),
    "from the start": (0, lambda run: run, [], 14),
    "section files": (
        5,
        lambda run: replace(run, settings=replace(run.settings, section_files=True)),
        [0, 1, 2, 3, 4],
        0,
    ),
    "longer": (5, lambda run: longer(run, 21), [0, 1, 2, 3], 9),
    "longer by less than a chunk": (5, lambda run: longer(run, 15), [0, 1, 2, 3], 3),
    "longer, from before the end": (3, lambda run: longer(run, 21), [0, 1, 2], 12),
    "shorter": (5, lambda run: longer(run, 13), [0, 1, 2, 3], 1),
}
"""Chunks to share, the new run, the segments it has then, and the latent frames it has to decode."""


@pytest.mark.parametrize(("case", "format"), crossed(BRANCHES, ["h264-mp4", "prores-422hq"]))
def test_a_branch_writes_what_it_would_write_without_sharing_and_decodes_nothing_that_it_shares(
    finished, tmp_path, decoded, case, format
):
    """Seen to fail where the last segment is shared with its crop, and where a segment too few is shared."""
    chunk, change, segments, frames = BRANCHES[case]
    source = finished[format]
    run = change(read_manifest(source))
    new = complete(create_branch(source, tmp_path / "new", chunk, run))
    assert shared(new, source) == segments
    assert decoded["shown"] == frames
    assert decoded["warm"] == (3 * len(segments) if frames else 0)  # the tiny VAE remembers more than there are
    journal = create_branch(source, tmp_path / "alone", chunk, run)
    shutil.rmtree(tmp_path / "alone" / "segments", ignore_errors=True)
    alone = complete(journal)
    assert decoded["shown"] == frames + run.plan.num_latent_frames
    assert files_in(new) == files_in(alone)


@pytest.mark.parametrize(("num_frames", "section"), [slow(15, None), slow(21, None), (24, "a dog")])
def test_a_run_that_is_made_longer_by_a_branch_is_the_run_that_was_long_from_the_start(
    finished, tmp_path, num_frames, section
):
    """Latents, segments, video and cut list. Seen to fail where a branch ends where the old run ended."""
    sections = [tiny_runs.section(section, recache=True)] if section else []
    run = branched(longer(manifest(**SMALL), num_frames), 5, sections=sections)
    new = complete(create_branch(finished["h264-mp4"], tmp_path / "new", 5, run))
    long = complete(create_run(tmp_path / "long", run))
    assert len(files_in(new)) == 3 * len(run.plan.chunks) + 3
    assert files_in(new) == files_in(long)


def test_what_is_shared_is_nobody_elses_after_that(finished, tmp_path, monkeypatch):
    """A run and its branch are extended and cleaned on their own; where no links are, files are copied."""
    source = shutil.copytree(finished["h264-mp4"], tmp_path / "source")
    wanted = files_in(source)
    linked = retry(source, tmp_path / "linked", 4, 7)
    with linked:
        session.lengthen_run(linked, plan(21))
    with session.resume(source) as journal:
        session.lengthen_run(journal, plan(15))
    complete(session.resume(source))

    def refuse(source, target):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    copied = retry(source, tmp_path / "copied", 4, 7)
    assert shared(copied.folder, source) == []
    copied.close()
    clean(source, video=True)
    for folder in (tmp_path / "linked", tmp_path / "copied"):
        found = files_in(folder)
        assert sorted(name for name in found if name.startswith("segments")) == [
            f"segments/seg-0000{index}.{kind}" for index in range(4) for kind in ("mp4", "sha256")
        ]
        assert found.items() <= wanted.items()


OTHERWISE = {
    "rate": lambda run: {"settings": replace(run.settings, fps=24.0)},
    "format": lambda run: {"settings": replace(run.settings, format="ffv1", output="video.mkv")},
    "depth": lambda run: {"settings": replace(run.settings, depth=10)},
    "size": lambda run: {"settings": replace(run.settings, size=(16, 18))},
    "preset": lambda run: {"settings": replace(run.settings, preset="wan")},
    "VAE": lambda run: {"fingerprint": dict(run.fingerprint) | {"vae": "0"}},
    "way to decode": lambda run: {"fingerprint": dict(run.fingerprint) | {"vae.dtype": "float16"}},
}


@pytest.mark.parametrize("case", OTHERWISE)
def test_a_branch_that_would_be_written_otherwise_shares_no_segment(finished, tmp_path, case):
    run = manifest(**SMALL)
    source = finished["h264-mp4"]
    with create_branch(source, tmp_path / "new", 4, replace(run, **OTHERWISE[case](run))) as journal:
        assert (journal.finished, (tmp_path / "new" / "segments").exists()) == (4, False)
    usual = replace(run, settings=replace(run.settings, depth=8), fingerprint=dict(run.fingerprint) | {"lora": "0"})
    with create_branch(source, tmp_path / "usual", 4, usual):
        assert shared(tmp_path / "usual", source) == [0, 1, 2, 3]


def test_pictures_are_written_anew(finished, tmp_path):
    """Their names and what is written in them belong to the new run."""
    with retry(finished["png8"], tmp_path / "new", 5, 1):
        assert sorted(os.listdir(tmp_path / "new")) == ["chunks", "lock", "manifest.json", "snapshots"]
    new = complete(session.resume(tmp_path / "new"))
    assert len(files_in(new)) == 5 + 53 + 5 + 2  # chunks, pictures, their checksums, cut lists


def test_only_segments_without_a_gap_before_them_are_shared(finished, tmp_path):
    """Segments after a gap are written again in any case."""
    source = shutil.copytree(finished["h264-mp4"], tmp_path / "source")
    (source / "segments" / "seg-00002.mp4").unlink()
    with retry(source, tmp_path / "new", 5, 1):
        assert shared(tmp_path / "new", source) == [0, 1]
    (source / "segments" / "seg-00001.mp4").unlink()
    (source / "segments" / "seg-00001.mp4").symlink_to(finished["h264-mp4"] / "segments" / "seg-00001.mp4")
    with pytest.raises(session.DamagedRunError, match=r"seg-00001.mp4 is a link to another place"):
        retry(source, tmp_path / "other", 5, 1)
    assert sorted(os.listdir(tmp_path)) == ["new", "source"]
