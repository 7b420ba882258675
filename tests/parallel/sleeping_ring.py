"""A pipeline of processes that sleep for as long as a rank would compute; it imports nothing heavy, and starts fast."""

import multiprocessing
import time
from multiprocessing.connection import Connection


def rank(before: Connection, after: Connection, ready: Connection, encodes: bool, decodes: bool) -> None:
    """Do what comes from the rank before, pass it on, and decode where it says so; None ends it."""
    ready.send(None)
    while (work := before.recv()) is not None:
        number, seconds, encoding, decoding = work
        time.sleep(seconds.pop(0) + (encoding if encodes else 0.0))
        after.send((number, seconds, encoding, decoding))
        if decodes and decoding:
            time.sleep(decoding)
    after.send(None)


def run_ring(rows, num_ranks: int, in_flight: int) -> float:
    """Seconds of the rows on so many processes; a row is its seconds on each rank, those of the VAE before and behind,
    and the number of the row that it needs, or None."""
    spawn = multiprocessing.get_context("spawn")
    pipes = [spawn.Pipe(duplex=False) for _ in range(num_ranks + 1)]
    there, ready = spawn.Pipe(duplex=False)
    ends = [(place == 0, place == num_ranks - 1) for place in range(num_ranks)]
    ranks = [
        spawn.Process(target=rank, args=(pipes[i][0], pipes[i + 1][1], ready, *ends[i]), daemon=True)
        for i in range(num_ranks)
    ]
    for one in ranks:
        one.start()
    for _ in ranks:
        there.recv()
    start, done = time.perf_counter(), set()
    for number, (seconds, encoding, decoding, needed) in enumerate(rows):
        while (needed is not None and needed not in done) or number - len(done) >= in_flight:
            done.add(pipes[-1][0].recv()[0])
        pipes[0][1].send((number, list(seconds), encoding, decoding))
    pipes[0][1].send(None)
    while pipes[-1][0].recv() is not None:
        pass
    taken = time.perf_counter() - start
    for one in ranks:
        one.join()
    return taken
