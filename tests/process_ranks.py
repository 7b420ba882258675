"""Gangs whose ranks are processes that sleep for as long as their layers would take, and may become slow."""

import multiprocessing
import time
from contextlib import contextmanager

import torch

from histream_core.parallel import gang, pipeline
from histream_core.parallel.gang import Gang
from histream_core.parallel.link import Link, LostRankError, meet, open_store
from histream_core.parallel.rank import Rank

CPU = torch.device("cpu")
JOIN_SECONDS = 30


def let_layers_sleep(seconds, factor, counted):
    """Let each layer of this process take so many seconds times `factor.value`, and a little for what it computes.

    Returns a function that ends it. `counted`: ranks measure these seconds alone, whatever the clock says.
    """
    run, clocks, spent = pipeline.run_layers, pipeline.clock, 0.0

    def sleeping(model, x, embedded, text, cache, options):
        nonlocal spent
        sleep = seconds * len(options.layers) * factor.value
        spent += sleep
        time.sleep(sleep)
        return run(model, x, embedded, text, cache, options)

    def restore():
        pipeline.run_layers, pipeline.clock, gang.clock = run, clocks, clocks

    pipeline.run_layers = sleeping
    if counted:
        pipeline.clock = gang.clock = lambda *_: spent
    return restore


def serve(asked, port, rank, size, seconds, factor, counted):
    """Do what a pipe says, until it says None."""
    torch.set_num_threads(1)
    let_layers_sleep(seconds, factor, counted)
    worker = Rank(Link.join(meet(port), rank, size, CPU), CPU)
    try:
        while (told := asked.recv()) is not None:
            worker.do(*told)
    finally:
        worker.link.close()


class ProcessPeer:
    """A rank in a process of its own; what it raises is on standard error."""

    def __init__(self, port, rank, size, seconds, factor, counted):
        spawn = multiprocessing.get_context("spawn")
        there, self._asked = spawn.Pipe(duplex=False)
        self._process = spawn.Process(
            target=serve, args=(there, port, rank, size, seconds, factor, counted), daemon=True
        )
        self._process.start()

    def tell(self, verb, values):
        self._asked.send((verb, values))

    def check(self):
        if not self._process.is_alive():
            raise LostRankError("a rank has ended")

    def end(self):
        if self._process.is_alive():
            self._asked.send(None)
        self._process.join(JOIN_SECONDS)
        self._process.kill()


@contextmanager
def sleeping_gang(size, seconds, *, counted):
    """A gang of so many ranks, this process the first, whose layers take `seconds` each, and a factor for each rank."""
    factors = [multiprocessing.get_context("spawn").Value("d", 1.0) for _ in range(size)]
    store = open_store()
    peers = [ProcessPeer(store.port, rank, size, seconds, factors[rank], counted) for rank in range(1, size)]
    restore = let_layers_sleep(seconds, factors[0], counted)
    link = Link.join(store, 0, size, CPU)
    try:
        yield Gang(link, peers, CPU), factors
    finally:
        restore()
        for peer in peers:
            peer.end()
        link.close()
