"""Make the core and the tests' own modules importable from a checkout; what the tests of the command line share."""

import gc
import json
import os
import socket
import sys
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # also of processes that tests start; see one_thread

TESTS = Path(__file__).parent

# At the end: a host's own `nodes` module, where there is one, must win over our folder.
sys.path += [str(TESTS), str(TESTS.parent)]


def pytest_addoption(parser):
    told = "run one of N further cases of each law, drawn by HISTREAM_FUZZ_SEED"
    parser.addoption("--one-of", type=int, default=1, metavar="N", help=told)


def pytest_collection_modifyitems(config, items):
    """Leave out the further cases that are not drawn."""
    from slow import is_drawn

    one_of, seed = config.getoption("--one-of"), os.environ.get("HISTREAM_FUZZ_SEED", "histream")
    always = {item.function for item in items if not item.get_closest_marker("further")}
    out = [
        item for item in items
        if item.get_closest_marker("further") and item.function in always and not is_drawn(item.nodeid, one_of, seed)
    ]  # fmt: skip
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in {*out}]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """Spare the collector the thousands of tests that stay to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Sums over several threads differ in their last bits, and tensors this small are slower with them."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Connections lead to this machine alone."""
    connect = socket.socket.connect

    def connect_here(self, address):
        inside = self.family not in (socket.AF_INET, socket.AF_INET6) or address[0] in ("127.0.0.1", "::1", "localhost")
        assert inside, f"a test wants to reach {address}"
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        yield


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A folder with a transformer, a VAE, a text encoder and text embeddings, all tiny and random."""
    from tiny_cli import write_weights

    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def here(tmp_path, monkeypatch, weights):
    """An empty current folder, and the tiny weights as the bundled ones."""
    from tiny_cli import bundle

    bundle(monkeypatch, weights)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def say(capsys):
    """Run the command line; status and what it said, standard output as JSON where there is some."""
    from histream_core.cli import main

    def run(*words):
        status = main([*map(str, words), "--json"])
        said = capsys.readouterr()
        return status, json.loads(said.out) if said.out else said.err.splitlines()[-1]

    return run


@pytest.fixture
def refusal(capsys):
    """Run `histream eval` where it must end with status 2; its one line comes back."""
    from histream_core.cli import main

    def run(*words):
        assert main(["eval", *map(str, words)]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1, said.err
        return said.err

    return run


@pytest.fixture
def stop_at(monkeypatch):
    """Ctrl-C at that network call."""
    from histream_core.network.forward import Denoiser

    def arm(call):
        calls = iter(range(1000))
        denoise = Denoiser.__call__

        def stopping(self, *args):
            if next(calls) == call:
                raise KeyboardInterrupt
            return denoise(self, *args)

        monkeypatch.setattr(Denoiser, "__call__", stopping)
        return lambda: monkeypatch.setattr(Denoiser, "__call__", denoise)

    return arm
