"""Ranks in processes: the same bytes, ranks that die or hang, Cancel, and no process that stays."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import tiny
import tiny_cli
from safetensors.torch import save_file
from slow import slow

from histream_core.network.model import WanConfig
from histream_core.parallel import workers
from histream_core.plan import sharing
from histream_core.runs.store.journal import Journal

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="pip install histream[scale]")
PIPELINE = ["--mode", "full", "--histories", "each-step", "--order", "diagonal"]
SIZE = ["--size", "256x128", "--frames", "45", "--mode", "histream"]


@pytest.fixture(autouse=True, scope="module")
def no_gang_stays():
    yield
    pids = workers.kept_gang().pids if workers.kept_gang() else []
    workers.release_gang()
    for pid in pids:
        assert ended(pid)


def ended(pid, seconds=120):
    """Whether a process ends within that time."""
    until, told = time.monotonic() + seconds, Path(f"/proc/{pid}/stat")
    while time.monotonic() < until:
        try:
            if told.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="module")
def wide(weights, tmp_path_factory):
    """The tiny weights, with four heads and three layers."""
    folder = tmp_path_factory.mktemp("wide")
    for path in weights.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    model = tiny.wan(WanConfig(dim=64, ffn_dim=64, num_heads=4, num_layers=3, text_dim=64))
    told = {"config": json.dumps({"transformer": {"num_heads": 4}})}
    save_file(model.state_dict(), folder / "wan.safetensors", told)
    return folder


@pytest.fixture
def run(wide, here, capsys, monkeypatch):
    """Make a kept video on two or more processes; its folder and the result come back."""
    monkeypatch.setattr(workers, "HANG_SECONDS", 5.0)
    monkeypatch.setattr(sharing, "LEAST_TOKENS", 16)

    def make(name, *words):
        result = tiny_cli.result_of(tiny_cli.render_words(wide, *SIZE, "--run-dir", name, *words), capsys)
        return here / name, result

    return make


def files(folder):
    """The bytes of a run's chunks and of its video."""
    return {path.name: path.read_bytes() for path in [*folder.glob("chunks/*"), *folder.glob("video.*")]}


@pytest.mark.parametrize(
    "words",
    [
        ["--gpus", "2", "--split", "sequence"],
        slow(["--gpus", "2", "--split", "decode"]),
        slow(["--gpus", "2", "--split", "pipeline", *PIPELINE]),
    ],
    ids=["sequence", "decode", "pipeline"],
)
def test_the_same_files(run, words):
    alone, _ = run("alone", *words[4:] if "--order" in words else [])
    several, result = run("several", *words)
    assert files(several) == files(alone)
    assert any("device" in note for note in result["notes"])


class Blow:
    """A signal for a random rank, once, when a chunk was written."""

    def __init__(self, monkeypatch, number, seed):
        self.random, self.number, self.pids = random.Random(seed), number, []
        self.chunk = self.random.randrange(3)
        write = Journal.write

        def written(journal, chunk, *rest):
            write(journal, chunk, *rest)
            if not self.pids and chunk >= self.chunk:
                gang = workers.kept_gang()
                self.pids = gang.pids
                os.kill(self.random.choice(self.pids), self.number)
                self.at = time.monotonic()

        monkeypatch.setattr(Journal, "write", written)


@pytest.mark.parametrize(
    ("number", "split", "words"),
    [
        (signal.SIGKILL, "sequence", []),
        slow(signal.SIGSTOP, "sequence", []),
        slow(signal.SIGKILL, "pipeline", PIPELINE),
    ],
    ids=["dies", "hangs", "dies and decoded"],
)
def test_a_rank_that_is_lost_is_replaced_and_the_run_goes_on(run, monkeypatch, caplog, number, split, words):
    """Seen to fail when a lost rank ends the run, and when finished chunks are sampled once more.

    `python tests/soak/kills.py` does it many times, at other moments too.
    """
    alone, _ = run("alone", *words)
    blow = Blow(monkeypatch, number, seed=7)
    several, _ = run("several", "--gpus", "3", "--split", split, *words)
    assert files(several) == files(alone)
    assert "the ranks are started again" in caplog.text
    assert all(ended(pid) for pid in blow.pids)


def test_ray_is_not_ended_where_it_is_somebody_elses_and_no_tensor_goes_through_it(run, monkeypatch):
    import ray

    run("first", "--gpus", "2", "--split", "sequence")
    workers.release_gang()
    assert ray.is_initialized()
    asked = []
    tell = workers.WorkerPeer.tell
    monkeypatch.setattr(workers.WorkerPeer, "tell", lambda peer, *what: asked.append(what) or tell(peer, *what))
    run("second", "--gpus", "2", "--split", "sequence")

    def parts(value):
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        yield value
        for part in inside:
            yield from parts(part)

    assert len(asked) > 10
    assert {type(part) for _, values in asked for part in parts(values)} <= {
        dict,
        list,
        str,
        int,
        float,
        bool,
        type(None),
    }


def test_snapshots_are_left_out_and_a_choice_of_two_is_refused(run, wide, here, capsys):
    """Caches of several ranks have no snapshot. Seen to fail when one is asked for."""
    several, _ = run("several", "--gpus", "2", "--split", "sequence", "--snapshots", "1")
    assert not list(several.glob("snapshots/*")) and files(several) == files(run("alone")[0])
    words = tiny_cli.render_words(wide, *SIZE, "--run-dir", "both", "--gpus", "2", "--vae-device", "cpu")
    assert "leave one of them out" in tiny_cli.refusal_of(words, capsys)
