"""A run's folder that was cut, edited, mixed up or filled: named, refused, and nothing in it is deleted."""

import errno
import json
import os
import shutil
from dataclasses import replace

import pytest
import safetensors
import safetensors.torch
import tiny
import tiny_runs
import torch
from tiny_runs import begin, finish, manifest, plan, recipes, retry, same, start_and_hang

from histream_core import runs as session
from histream_core.files import disk
from histream_core.files.values import digest, parse, plain
from histream_core.plan.chunks import Plan
from histream_core.runs import DamagedRunError, Journal, RunInUseError, clean, create_run, list_runs, resume
from histream_core.runs.store.journal import read_manifest
from histream_core.runs.store.lock import is_locked
from histream_core.runs.store.manifest import from_json, to_json
from histream_core.runs.store.video import write_cuts


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of which 4 of 5 chunks are finished."""
    return begin(tmp_path_factory.mktemp("run") / "stopped", 4, decoder=False)


@pytest.fixture
def run(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


def chunk(folder, index):
    return folder / "chunks" / f"{index:05d}.safetensors"


def edit_manifest(folder, edit, *, sign=False):
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    edit(data)
    if sign:
        data["sha256"] = digest(data["run"])
    path.write_text(json.dumps(data))


def edit_chunk(folder, index, edit):
    path = chunk(folder, index)
    with safetensors.safe_open(path, "pt") as file:
        tensors, metadata = {"latent": file.get_tensor("latent")}, file.metadata()
    edit(tensors, metadata)
    path.write_bytes(safetensors.torch.save(tensors, metadata))


def cut(folder):
    data = chunk(folder, 2).read_bytes()
    chunk(folder, 2).write_bytes(data[:-9])


def sign(tensors, metadata):
    metadata["sha256"] = session.hash_tensor(tensors["latent"])


def put_nan(tensors, metadata):
    tensors["latent"][0, 0, 0, 0, 0] = float("nan")
    sign(tensors, metadata)


def link(folder, name):
    path, outside = folder / name, folder.parent / "outside"
    path.replace(outside)
    path.symlink_to(outside)


GARBAGE = {
    "a cut latent": (cut, r"00002.safetensors is truncated or damaged"),
    "a latent of nothing": (lambda f: chunk(f, 0).write_bytes(b""), "00000.safetensors is truncated or damaged"),
    "a latent of noise": (lambda f: chunk(f, 0).write_bytes(os.urandom(999)), "00000.safetensors is truncated"),
    "a chunk that is missing": (lambda f: chunk(f, 2).unlink(), "00002.safetensors is missing, but chunk 3 is there"),
    "chunks in the wrong order": (lambda f: chunk(f, 0).replace(chunk(f, 3)), "00000.safetensors is missing"),
    "a chunk in another's place": (lambda f: shutil.copy(chunk(f, 1), chunk(f, 3)), "wrong place: its chunk is 1, 3"),
    "a chunk too many": (
        lambda f: [shutil.copy(chunk(f, 3), chunk(f, i)) for i in (4, 5)],
        "has 6 chunks, but its run has 5",
    ),
    "a changed latent": (
        lambda f: edit_chunk(f, 1, lambda tensors, _: tensors["latent"].mul_(2)),
        "00001.safetensors was changed after it was written",
    ),
    "a latent with NaN": (lambda f: edit_chunk(f, 1, put_nan), "00001.safetensors holds NaN or infinity"),
    "a latent of another size": (
        lambda f: edit_chunk(f, 1, lambda tensors, _: tensors.update(latent=torch.zeros(1, 4, 3, 8, 8))),
        r"00001.safetensors has shape \[1, 4, 3, 8, 8\]",
    ),
    "a latent of half precision": (
        lambda f: edit_chunk(f, 1, lambda tensors, _: tensors.update(latent=tensors["latent"].half())),
        "00001.safetensors holds torch.float16",
    ),
    "two latents": (
        lambda f: edit_chunk(f, 1, lambda tensors, _: tensors.update(more=torch.zeros(1))),
        "00001.safetensors holds latent, more",
    ),
    "a latent of a newer version": (
        lambda f: edit_chunk(f, 1, lambda _, metadata: metadata.update(format="2")),
        "00001.safetensors .* its format is 2, 1 is right",
    ),
    "a latent without its recipe": (
        lambda f: edit_chunk(f, 1, lambda _, metadata: metadata.pop("recipe")),
        "00001.safetensors .* its recipe is missing",
    ),
    "an edited seed": (
        lambda f: edit_manifest(f, lambda data: data["run"]["seeds"][0].update(seed=5)),
        "manifest.json was changed after it was written",
    ),
    "an edited seed with a new checksum": (
        lambda f: edit_manifest(f, lambda data: data["run"]["seeds"][0].update(seed=5), sign=True),
        "00000.safetensors was made by another run",
    ),
    "a manifest of a newer version": (
        lambda f: edit_manifest(f, lambda data: data.update(format=3)),
        "manifest.json has format 3 and this version of HiStream reads 2",
    ),
    "an unknown key": (
        lambda f: edit_manifest(f, lambda data: data["run"].update(shell="rm"), sign=True),
        "manifest.json run has unknown keys shell",
    ),
    "an unknown key beside the run": (lambda f: edit_manifest(f, lambda data: data.update(more=1)), "has the keys"),
    "a key that is missing": (
        lambda f: edit_manifest(f, lambda data: data["run"]["plan"].pop("ntk"), sign=True),
        "manifest.json run.plan has no ntk",
    ),
    "a number that is a word": (
        lambda f: edit_manifest(f, lambda data: data["run"]["settings"].update(fps="16"), sign=True),
        "run.settings.fps is str: it must be float",
    ),
    "a number that is true": (
        lambda f: edit_manifest(f, lambda data: data["run"]["seeds"][0].update(seed=True), sign=True),
        r"run.seeds\[0\].seed is bool: it must be int",
    ),
    "a scale that does not exist": (
        lambda f: edit_manifest(f, lambda data: data["run"]["plan"]["grids"].update(mid=[1, 1]), sign=True),
        "run.plan.grids key is 'mid': it must be one of low, high",
    ),
    "a temporal policy that does not exist": (
        lambda f: edit_manifest(f, lambda data: data["run"]["plan"]["temporal"].update(kind="x"), sign=True),
        'manifest.json temporal policy "x" does not exist',
    ),
    "a video outside the folder": (
        lambda f: edit_manifest(f, lambda data: data["run"]["settings"].update(output="../../x.mp4"), sign=True),
        "'../../x.mp4' cannot be the name of a video",
    ),
    "another file of the folder": (
        lambda f: edit_manifest(f, lambda data: data["run"]["settings"].update(output="thesis.mp4"), sign=True),
        "manifest.json names 'thesis.mp4' as its video, and that of a run is called video.mp4",
    ),
    "a manifest that is no JSON": (lambda f: (f / "manifest.json").write_text("{" * 9), "manifest.json is not JSON"),
    "a manifest too deep": (lambda f: (f / "manifest.json").write_text("[" * 99999), "manifest.json is not JSON"),
    "a manifest of bytes": (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe\x00"), "it is no text in UTF-8"),
    "a manifest of something else": (lambda f: (f / "manifest.json").write_text("[]"), "is not the manifest of a run"),
    "a manifest that is empty": (lambda f: (f / "manifest.json").write_text(""), "manifest.json is not JSON"),
    "a chunk that is a link": (
        lambda f: link(f, "chunks/00001.safetensors"),
        "00001.safetensors is a link to another place",
    ),
    "a folder that is a link": (lambda f: link(f, "chunks"), "chunks is a link to another place"),
    "a manifest that is a link": (lambda f: link(f, "manifest.json"), "manifest.json is a link to another place"),
    "a lock that is a link": (lambda f: link(f, "lock"), "lock is a link to another place"),
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage_is_named_and_refused_and_nothing_is_deleted(run, case):
    spoil, words = GARBAGE[case]
    spoil(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "lock"}
    with pytest.raises(DamagedRunError, match=words):
        resume(run)
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "lock"}
    assert after == before
    assert not is_locked(run / "lock")


def test_what_is_not_the_runs_business_is_left_alone(run):
    (run / "chunks" / "00004.partial.safetensors").write_bytes(b"half")
    (run / "chunks" / "notes.txt").write_text("mine")
    (run / "Thumbs.db").write_bytes(b"")
    with resume(run) as journal:
        assert journal.finished == 4
    clean(run)
    assert sorted(path.name for path in run.rglob("*")) == ["Thumbs.db", "chunks", "notes.txt"]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        resume(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        clean(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        list_runs(tmp_path / "none")


def test_a_run_is_not_started_over_another(run, tmp_path):
    with pytest.raises(FileExistsError, match="holds a run already"):
        create_run(run, manifest())
    (run / "manifest.json").unlink()
    with pytest.raises(FileExistsError, match=r"is not empty: a new run wants a folder of its own"):
        create_run(run, manifest())
    with pytest.raises(FileExistsError, match="is not empty"):
        retry(begin(tmp_path / "other", 1, decoder=False), run, 1, 5)


def test_a_second_process_is_refused_with_the_number_of_the_first(tmp_path):
    worker = start_and_hang(tmp_path / "run", 3)
    try:
        with pytest.raises(RunInUseError, match=f"in use by process {worker.pid}:"):
            resume(tmp_path / "run")
        assert [found.state for found in list_runs(tmp_path)] == ["running"]
        with pytest.raises(RunInUseError):
            clean(tmp_path / "run")
    finally:
        worker.kill()
    resume(tmp_path / "run").close()


def test_a_second_session_in_the_same_process_is_refused(run):
    with resume(run), pytest.raises(RunInUseError, match=str(os.getpid())):
        resume(run)
    resume(run).close()


def test_a_run_that_is_killed_goes_on(tmp_path):
    """Twice by kill -9, with snapshots on the way. Ten kills of a real run, at random: tests/soak/kill_resume.py."""
    folder = tmp_path / "run"
    for call in (9, 20):
        start_and_hang(folder, call).kill()
    with resume(folder, manifest(plan(30))) as journal:
        assert 0 < journal.finished < 10
    latents, frames = finish(resume(folder))
    wanted = finish(create_run(tmp_path / "whole", manifest(plan(30))))
    assert same(latents, wanted[0])
    assert same(frames, wanted[1])
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize("num_bytes", [0, 10, 1000])
def test_a_full_disk_leaves_a_run_that_can_be_resumed(tmp_path, monkeypatch, num_bytes):
    """The disk is full after so many bytes of chunk 2."""
    folder = begin(tmp_path / "run", 2, decoder=False)
    room = [num_bytes]
    write = disk.File.write

    def full(file, data):
        if len(data) > room[0]:
            write(file, data[: room[0]])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= len(data)
        return write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(disk.File, "write", full)
        with pytest.raises(OSError, match=r"00002.safetensors: No space left on device; free space") as caught:
            finish(resume(folder), decoder=False)
    assert caught.value.errno == errno.ENOSPC
    assert sorted(path.name for path in (folder / "chunks").iterdir()) == ["00000.safetensors", "00001.safetensors"]
    latents, _ = finish(resume(folder), decoder=False)
    assert same(latents, finish(create_run(tmp_path / "whole", manifest()), decoder=False)[0])


def test_a_latent_that_cannot_be_used_later_is_not_kept(run):
    with resume(run) as journal:
        for latent, words in (
            (torch.full((1, 4, 3, 4, 4), torch.inf), "chunk 4 holds NaN or infinity"),
            (torch.zeros(1, 4, 3, 4, 4, dtype=torch.bfloat16), "chunk 4 holds torch.bfloat16"),
            (torch.zeros(1, 4, 2, 4, 4), r"chunk 4 has shape \[1, 4, 2, 4, 4\]"),
        ):
            with pytest.raises(ValueError, match=words):
                journal.write(4, latent)
        with pytest.raises(ValueError, match="chunk 3 cannot follow: 4 chunks are finished"):
            journal.write(3, torch.zeros(1, 4, 3, 4, 4))
        assert journal.finished == 4


@pytest.mark.parametrize("linked", [True, False])
def test_a_branch_shares_chunks_and_not_their_fate(run, tmp_path, monkeypatch, linked):
    if not linked:

        def refuse(source, target):
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    retry(run, tmp_path / "new", 3, 9).close()
    assert (chunk(tmp_path / "new", 2).stat().st_ino == chunk(run, 2).stat().st_ino) == linked
    clean(run)
    assert not run.exists()
    with resume(tmp_path / "new") as journal:
        assert (journal.finished, journal.manifest.base.run) == (3, "run")
    chunk(tmp_path / "new", 2).unlink()
    with pytest.raises(DamagedRunError, match="the first 3 chunks of this run come from run"):
        resume(tmp_path / "new")


def test_a_branch_needs_the_chunks_that_it_shares(run, tmp_path):
    with pytest.raises(ValueError, match="has 4 finished chunks: branch from 0 to 4"):
        retry(run, tmp_path / "new", 5, 9)
    with pytest.raises(ValueError, match="has another size or other chunks"):
        session.create_branch(run, tmp_path / "new", 2, manifest(plan(width=64)))
    assert not (tmp_path / "new").exists()
    edit_chunk(run, 1, put_nan)
    with pytest.raises(DamagedRunError, match="00001"):
        retry(run, tmp_path / "new", 2, 9)


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b""), lambda path: path.unlink()])
@pytest.mark.parametrize("at", [2, 0])
def test_a_branch_from_before_the_damage_saves_what_is_whole(run, tmp_path, spoil, at):
    """Seen to fail when all chunks of the source are read."""
    wanted = chunk(run, 1).read_bytes()
    spoil(chunk(run, at))
    with pytest.raises(DamagedRunError):
        resume(run)
    with retry(run, tmp_path / "new", at, 9) as journal:
        assert journal.finished == at
    assert at == 0 or chunk(tmp_path / "new", 1).read_bytes() == wanted
    with Journal(run, first_chunks=at) as journal, pytest.raises(ValueError, match="cannot follow"):
        journal.write(at, torch.zeros(1, 4, 3, 4, 4))


def test_a_run_keeps_the_embeddings_of_its_prompts(tmp_path):
    cat, dog = (tiny.text(number).context for number in (0, 5))
    with create_run(tmp_path / "run", manifest(), [cat]) as journal:
        finish(journal, decoder=False)
    with resume(tmp_path / "run") as journal:
        session.lengthen_run(journal, plan(24), [tiny_runs.section("a dog")], [dog])
        assert same(journal.texts(), [cat, dog])
    with retry(tmp_path / "run", tmp_path / "new", 2, 5) as journal:
        assert same(journal.texts(), [cat, dog])
    names = sorted(path.name for path in (tmp_path / "run" / "texts").iterdir())
    shutil.copy(tmp_path / "run" / "texts" / names[0], tmp_path / "run" / "texts" / names[1])
    with resume(tmp_path / "run") as journal, pytest.raises(DamagedRunError, match="does not hold the prompt's embed"):
        journal.texts()
    (tmp_path / "new" / "texts" / names[0]).unlink()
    with resume(tmp_path / "new") as journal, pytest.raises(DamagedRunError, match=names[0]):
        journal.texts()
    with create_run(tmp_path / "bare", manifest()) as journal, pytest.raises(ValueError, match="keeps no embeddings"):
        journal.texts()


def test_a_chunk_of_another_branch_is_refused(run, tmp_path):
    retry(run, tmp_path / "new", 3, 9).close()
    finish(resume(tmp_path / "new"), decoder=False)
    shutil.copy(chunk(tmp_path / "new", 3), chunk(run, 3))
    with pytest.raises(DamagedRunError, match=r"00003\.safetensors was made by another run"):
        resume(run)


def test_runs_are_listed_as_they_are(run, tmp_path):
    finish(retry(run, tmp_path / "done", 4, 9), decoder=False)
    (tmp_path / "done" / "video.mp4").write_bytes(b"video")
    write_cuts(tmp_path / "done", read_manifest(tmp_path / "done"))
    shutil.copytree(run, tmp_path / "spoilt")
    (tmp_path / "spoilt" / "manifest.json").write_text("{}")
    (tmp_path / "other").mkdir()
    found = {info.folder.name: info for info in list_runs(tmp_path)}
    assert {name: (info.state, info.chunks, info.num_chunks) for name, info in found.items()} == {
        "done": ("finished", 5, 5),
        "run": ("stopped", 4, 5),
        "spoilt": ("damaged", 0, 0),
    }
    assert "manifest.json is not the manifest of a run" in found["spoilt"].problem
    assert found["run"].num_bytes == sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    assert [info.folder for info in list_runs(run)] == [run]


def test_cleaning_keeps_the_video_and_what_is_not_the_runs(run):
    (run / "segments").mkdir()
    for name in ("seg-00000.mp4", "seg-00001.partial.mp4", "mine.mp4"):
        (run / "segments" / name).write_bytes(b"1")
    (run / "video.mp4").write_bytes(b"video")
    freed = clean(run)
    assert freed > 4 * 4 * 3 * 4 * 4 * 4
    assert sorted(path.name for path in run.rglob("*")) == ["mine.mp4", "segments", "video.mp4"]


def test_cleaning_takes_the_video_when_asked(run):
    (run / "video.mp4").write_bytes(b"video")
    clean(run, video=True)
    assert not run.exists()


def test_cleaning_does_not_follow_links(run, tmp_path):
    (tmp_path / "chunks").mkdir()
    (tmp_path / "chunks" / "00000.safetensors").write_bytes(b"mine")
    (run / "snapshots").rmdir()
    (run / "snapshots").symlink_to(tmp_path / "chunks")
    with pytest.raises(DamagedRunError, match="snapshots is a link"):
        clean(run)
    assert (tmp_path / "chunks" / "00000.safetensors").exists()


def test_a_plan_comes_back_from_json_exactly():
    for a_plan in (plan(), plan(mode="history"), plan(mode="histream-plus", first_frame=True, given_frames=1)):
        step = replace(a_plan.schedule[0][0], sigma=0.1 + 0.2)
        a_plan = replace(a_plan, schedule=((step, *a_plan.schedule[0][1:]), *a_plan.schedule[1:]))
        assert parse(Plan, json.loads(json.dumps(plain(a_plan))), "plan") == a_plan


def test_a_manifest_comes_back_from_json_exactly():
    old = manifest(seeds=[(0, 2**64 - 1), (3, 7)], depth=10, fps=24000 / 1001)
    assert from_json(to_json(old)) == old
    with pytest.raises(ValueError, match="out of range"):
        manifest(seeds=[(0, 2**64)])
    with pytest.raises(ValueError, match="each seed must begin after the one before it"):
        manifest(seeds=[(0, 1), (0, 2)])
    with pytest.raises(ValueError, match="there is no format"):
        manifest(format="gif")


@pytest.mark.parametrize(
    "name", ["", "a/b.mp4", "..", "/x.mp4", "chunks", "LOCK", "c:x.mp4", "a\\b", "x ", "manifest.json"]
)
def test_a_video_has_a_plain_name(name):
    with pytest.raises(ValueError, match="cannot be the name of a video"):
        manifest(output=name)


def test_a_recipe_knows_all_that_decides_a_latent_and_nothing_else():
    usual = recipes(manifest())
    assert len(set(usual)) == 5
    assert recipes(manifest(plan(30)))[:5] == usual
    assert recipes(manifest(fps=24.0, output="b.mp4")) == usual
    assert recipes(manifest(seeds=[(0, 1), (3, 1)])) == usual
    assert recipes(replace(manifest(), fingerprint=manifest().fingerprint | {"vae": "0"})) == usual
    for changed in (
        manifest(dtype="bfloat16"),
        manifest(plan(resize="area")),
        manifest(plan(mode="histream-plus")),
        replace(manifest(), fingerprint=manifest().fingerprint | {"lora": "0"}),
    ):
        assert recipes(changed)[-1] != usual[-1]
    assert [a == b for a, b in zip(recipes(manifest(seeds=[(0, 1), (3, 2)])), usual, strict=True)] == [1, 1, 1, 0, 0]


def test_a_fingerprint_sees_what_changes_in_weights():
    usual = session.fingerprint_weights(tiny_runs.MODEL)
    weights = {name: tensor.clone() for name, tensor in tiny_runs.MODEL.state_dict().items()}
    assert session.fingerprint_weights(reversed(list(weights.items()))) == usual
    name = "blocks.1.ffn.0.weight"
    for changed in (weights[name] + 1e-6, weights[name].half(), weights[name].T.contiguous()):
        assert session.fingerprint_weights((weights | {name: changed}).items()) != usual
    assert session.fingerprint_weights((weights | {"other": torch.zeros(0)}).items()) != usual
    large = torch.zeros(10**6)
    assert session.fingerprint_weights([("x", large)]) != session.fingerprint_weights([("x", large + 1e-9)])
