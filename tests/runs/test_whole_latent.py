"""A run's latents as one tensor on the disk."""

import errno
import os

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import begin, manifest, plan

from histream_core.files import disk
from histream_core.runs import create_branch, resume
from histream_core.runs.store.whole_latent import NAME, map_latent, write_latent


@pytest.fixture
def journal(tmp_path):
    """A finished run of 5 chunks, the last one cropped."""
    with resume(begin(tmp_path / "run", 5)) as journal:
        yield journal


def test_it_holds_every_frame_of_the_video_and_no_more(journal):
    """Seen to fail with frames of a channel written behind each other without room for later chunks."""
    got = map_latent(write_latent(journal, lambda x: 2 * x + 1))
    assert torch.equal(got, 2 * journal.frames(range(14)) + 1)
    assert got.shape[2] == 14


def test_it_is_a_file_that_other_programs_read(journal):
    stored = load_file(write_latent(journal, lambda x: x))
    assert torch.equal(stored["latent_tensor"], journal.frames(range(14)))
    assert stored["latent_format_version_0"].numel() == 0


def test_writing_into_the_tensor_leaves_the_file_alone(journal):
    path = write_latent(journal, lambda x: x)
    map_latent(path).zero_()
    assert torch.equal(map_latent(path), journal.frames(range(14)))


def test_what_is_there_is_not_written_again_but_another_run_is(journal, tmp_path):
    path = write_latent(journal, lambda x: x)
    before = path.stat().st_mtime_ns
    assert write_latent(journal, lambda x: x) == path
    assert path.stat().st_mtime_ns == before
    journal.close()
    other = begin(tmp_path / "other", 5, manifest(plan(14), seeds=((0, 2),)))
    (other / NAME).write_bytes(path.read_bytes())
    with resume(other) as journal:
        assert torch.equal(map_latent(write_latent(journal, lambda x: x)), journal.frames(range(14)))


def test_a_full_disk_leaves_nothing_and_says_so(journal, monkeypatch):
    room = [3000]
    put = disk.File.write

    def write(self, data):
        room[0] -= len(data)
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return put(self, data)

    monkeypatch.setattr(disk.File, "write", write)
    with pytest.raises(OSError, match=r"video\.latent: No space left"):
        write_latent(journal, lambda x: x)
    assert not list(journal.folder.glob("video*"))


def test_a_branch_shares_no_such_file(journal, tmp_path):
    write_latent(journal, lambda x: x)
    journal.close()
    with create_branch(journal.folder, tmp_path / "new", 2) as new:
        assert not (new.folder / NAME).exists()
