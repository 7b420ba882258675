"""Gangs whose ranks are threads of the test's process: the real ranks and links, without processes to start."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch
import torch.distributed as dist

from histream_core.parallel.gang import Gang
from histream_core.parallel.link import Link
from histream_core.parallel.rank import Rank

CPU = torch.device("cpu")
SIZES = [2, 3, 5, 8]


class ThreadPeer:
    """A rank in a thread, which leaves when it fails."""

    def __init__(self, store, rank, size):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"rank {rank}")
        self._rank: Future[Rank] = self._thread.submit(lambda: Rank(Link.join(store, rank, size, CPU), CPU))
        self._asked: list[Future] = []

    def tell(self, verb, values):
        self._asked.append(self._thread.submit(self._do, verb, values))

    def check(self):
        for done in [future for future in self._asked if future.done()]:
            self._asked.remove(done)
            done.result()

    def _do(self, verb, values):
        rank = self._rank.result()
        try:
            rank.do(verb, values)
        except BaseException:
            rank.link.close()
            raise

    def wait(self):
        """Wait for all that was asked; raise what the rank raised."""
        for future in self._asked:
            future.result(timeout=60)

    def end(self):
        self._thread.shutdown()


@contextmanager
def gang_of(size):
    """A gang of so many ranks, this thread the first."""
    store = dist.HashStore()
    peers = [ThreadPeer(store, rank, size) for rank in range(1, size)]
    link = Link.join(store, 0, size, CPU)
    try:
        yield Gang(link, peers, CPU)
        for peer in peers:
            peer.wait()
    finally:
        link.close()
        for peer in peers:
            peer.end()
