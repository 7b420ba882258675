"""Ranks in processes of their own: Ray places them, watches them and kills them. Tensors never travel through Ray.

A gang is started when it is first needed and kept for the next run. It ends when another one is asked for, when nobody
has used it for a while, when one of its ranks is lost, and with the process.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from .gang import Gang
from .link import EndedRankError, Link, LostRankError, open_store

NO_RAY = 'pip install "ray>=2.48,<3"'
"""The way to get what several processes need."""

NAMESPACE = "histream"
IDLE_SECONDS = 600.0
"""How long ranks are kept when nobody uses them."""
HANG_SECONDS = 20.0
"""A rank that does not answer for so long is hung, and is killed."""
STARTING_SECONDS = 300.0
"""How long a rank may take to start, which is to import torch."""
WATCH_SECONDS = 0.5
"""How often ranks are asked whether they are there."""

_log = logging.getLogger(__name__)
_lock = threading.RLock()
_kept: WorkerGang | None = None


def ray_is_there() -> bool:
    """Whether Ray is installed; it is not imported for that."""
    return find_spec("ray") is not None


def hold_gang(size: int, device: torch.device) -> WorkerGang:
    """The gang of so many ranks, the first in this process on `device`: the one that is kept, else a new one.

    Raises LostRankError where the ranks do not come up, and ValueError for devices that are not there.
    """
    global _kept
    with _lock:
        if _kept and (_kept.lost or (_kept.link.size, _kept.device) != (size, device)):
            release_gang()
        if _kept is None:
            _kept = WorkerGang.start(size, device)
        _kept.hold()
        return _kept


def release_gang() -> int:
    """End the ranks that are kept; returns how many there were."""
    global _kept
    with _lock:
        found, _kept = _kept, None
        if found:
            found.end()
        return len(found.peers) if found else 0


def kept_gang() -> WorkerGang | None:
    """The gang that is kept, if any."""
    return _kept


class WorkerGang(Gang):
    """A gang whose other ranks are Ray actors on this computer."""

    def __init__(self, link: Link, peers: list[WorkerPeer], device: torch.device):
        super().__init__(link, peers, device)
        self._workers, self._timer, self._held = peers, None, False
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="histream ranks", daemon=True).start()

    @classmethod
    def start(cls, size: int, device: torch.device) -> WorkerGang:
        """Start the ranks and wait until they have met. Raises LostRankError and ValueError."""
        devices = devices_from(device, size)
        ray = _start_ray()
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        store = open_store()
        peers: list[WorkerPeer] = []
        try:
            worker = ray.remote(num_cpus=0, max_restarts=0, concurrency_groups={"watch": 1})(_worker_class())
            root = str(Path(__file__).parents[2])
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            worker = worker.options(scheduling_strategy=here)
            peers += [WorkerPeer(rank, worker.remote(root)) for rank in range(1, size)]
            for peer in peers:
                peer.wait(STARTING_SECONDS)
            for peer in peers:
                peer.join(store.port, size, str(devices[peer.rank]))
            return cls(Link.join(store, 0, size, device), peers, device)
        except BaseException:
            for peer in peers:
                peer.kill()
            raise

    @property
    def pids(self) -> list[int]:
        """The processes of the other ranks."""
        return [peer.pid for peer in self._workers]

    def hold(self) -> None:
        """Keep the ranks until `close`."""
        self._held = True
        self._stop_timer()

    def close(self) -> None:
        """End a run; the ranks are kept for a while."""
        try:
            if not self.lost:
                super().close()
        except (LostRankError, ValueError, MemoryError):
            self.lost = True  # the run has ended already; the next one starts other ranks
        self._held = False
        self._stop_timer()
        self._timer = threading.Timer(IDLE_SECONDS, self._end_if_kept)
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """End all ranks."""
        self._stop_timer()
        self._ended.set()
        for peer in self._workers:
            peer.kill()
        self.link.close()

    def _end_if_kept(self) -> None:
        with _lock:
            if _kept is self and not self._held:
                release_gang()

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None

    def _watch(self) -> None:
        """Kill ranks that are hung: whoever waits for one of them is told so by its connection."""
        while not self._ended.wait(WATCH_SECONDS):
            for peer in self._workers:
                if not peer.answers():
                    if self._ended.is_set():  # it was ended while it was asked
                        return
                    self.lost = True
                    _log.warning("rank %d does not answer: it is ended", peer.rank)
                    for other in self._workers:
                        other.kill()
                    return


class WorkerPeer:
    """A rank as a Ray actor."""

    def __init__(self, rank: int, actor: Any):
        self.rank, self._actor, self._asked, self._ping = rank, actor, [], None
        self._since = 0.0
        self._pid: int | None = None

    @property
    def pid(self) -> int:
        import ray

        self._pid = self._pid or ray.get(self._actor.ping.remote())
        return self._pid

    def wait(self, seconds: float) -> None:
        """Wait until the process is there. Raises LostRankError."""
        import ray
        from ray.exceptions import RayError

        try:
            self._pid = ray.get(self._actor.ping.remote(), timeout=seconds)
        except RayError as error:
            raise LostRankError(f"rank {self.rank} does not start: {_last_line(error)}") from error

    def join(self, port: int, size: int, device: str) -> None:
        """Ask it to meet the other ranks."""
        self._asked.append(self._actor.join.remote(port, self.rank, size, device))

    def tell(self, verb: str, values: Mapping[str, Any]) -> None:
        self._asked.append(self._actor.do.remote(verb, values))

    def check(self) -> None:
        import ray
        from ray.exceptions import RayError, RayTaskError

        done, self._asked = ray.wait(self._asked, num_returns=len(self._asked), timeout=0) if self._asked else ([], [])
        try:
            ray.get(done)
        except RayTaskError as error:
            if type(error.cause).__name__ == LostRankError.__name__:
                raise LostRankError(f"rank {self.rank} lost another rank") from error
            if "OutOfMemory" in type(error.cause).__name__:
                raise MemoryError(f"the GPU of rank {self.rank} is out of memory: ask for a smaller size") from error
            raise ValueError(f"rank {self.rank} failed: {_last_line(error)}") from error
        except RayError as error:
            raise EndedRankError(f"rank {self.rank} has ended") from error

    def answers(self) -> bool:
        """Whether the process is there, and answered within HANG_SECONDS."""
        import ray
        from ray.exceptions import RayError

        try:
            if self._ping is None:
                self._ping, self._since = self._actor.ping.remote(), time.monotonic()
            done, _ = ray.wait([self._ping], timeout=WATCH_SECONDS)
            if done:
                self._pid = ray.get(self._ping)
                self._ping = None
                return True
        except RayError:
            return False
        return time.monotonic() - self._since < HANG_SECONDS

    def kill(self) -> None:
        """End the process at once."""
        import ray

        if ray.is_initialized():
            ray.kill(self._actor, no_restart=True)


def _worker_class() -> type:
    """The class of the actors, made here so that it travels as it is: hosts import this package by other names."""

    class Worker:
        def __init__(self, root: str):
            import sys

            sys.path.append(root)
            import histream_core.parallel.rank  # noqa: F401 - whoever waits for this process is told if it cannot

        def join(self, port: int, rank: int, size: int, device: str) -> None:
            import torch

            from histream_core.parallel.link import Link, meet
            from histream_core.parallel.rank import Rank

            where = torch.device(device)
            if where.type == "cuda":
                torch.cuda.set_device(where)
            self._rank = Rank(Link.join(meet(port), rank, size, where), where)

        def do(self, verb: str, values: dict) -> None:
            try:
                self._rank.do(verb, values)
            except BaseException:
                self._rank.link.close()  # whoever waits for this rank is told
                raise

        def ping(self) -> int:
            import os

            return os.getpid()

    Worker.ping.__ray_concurrency_group__ = "watch"  # what ray.method would set, without ray at import
    return Worker


def devices_from(first: torch.device, count: int) -> list[torch.device]:
    """The first device and the GPUs behind it; on the CPU, the CPU for each. Raises ValueError where there are less."""
    if first.type == "cpu":
        return [first] * count
    if first.type != "cuda":
        raise ValueError(f"several devices of the kind {first.type} cannot work together: use 1")
    start, there = first.index or 0, torch.cuda.device_count()
    if start + count > there:
        raise ValueError(f"from cuda:{start} on there are {there - start} GPUs here: use {there - start}")
    return [torch.device("cuda", start + rank) for rank in range(count)]


def _start_ray() -> Any:
    """Ray: the one that this process is connected to already, else a new one on this computer alone."""
    import ray

    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # ranks choose their GPUs by number
        ray.init(
            address="local",
            namespace=NAMESPACE,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        atexit.register(ray.shutdown)
        atexit.register(release_gang)  # before Ray ends: whoever asks Ray for something afterwards would start it anew
    return ray


def _last_line(error: BaseException) -> str:
    return str(error).strip().rpartition("\n")[2]
