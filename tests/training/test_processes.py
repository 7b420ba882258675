"""A training run in two processes: one network, clips of their own, and the same numbers after a stop."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from training import make_bank, processes, train_vae
from training.checkpoint import read
from training.rng import Rng
from training.scene_bank import load_bank

TINY = ("--dim", "24", "--ffn-dim", "24", "--heads", "2", "--layers", "2")
WORKER = """
import sys, torch
from training import muon, network, processes, train_teacher

processes.join()
found = [torch.zeros(2), torch.zeros(3)]
if processes.rank() == 1:
    found[0].grad = torch.tensor([2.0, 4.0])
found[1].grad = torch.full((3,), 1.0 + processes.rank())
processes.average_gradients(found)
assert found[0].grad.tolist() == [1, 2] and found[1].grad.tolist() == [1.5] * 3, found
stack = torch.randn(5, 8, 6, generator=torch.Generator().manual_seed(1))
torch.testing.assert_close(processes.in_parts(muon.orthogonalise, stack), muon.orthogonalise(stack))
trainees = []
class Kept(network.Trainee):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        trainees.append(self)
train_teacher.Trainee = Kept
whole, cut, *arguments = sys.argv[1:]
train_teacher.main([*arguments, "--out", whole])
train_teacher.main([*arguments, "--out", cut, "--until", "1"])
train_teacher.main([*arguments, "--out", cut])
weights = torch.cat([p.detach().flatten() for p in trainees[-1].network.parameters()])
assert all(torch.equal(weights, other) for other in processes.gather(weights))
"""

BANK = """
import sys, torch
from histream_core.demo.scenes import THINGS
from training import make_bank, make_scene_bank

make_scene_bank.read_pictures = lambda _: {thing: torch.full((4, 8, 8), 0.7) for thing in THINGS}
make_scene_bank.SAVE_EVERY = 3
make_bank.main(sys.argv[1:])
"""


def in_two_processes(script, *arguments):
    """Run a script as `torchrun` would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    started = [
        subprocess.Popen(command, env=os.environ | place | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)


def test_two_processes_train_one_network_and_go_on_where_they_were(tmp_path):
    """Seen to fail without the mean of the gradients, and with the generators of process 0 for both."""
    train_vae.main(["--out", str(tmp_path / "vae"), "--steps", "1", "--dim", "2"])
    make_bank.main(["--vae", str(tmp_path / "vae" / "checkpoint.pt"), "--out", str(tmp_path / "bank.pt"),
                    "--every", "76", "--size", "128"])  # fmt: skip
    arguments = ["--bank", tmp_path / "bank.pt", "--size", "64", *TINY, "--batch", "1", "--grids", "4", "--steps", "3"]
    in_two_processes(WORKER, tmp_path / "whole", tmp_path / "cut", *arguments)
    whole, cut = (read(tmp_path / name / "checkpoint.pt") for name in ("whole", "cut"))
    for part in ("now", "average"):
        assert all(torch.equal(w, cut["network"][part][name]) for name, w in whole["network"][part].items())
    first, second = (found["numbers"] for found in whole["rng"]["processes"])
    assert not torch.equal(first, second)


def test_two_processes_fill_one_bank(tmp_path):
    """Seen to fail where both fill the same clips."""
    train_vae.main(["--out", str(tmp_path / "vae"), "--steps", "1", "--dim", "2"])
    words = ["--vae", tmp_path / "vae" / "checkpoint.pt", "--pictures", tmp_path, "--size", "64", "--stagings", "1",
             "--things", "cat", "--places", "sea", "--flat-every", "400", "--out"]  # fmt: skip
    in_two_processes(BANK, *words, tmp_path / "two")
    subprocess.run([sys.executable, "-c", BANK, *map(str, words), tmp_path / "one"], check=True)
    one, two = (load_bank(tmp_path / name) for name in ("one", "two"))
    assert len(one.combinations) > 4 and one.combinations == two.combinations
    assert np.abs(one.latents - two.latents).max() < 1e-3 and (one.stored == two.stored).all()
    torch.testing.assert_close(one.std, two.std)


def test_further_processes_draw_other_numbers(monkeypatch):
    """Seen to fail with one seed for all."""
    first = Rng(1).normal(4)
    monkeypatch.setattr(processes, "rank", lambda: 1)
    assert not torch.equal(Rng(1).normal(4), first)


def test_a_run_of_two_processes_is_not_continued_by_one(monkeypatch, tmp_path):
    """Seen to fail where the number of processes is no setting."""
    arguments = ["--out", str(tmp_path / "vae"), "--steps", "1", "--dim", "2"]
    train_vae.main(arguments)
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "join", lambda: None)
    with pytest.raises(ValueError, match="holds a run with processes None, asked for is 2"):
        train_vae.main(arguments)
