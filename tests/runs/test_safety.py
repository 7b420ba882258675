"""A run's folder that a stranger made, and a user's folder that is no run: nothing outside is written, nothing lost."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
from itertools import count

import pytest
import torch
from forks import Child
from slow import few
from tiny_runs import begin, finish, manifest, plan, retry, same

from histream_core import runs as session
from histream_core.cli import main
from histream_core.files import disk
from histream_core.files.tensors import pack, read_safetensors
from histream_core.files.values import digest
from histream_core.plan import Plan
from histream_core.runs import DamagedRunError, RunInUseError, clean, create_run, list_runs, resume
from histream_core.runs.store import branching, new
from histream_core.runs.store.folder import LOCK
from histream_core.runs.store.journal import _hash_all
from histream_core.runs.store.lock import NO_LOCKS, is_locked, take

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes pipes and links")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of which 2 of 5 chunks are finished."""
    return begin(tmp_path_factory.mktemp("run") / "stopped", 2, decoder=False)


@pytest.fixture
def run(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


def all_in(folder):
    """All names under a folder, with the bytes of the files."""
    return {path: path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


OWN = {
    "a web app's": '{"name": "app", "start_url": "/", "icons": []}',
    "one with a format": '{"format": 2, "name": "app"}',
    "one with our keys and more": '{"format": 2, "sha256": "", "run": {}, "name": "app"}',
    "a list": "[]",
    "no JSON": "{",
    "bytes": "\xff",
    "a deep one": "[" * 100_000,
}
VERBS = {
    "clean": lambda app, _: clean(app),
    "clean with the video": lambda app, _: clean(app, video=True),
    "resume": lambda app, _: resume(app),
    "branch": lambda app, new: retry(app, new, 0, 5),
    "begin": lambda app, _: create_run(app, manifest()),
}


@pytest.mark.parametrize("text", OWN)
def test_a_folder_whose_manifest_is_somebody_elses_keeps_every_byte(tmp_path, text):
    """Seen to fail with a lock that is taken before the manifest is read, and with a clean that only looks for one."""
    app = tmp_path / "app"
    (app / "chunks").mkdir(parents=True)
    for name in ("chunks/00000.safetensors", "video.mp4", "cuts.edl", "lock", "sound.mka"):
        (app / name).write_bytes(b"mine")
    (app / "manifest.json").write_text(OWN[text], encoding="latin-1")
    before = all_in(tmp_path)
    for verb in VERBS.values():
        with pytest.raises((DamagedRunError, FileExistsError), match=r"manifest.json|holds a run already"):
            verb(app, tmp_path / "new")
        assert all_in(tmp_path) == before
    assert [info.state for info in list_runs(tmp_path)] == ["damaged"]
    assert all_in(tmp_path) == before


def test_a_manifest_of_three_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(DamagedRunError, match="has 3221225472 bytes, and at most 33554432 are read"):
        resume(tmp_path)


@pytest.mark.parametrize("name", ["video.mp4", "notes.txt", "lock", "chunks/mine", "segments/seg-00000.mp4"])
def test_a_new_run_wants_a_folder_of_its_own(tmp_path, capsys, name):
    """Before anything is loaded. Seen to fail where the folder was taken: `video.mp4` and others were replaced."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = all_in(tmp_path)
    with pytest.raises(FileExistsError, match="is not empty: a new run wants a folder of its own"):
        create_run(tmp_path, manifest())
    assert main(["demo", "--run-dir", str(tmp_path), "--seconds", "0.1"]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert all_in(tmp_path) == before


def test_a_lock_that_a_run_left_makes_no_folder_free(tmp_path):
    """Seen to fail where only the run's own names were looked at."""
    (tmp_path / "lock").write_text("123\n")
    for name in ("chunks", "snapshots"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    before = all_in(tmp_path)
    with pytest.raises(FileExistsError, match="is not empty"):
        create_run(tmp_path, manifest())
    assert all_in(tmp_path) == before


def test_a_damaged_run_that_is_ours_can_be_cleaned_and_nothing_else_goes(run):
    text = (run / "manifest.json").read_text()
    (run / "manifest.json").write_text(text.replace('"fps": 16.0', '"fps": "x"'))
    (run / "segments").mkdir(exist_ok=True)
    for name in ("segments/seg-00000.mp4", "segments/notes.txt", "texts.txt"):
        (run / name).write_bytes(b"1")
    clean(run)
    assert [path.name for path in sorted(run.rglob("*"))] == ["segments", "notes.txt", "texts.txt"]


def hard_link(path, outside):
    os.link(outside, path)


def soft_link(path, outside):
    path.symlink_to(outside)


def pipe(path, _):
    os.mkfifo(path)


def folder(path, _):
    path.mkdir()


KINDS = {"a hard link": hard_link, "a soft link": soft_link, "a pipe": pipe, "a folder": folder}


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_that_is_no_file_of_its_own_is_refused_and_not_written(run, tmp_path, kind):
    """Seen to fail with a hard link: whatever it was linked to was emptied."""
    outside = tmp_path / "dear"
    outside.write_text("dear to somebody")
    (run / "lock").unlink()
    KINDS[kind](run / "lock", outside)
    for verb in (resume, clean, lambda run: retry(run, tmp_path / "new", 1, 5)):
        with pytest.raises(DamagedRunError, match=r"lock is .*(remove it|keeps to its own folder)"):
            verb(run)
    assert not is_locked(run / "lock")
    assert len(list_runs(run)) == 1
    assert outside.read_text() == "dear to somebody"


NAMES = ("manifest.json", "chunks/00001.safetensors", "chunks", "snapshots", "texts", "segments", "sound.mka")


@pytest.mark.parametrize("kind", ["a soft link", "a pipe", "a folder"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_file_or_no_folder_is_named_and_nothing_waits_for_it(run, tmp_path, name, kind):
    path = run / name
    if kind == "a folder" and "." not in name:
        pytest.skip("it is one")
    if os.path.lexists(path):
        path.replace(tmp_path / "was") if path.is_file() else shutil.rmtree(path)
    KINDS[kind](path, tmp_path / "elsewhere")
    with pytest.raises(DamagedRunError, match=path.name.replace(".", r"\.")):
        resume(run)


def test_nothing_is_written_through_a_link_at_a_half_written_name(run, tmp_path):
    """An archive with `cuts.partial.edl -> ../../home/.bashrc`. Seen to fail where temporary files were opened."""
    outside = tmp_path / "dear"
    outside.write_text("dear to somebody")
    names = ("cuts.partial.edl", "manifest.partial.json", "chunks/00002.partial.safetensors")
    for number, name in enumerate(names):
        (os.link if number % 2 else os.symlink)(outside, run / name)
    with resume(run) as journal:
        journal.write(2, journal.read(1))
        journal.rewrite(manifest(plan(30)))
    assert outside.read_text() == "dear to somebody"
    assert outside.stat().st_nlink == 1


def test_a_start_in_a_folder_that_another_has_locked_says_who_holds_it(tmp_path):
    """Happens where four starts come at once on a slow machine. Seen to fail with an error of the disk instead."""
    place = tmp_path / "run"
    place.mkdir()
    held = take(place / LOCK)
    with pytest.raises(RunInUseError, match=rf"run is in use by process {os.getpid()}: wait for it, or stop it$"):
        create_run(place, manifest())
    held.release()


@pytest.mark.parametrize("code", few(NO_LOCKS, 2), ids=errno.errorcode.get)
def test_a_file_system_without_locks_keeps_a_run_for_one_process(tmp_path, monkeypatch, code):
    """Seen to fail with "in use by another process" for a folder that nobody has."""

    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    path = tmp_path / "lock"
    held = take(path)
    assert is_locked(path)
    with pytest.raises(RunInUseError, match=f"in use by process {os.getpid()}: wait for it"):
        take(path)
    held.release()
    assert not is_locked(path)
    dead = Child(lambda _: None)
    assert dead.wait() == 0
    path.write_text(f"{dead.pid}\n")  # of a process that was killed
    again = take(path)
    again.remove()
    assert not path.exists()


@pytest.mark.slow
def test_four_starts_at_once_give_one_run_that_can_be_resumed(tmp_path):
    """Twenty times. Seen to fail with a manifest that is written before the lock is taken."""
    wanted = [manifest(seeds=((0, seed),)) for seed in range(4)]
    for turn in range(20):
        place, (read, write) = tmp_path / f"run-{turn}", os.pipe()

        def start(say, number, place=place, read=read, write=write):
            os.close(write)
            os.read(read, 1)  # all at once
            try:
                journal = create_run(place, wanted[number])
            except (FileExistsError, RunInUseError) as error:
                say.write(f"{error}\n")
                return 2
            say.write("won\n")
            os.read(read, 1)
            journal.write(0, journal_latent())
            journal.close()
            return 0

        children = [Child(lambda say, number=number, start=start: start(say, number)) for number in range(4)]
        os.close(read)
        os.close(write)
        said = [child.said.readline() for child in children]
        assert sorted(child.wait() for child in children) == [0, 2, 2, 2], said
        with resume(place) as journal:
            assert journal.finished == 1
            assert journal.manifest.seed(0) == said.index("won\n")


def journal_latent():
    return torch.zeros(1, 4, 3, 4, 4)


@pytest.mark.parametrize("made", [False, True])
def test_a_start_that_fails_leaves_nothing(tmp_path, monkeypatch, made):
    place = tmp_path / "a" / "run"
    if made:
        place.mkdir(parents=True)

    def full(folder, manifest):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(new, "write_manifest", full)
        create_run(place, manifest(), [journal_latent()])
    assert sorted(tmp_path.rglob("*")) == ([tmp_path / "a", place] if made else [])
    create_run(place, manifest()).close()


def test_a_start_that_was_killed_anywhere_can_be_made_again(tmp_path, monkeypatch):
    """At every write of a file. Seen to fail where a folder with a lock and empty folders in it counted as taken."""
    write_whole = disk.File.write
    for turn in count():
        writes = count()

        def die(file, data, writes=writes, turn=turn):
            if next(writes) == turn:
                os._exit(9)
            return write_whole(file, data)

        def start(_, die=die, turn=turn):
            monkeypatch.setattr(disk.File, "write", die)
            create_run(tmp_path / f"run-{turn}", manifest(), [journal_latent()]).close()

        status = Child(start).wait()
        create_run(tmp_path / f"run-{turn}", manifest(), [journal_latent()]).close() if status else None
        if status == 0:
            break
        assert status == 9
    assert turn == 2


def test_the_folder_that_a_new_run_is_made_in_is_synchronised(tmp_path, monkeypatch):
    synced, sync = [], new.sync_folder
    monkeypatch.setattr(new, "sync_folder", lambda path: [synced.append(path), sync(path)])
    create_run(tmp_path / "a" / "run", manifest()).close()
    assert {tmp_path / "a", tmp_path} <= {*synced}


def test_a_branch_that_fails_leaves_no_folder(run, tmp_path, monkeypatch):
    """Seen to fail with the hidden folder of the branch left."""
    before = sorted(tmp_path.rglob("*"))

    def fail(files, folder):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(branching, "share", fail)
        retry(run, tmp_path / "new", 2, 9)
    assert sorted(tmp_path.rglob("*")) == before
    retry(run, tmp_path / "new", 2, 9).close()
    assert not (tmp_path / ".new.partial").exists()
    with session.resume(tmp_path / "new") as journal:
        assert journal.finished == 2


HOSTILE = {
    "no grids": lambda run: run["plan"].update(grids={}),
    "a grid of nothing": lambda run: run["plan"]["grids"].update(high=[0, 4]),
    "a grid below nothing": lambda run: run["plan"]["grids"].update(high=[-4, 4]),
    "a grid without end": lambda run: run["plan"]["grids"].update(high=[2**40, 2**40]),
    "a grid of three": lambda run: run["plan"]["grids"].update(high=[4, 4, 4]),
    "no factor": lambda run: run["plan"].update(ntk={}),
    "a factor of 1e300": lambda run: run["plan"]["ntk"].update(high=1e300),
    "a sigma of 1e300": lambda run: run["plan"]["schedule"][0][0].update(sigma=1e300),
    "a sigma of nothing": lambda run: run["plan"]["schedule"][0][0].update(sigma=-1.0),
    "a scale that is a list": lambda run: run["plan"]["schedule"][0][0].update(scale=[]),
    "a scale that is an object": lambda run: run["plan"]["schedule"][0][0].update(scale={}),
    "no steps": lambda run: run["plan"].update(schedule=[]),
    "steps without end": lambda run: run["plan"].update(schedule=[run["plan"]["schedule"][0] * 1000]),
    "a length without end": lambda run: run["plan"].update(num_latent_frames=10**12),
    "a length of 400 digits": lambda run: run["plan"].update(num_latent_frames=10**400),
    "a million frames": lambda run: run["plan"].update(num_latent_frames=250_002),
    "chunks without end": lambda run: run["plan"]["window"].update(chunk_frames=10**12),
    "a window without end": lambda run: run["plan"]["window"].update(local_frames=10**12),
    "another way to resize": lambda run: run["plan"].update(resize="rm"),
    "anchors in disorder": lambda run: run["plan"].update(anchors=[0, 6, 3]),
    "anchors anywhere": lambda run: run["plan"].update(anchors=[0, 4]),
    "no anchors": lambda run: run["plan"].update(anchors=[]),
    "a scene before the first": lambda run: run["plan"].update(scenes=[-3]),
    "a picture without end": lambda run: run["settings"].update(size=[10**9, 10**9]),
    "a picture of nothing": lambda run: run["settings"].update(size=[0, 0]),
    "no rate": lambda run: run["settings"].update(fps=0.0),
    "a rate of 1e9": lambda run: run["settings"].update(fps=1e9),
    "a rate of 400 digits": lambda run: run["settings"].update(fps=10**400),
    "a seed below nothing": lambda run: run["seeds"][0].update(seed=-1),
    "a seed of 400 digits": lambda run: run["seeds"][0].update(seed=10**400),
    "a text that is a path": lambda run: run["sections"][0].update(text="../../x"),
    "half a letter": lambda run: run["sections"][0].update(prompt="\ud800"),
    "chunks of another run without end": lambda run: run.update(
        base={"run": "a", "chunks": 10**12, "recipe": "0" * 64}
    ),
    "chunks of another run below nothing": lambda run: run.update(base={"run": "a", "chunks": -1, "recipe": "0" * 64}),
    "a deep value": lambda run: run.update(source=nested(600)),
    "a mode that is a list": lambda run: run["settings"].update(mode=[]),
}


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("case", HOSTILE)
def test_a_signed_manifest_of_what_cannot_be_is_refused_by_name(run, case):
    """Seen to fail with tracebacks, and by minutes and gigabytes."""
    data = json.loads((run / "manifest.json").read_text())
    HOSTILE[case](data["run"])
    with contextlib.suppress(ValueError):
        data["sha256"] = digest(data["run"])
    (run / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(DamagedRunError, match=r"manifest\.json "):
        resume(run)
    assert [info.state for info in list_runs(run)] == ["damaged"]


@pytest.mark.parametrize("place", ["another run", "an empty folder"])
def test_a_branch_is_not_begun_through_a_link(run, tmp_path, place):
    """Seen to fail without the look at the name: another run was cleaned, or the branch written elsewhere."""
    dear = tmp_path / "dear"
    shutil.copytree(run, dear) if place == "another run" else dear.mkdir()
    before = all_in(dear)
    (tmp_path / ".two.partial").symlink_to(dear)
    with pytest.raises(FileExistsError, match="is a link: remove it"):
        branching.create_branch(run, tmp_path / "two", 1)
    assert all_in(dear) == before
    assert not (tmp_path / "two").exists()


def test_runs_behind_links_are_not_listed(run, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    (place / "linked").symlink_to(run)
    assert list_runs(place) == []


def test_prompts_of_strangers_command_no_terminal(run):
    data = json.loads((run / "manifest.json").read_text())
    data["run"]["sections"][0]["prompt"] = "\x1b]0;mine\x07a\nb  finished 9/9 chunks\u202e"
    data["sha256"] = digest(data["run"])
    (run / "manifest.json").write_text(json.dumps(data))
    line = list_runs(run)[0].line("run")
    assert line.isprintable()


def test_a_long_run_is_opened_without_a_walk_over_all_its_chunks(tmp_path, monkeypatch):
    """Seen to fail with the recipes of all chunks made at once."""
    seen, chunk_at = count(), Plan.chunk_at
    monkeypatch.setattr(Plan, "chunk_at", lambda plan, index: [next(seen), chunk_at(plan, index)][1])
    create_run(tmp_path / "run", manifest(plan(250_000))).close()
    with resume(tmp_path / "run") as journal:
        assert journal.finished == 0
    assert next(seen) < 100


SNAPSHOTS = {
    "no window": lambda tensors: tensors.pop("stream.high.window"),
    "a window of floats": lambda tensors: tensors.update({"stream.high.window": torch.zeros(2)}),
    "frames of floats": lambda tensors: tensors.update({"stream.high.frames": torch.zeros(3)}),
    "frames below nothing": lambda tensors: tensors["stream.high.frames"].sub_(9),
    "times of another shape": lambda tensors: tensors.update({"stream.high.times": torch.zeros(1, 1).long()}),
    "one number": lambda tensors: tensors.update({"stream.window.latents": torch.tensor(1.0)}),
    "small latents": lambda tensors: tensors.update({"stream.window.latents": torch.zeros(1, 4, 3, 2, 2)}),
    "frames of the window": lambda tensors: tensors.update({"stream.window.frames": torch.tensor(1.5)}),
    "another VAE's": lambda tensors: tensors.update({"vae.x": torch.zeros(1)}),
    "a memory of another size": lambda tensors: tensors.update(
        {name: x[..., :1] for name, x in tensors.items() if name.startswith("vae.")}
    ),
    "a memory of another level": lambda tensors: tensors.update(
        {name: x.repeat(1, 1, 1, 2, 2) for name, x in tensors.items() if name.startswith("vae.")}
    ),
    "a memory of the first layer alone": lambda tensors: [
        tensors.pop(name) for name in [*tensors] if name.startswith("vae.") and name != "vae.conv1"
    ],
    "no frames": lambda tensors: tensors.update(
        {f"stream.{scale}.{name}": torch.zeros(0).long() for scale in ("low", "high") for name in ("frames", "times")}
    ),
    "nothing": lambda tensors: tensors.clear(),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run with a snapshot, and its frames."""
    place = tmp_path_factory.mktemp("kept")
    begin(place / "run", 4, snapshots=session.Snapshots(every=2))
    return place / "run", finish(create_run(place / "whole", manifest()))


@pytest.mark.parametrize("case", SNAPSHOTS)
def test_a_snapshot_that_does_not_fit_is_left_out(kept, tmp_path, case):
    folder = shutil.copytree(kept[0], tmp_path / "run")
    (path,) = (folder / "snapshots").iterdir()
    tensors, metadata = read_safetensors(path)
    tensors = {name: x.clone() for name, x in tensors.items()}
    SNAPSHOTS[case](tensors)
    path.write_bytes(pack(tensors, metadata | {"sha256": _hash_all(tensors)}))
    with resume(folder) as journal:
        done = journal.newest_snapshot()[1]
    latents, frames = finish(resume(folder), first_decoded=done)
    assert same(latents[-1:], kept[1][0][-1:])
    assert same(frames[-1:], kept[1][1][-1:])
