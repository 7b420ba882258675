"""The video of a run in the files that editors want: what is in each, and what the cut list says about it.

Seen to fail: a section that begins a chunk late, sections that share a chunk, a section with the tags of the whole
video, a cut list without the files, room for two copies where three are written, section files that `clean` forgets.
"""

import json
import os
from collections import namedtuple

import pytest
import tiny_runs
from clips import shapes
from tiny_runs import manifest, plan

from histream_core import session
from histream_core.formats import FORMATS
from histream_core.session import clean, start
from histream_core.session.video import check_room, first_frame, join_video, open_video, section_paths, write_cuts

FILES = [known for known in FORMATS if not known.is_sequence]

LENGTHS = [21, 12, 20]
"""Frames of the sections: chunks 0 and 1, chunk 2 with another prompt, chunks 3 and 4 with another seed, cropped."""


def sectioned(known, **settings):
    size = tuple(max(64, least) for least in known.smallest)
    return manifest(
        seeds=((0, 1), (3, 7)),
        sections=[tiny_runs.section(), tiny_runs.section("a dog", 2)],
        **{"size": size, "format": known.name, "depth": known.depth, "output": f"clip{known.suffix}"} | settings,
    )


def make_video(folder, run):
    """All segments of a run, and what is made of them."""
    width, height = run.settings.size
    frames = shapes(run.plan.pixel_frames, height, width)
    starts = [first_frame(chunk) for chunk in run.plan.chunks]
    with open_video(folder, run, 0) as writer:
        for begin, end in zip(starts, [*starts[1:], len(frames)], strict=True):
            writer.write(frames[begin:end])
    path = join_video(folder, run, {"prompt": "all", "seed": "all", "software": "HiStream"})
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


@pytest.mark.parametrize("known", FILES, ids=lambda known: f"{known.name}-{known.depth}")
def test_the_files_of_the_sections_are_the_video_cut_in_pieces(tmp_path, known):
    """Each frame once, and each as it is in the whole video, byte for byte."""
    run = sectioned(known, section_files=True)
    whole = make_video(tmp_path, run)
    files = section_paths(tmp_path, run)
    assert [path.name for path in files] == [f"clip.0{number}{known.suffix}" for number in (1, 2, 3)]
    assert sorted(path.name for path in tmp_path.glob("clip*")) == sorted([whole.name, *(p.name for p in files)])
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
    names = ["clip.01.mp4", "clip.02.mp4", "clip.03.mp4"] if section_files else [None] * 3
    rows = json.loads((tmp_path / "cuts.json").read_text())["sections"]
    assert [row.get("file") for row in rows] == names
    assert [row["stop"] - row["start"] for row in rows] == LENGTHS
    lines = (tmp_path / "cuts.edl").read_text().splitlines()
    assert [line for line in lines if "COMMENT: FILE" in line] == [f"* COMMENT: FILE {name}" for name in names if name]
    assert lines.count("* FROM CLIP NAME: clip.mp4") == 3
    assert [(tmp_path / name).is_file() for name in names if name] == [True] * (3 * section_files)


def test_a_folder_of_pictures_has_no_section_files():
    with pytest.raises(ValueError, match=r"png16 is a folder of pictures, .*: leave section files out"):
        manifest(format="png16", output="shot", section_files=True)


@pytest.mark.parametrize(("copies", "section_files"), [(2, False), (3, True)])
def test_room_is_asked_for_every_copy(tmp_path, monkeypatch, copies, section_files):
    known = next(known for known in FILES if known.name == "prores-422hq")
    run = sectioned(known, size=(1920, 1080), section_files=section_files)
    needed = int(known.num_bytes((1920, 1080), 53) * copies * 1.1)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage(needed + 10))
    check_room(tmp_path, run.plan, run.settings)
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage(needed - 10))
    with pytest.raises(OSError, match="free space, choose another folder or a smaller format"):
        check_room(tmp_path, run.plan, run.settings)


def test_cleaning_takes_the_files_of_the_sections_with_the_video_and_nothing_else(tmp_path):
    folder, run = tmp_path / "run", sectioned(FILES[0], section_files=True)
    start(folder, run).close()
    make_video(folder, run)
    for name in ("clip.04.mp4", "clip.01.mov", "clip.02.partial.mp4"):  # two are the user's, a kill left the third
        (folder / name).write_bytes(b"1")
    session.clean(folder)
    kept = {"clip.mp4", "clip.01.mp4", "clip.02.mp4", "clip.03.mp4", "cuts.edl", "cuts.json"}
    assert set(os.listdir(folder)) == {*kept, "clip.04.mp4", "clip.01.mov"}
    start(folder, run).close()
    clean(folder, video=True)
    assert sorted(os.listdir(folder)) == ["clip.01.mov", "clip.04.mp4"]


def test_a_section_is_not_written_through_a_link(tmp_path):
    folder, run = tmp_path / "run", sectioned(FILES[0], section_files=True)
    folder.mkdir()
    (tmp_path / "mine.mp4").write_bytes(b"mine")
    (folder / "clip.02.mp4").symlink_to(tmp_path / "mine.mp4")
    with pytest.raises(session.DamagedRunError, match=r"clip.02.mp4 is a link to another place"):
        make_video(folder, run)
    assert (tmp_path / "mine.mp4").read_bytes() == b"mine"


def test_a_plan_of_many_sections_numbers_them_in_order(tmp_path):
    starts = range(102)
    run = manifest(plan(306), seeds=[(chunk, chunk) for chunk in starts], section_files=True)
    names = [path.name for path in section_paths(tmp_path, run)]
    assert (names[0], names[98:100], names[-1]) == ("video.01.mp4", ["video.99.mp4", "video.100.mp4"], "video.102.mp4")
