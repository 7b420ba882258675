"""Files that a run takes over from its folder are checked against it: segments, pictures, the latents of the whole."""

import json
import shutil
from dataclasses import replace

import pytest
from tiny_runs import SMALL, complete, files_in, manifest, plan, retry

from histream_core.plan import lengthen
from histream_core.runs import DamagedRunError, clean, create_run, lengthen_run, list_runs, resume
from histream_core.runs.store.video import check_targets, chunks_on_disk, common_segments
from histream_core.runs.verbs import check_whole

FORMATS = {"ffv1": "video.mkv", "png8": "video"}


def run_of(format, seed=1):
    return manifest(plan(8), seeds=((0, seed),), format=format, output=FORMATS[format], **SMALL)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Whole runs of three chunks, two seeds of each format."""
    place = tmp_path_factory.mktemp("runs")
    return {
        (format, seed): complete(create_run(place / f"{format}-{seed}", run_of(format, seed)))
        for format in FORMATS
        for seed in (1, 2)
    }


@pytest.mark.parametrize("format", FORMATS)
def test_files_of_another_run_do_not_count_and_are_made_again(alone, tmp_path, format):
    """A manifest was damaged, the run cleaned, and another one begun there. Seen to fail where names were enough."""
    folder = shutil.copytree(alone[format, 1], tmp_path / "run")
    for name in ("segments", "video"):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
            shutil.copytree(alone[format, 2] / name, folder / name)
    with resume(folder) as journal:
        assert chunks_on_disk(journal) == 0
    complete(resume(folder))
    assert files_in(folder) == files_in(alone[format, 1])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("without", [0, 1, 2])
def test_a_chunk_without_checksums_behind_others_is_made_again(alone, tmp_path, format, without):
    """A kill leaves it so. The first ones of an older version are taken as they are."""
    folder = shutil.copytree(alone[format, 1], tmp_path / "run")
    for path in folder.glob(f"segments/*-0000{without}.sha256"), folder.glob(f"segments/pic-0000{without}.json"):
        for found in path:
            found.unlink()
    with resume(folder) as journal:
        assert chunks_on_disk(journal) == (3 if without == 0 else without)
    complete(resume(folder))
    assert files_in(folder).items() <= files_in(alone[format, 1]).items()


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_of_an_older_version_goes_on_and_says_that_it_has_no_checksums(alone, tmp_path, format):
    folder = shutil.copytree(alone[format, 1], tmp_path / "run")
    assert "without checksums" not in list_runs(folder)[0].line("run")
    for path in folder.glob("segments/*"):
        if path.suffix in (".sha256", ".json"):
            path.unlink()
    assert "without checksums" in list_runs(folder)[0].line("run")
    before = files_in(folder)
    complete(resume(folder))
    assert files_in(folder) == before


def test_a_checksum_of_one_line_is_that_of_an_older_version(alone, tmp_path):
    folder = shutil.copytree(alone["ffv1", 1], tmp_path / "run")
    for path in folder.glob("segments/*.sha256"):
        path.write_text(path.read_text().split()[0])
    before = files_in(folder)
    complete(resume(folder))
    assert files_in(folder) == before


SPOILT = {
    "one bit": lambda path: path.write_bytes(path.read_bytes()[:-20] + b"\1" + path.read_bytes()[-19:]),
    "another's": lambda path: shutil.copy(path.with_name("video.00003.png"), path),
    "nothing": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_picture_that_is_not_as_it_was_written_is_made_again_or_refused(alone, tmp_path, case):
    """Seen to fail without checksums: a picture of another run stayed in silence."""
    folder = shutil.copytree(alone["png8", 1], tmp_path / "run")
    path = folder / "video" / "video.00010.png"
    SPOILT[case](path)
    try:
        complete(resume(folder))
    except DamagedRunError as error:
        assert "video.00010.png was changed after it was written" in str(error)
        path.unlink()
        complete(resume(folder))
    assert files_in(folder) == files_in(alone["png8", 1])


def test_cleaning_takes_the_checksums_of_pictures_too(alone, tmp_path):
    folder = shutil.copytree(alone["png8", 1], tmp_path / "run")
    clean(folder)
    assert {path.name for path in folder.iterdir()} == {"video", "cuts.edl", "cuts.json"}
    clean(shutil.copytree(alone["png8", 1], tmp_path / "all"), video=True)
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize("cut", ["chunk", "segment", "cuts", "length"])
def test_a_run_that_is_not_whole_is_not_made_longer(alone, tmp_path, cut):
    """A killed `extend`, repeated, extended twice. Seen to fail without the check."""
    folder = shutil.copytree(alone["ffv1", 1], tmp_path / "run")
    if cut == "length":  # killed after the manifest was replaced
        with resume(folder) as journal:
            lengthen_run(journal, plan(11))
    else:
        named = {"chunk": "chunks/00002.safetensors", "segment": "segments/seg-00002.mkv", "cuts": "cuts.json"}
        (folder / named[cut]).unlink()
    with resume(folder) as journal, pytest.raises(ValueError, match=r"is not finished: histream resume .* first"):
        check_whole(journal)
    complete(resume(folder))
    with resume(folder) as journal:
        check_whole(journal)


def test_the_cut_list_of_another_length_does_not_make_a_run_whole(alone, tmp_path):
    folder = shutil.copytree(alone["ffv1", 1], tmp_path / "run")
    for text in (json.dumps({"num_frames": 3}), "[]", "{", "[" * 100_000):
        (folder / "cuts.json").write_text(text)
        with resume(folder) as journal, pytest.raises(ValueError, match="is not finished"):
            check_whole(journal)


def test_a_branch_shares_segments_with_what_binds_them(alone, tmp_path):
    with retry(alone["ffv1", 1], tmp_path / "new", 2, 9) as journal:
        assert chunks_on_disk(journal) == 2


def test_a_segment_that_was_cropped_is_not_shared_with_a_longer_run(alone):
    """The last of three chunks has 2 of its 3 latent frames in the video."""
    with resume(alone["ffv1", 1]) as journal:
        longer = replace(journal.manifest, plan=lengthen(journal.manifest.plan, 12))
        names = [path.stem for path in common_segments(journal, longer, 3)]
    assert names == ["seg-00000", "seg-00001"]


def test_a_chunk_of_an_older_version_counts_only_with_all_its_pictures(alone, tmp_path):
    folder = shutil.copytree(alone["png8", 1], tmp_path / "run")
    for path in folder.glob("segments/pic-*.json"):
        path.unlink()
    (folder / "video" / "video.00012.png").unlink()
    with resume(folder) as journal:
        assert chunks_on_disk(journal) == 1


@pytest.mark.parametrize(
    ("format", "name"), [("ffv1", "video.mkv"), ("ffv1", "cuts.partial.edl"), ("ffv1", "cuts.json"), ("png8", "video")]
)
def test_a_folder_where_a_file_is_written_is_named_before_the_run_goes_on(alone, tmp_path, format, name):
    """Seen to fail after all was sampled."""
    folder = shutil.copytree(alone[format, 1], tmp_path / "run")
    path = folder / name
    if path.is_dir():
        shutil.rmtree(path)
        path.write_bytes(b"mine")
    else:
        path.unlink(missing_ok=True)
        path.mkdir()
    with pytest.raises(DamagedRunError, match=r"is a folder, and the run writes a file there|is no folder"):
        check_targets(folder, run_of(format))


def test_a_damaged_chunk_says_what_can_be_done(alone, tmp_path):
    folder = shutil.copytree(alone["ffv1", 1], tmp_path / "run")
    (folder / "chunks" / "00001.safetensors").write_bytes(b"")
    with pytest.raises(DamagedRunError, match=r"put it back from a copy, or histream branch .* NEW --from 1 goes on"):
        resume(folder)
    retry(folder, tmp_path / "new", 1, 9).close()
