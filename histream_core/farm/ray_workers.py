"""Workers as tasks of Ray, which places them on the GPUs of a computer or of a cluster and sees when one dies.

A task is given the names of the farm's folder and of a shot; it reads files and writes files. No tensor and no weight
goes through Ray.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .work import FAILED, GONE, Make, Outcome

LOCAL = "local"

NAMESPACE = "histream-farm"

KILL_SECONDS = 60.0
"""A task that was killed and has not ended by then counts as dead: Ray does not tell where a whole computer hangs."""

PACKAGE = Path(__file__).parents[2]
"""The folder that the package is imported from."""


class RayWorkers:
    """Tasks of a Ray that is running, one for each shot."""

    def __init__(self, ray: Any, folder: Path, make: Make, size: int) -> None:
        self._ray, self._folder, self._make, self.size = ray, folder, _place_of(make), size
        gpus = 1 if _gpus(ray) else 0
        options = {"num_cpus": 1, "num_gpus": gpus, "max_retries": 0, "scheduling_strategy": "SPREAD"}
        self._task = ray.remote(_task()).options(**options, runtime_env={"env_vars": environment(size)})
        self._running: dict[Any, str] = {}
        self._killed: dict[Any, float] = {}
        """When tasks were killed."""

    def start(self, name: str) -> None:
        self._running[self._task.remote(str(self._folder), name, *self._make)] = name

    def ended(self, seconds: float) -> list[tuple[str, Outcome]]:
        if not self._running:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait([*self._running], timeout=seconds)
        found = [(task, self._outcome(task)) for task in ready]
        late = [task for task, since in self._killed.items() if time.monotonic() - since > KILL_SECONDS]
        found += [(task, Outcome(GONE, "nobody ends its process")) for task in late if task not in ready]
        for task, _ in found:
            self._killed.pop(task, None)
        return [(self._running.pop(task), outcome) for task, outcome in found]

    def kill(self, name: str) -> None:
        """End the process of a shot's task; Ray does that for a process that is stopped too, some seconds later."""
        for task in [task for task, running in self._running.items() if running == name]:
            self._killed[task] = time.monotonic()
            self._ray.cancel(task, force=True)

    def _outcome(self, task: Any) -> Outcome:
        """The outcome of a task; a death of its process or computer is one."""
        errors = self._ray.exceptions
        try:
            return Outcome(**self._ray.get(task))
        except errors.RayTaskError as error:  # the package is not there, or another version of it
            return Outcome(FAILED, str(error).strip().splitlines()[-1])
        except errors.RayError as error:
            return Outcome(GONE, next(iter(str(error).strip().splitlines()), type(error).__name__))


def _task() -> Callable[[str, str, str, str], dict[str, Any]]:
    """The function of a task, made here so that it travels as it is: hosts import this package by other names."""

    def task(folder: str, name: str, module: str, make: str) -> dict[str, Any]:
        from importlib import import_module
        from pathlib import Path

        from histream_core.farm.work import work

        return vars(work(Path(folder), name, getattr(import_module(module), make)))

    return task


def _place_of(make: Make) -> tuple[str, str]:
    """The module of a function of this package, as a task imports it, and its name there."""
    host, _, _ = __name__.partition("histream_core.")
    return make.__module__.removeprefix(host), make.__name__


def environment(size: int) -> dict[str, str]:
    """Environment variables of the workers: where the package is, and their share of the CPU's cores."""
    paths = [str(PACKAGE), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, torch.get_num_threads() // size))
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "OMP_NUM_THREADS": threads}


@contextmanager
def open_workers(folder: Path, make: Make, *, address: str | None, workers: int | None) -> Iterator[RayWorkers]:
    """The workers of a Ray: the one that this process is connected to, that of `address`, or one that is started here.

    A Ray that was there before stays. Raises ModuleNotFoundError without Ray, and ValueError or OSError.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address or LOCAL, workers)
    try:
        most = _gpus(ray) or (workers or _cpus(ray))
        yield RayWorkers(ray, folder, make, min(workers or most, most))
    finally:
        if ours and ray.is_initialized():
            ray.shutdown()


def _connect(ray: Any, address: str, workers: int | None) -> None:
    """Start a Ray here, or connect to one. Raises OSError that says what to do."""
    about: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, **about)
    except Exception as error:  # of any class: a computer that is slow to start Ray is a bare Exception
        told = next(iter(str(error).strip().splitlines()), type(error).__name__)
        todo = "leave --address out" if address != LOCAL else "make the shots one by one with --workers 1"
        raise OSError(
            f"Ray cannot be reached at {address} ({told}): start it with ray start --head, or {todo}"
        ) from error


def _gpus(ray: Any) -> int:
    return int(ray.cluster_resources().get("GPU", 0))


def _cpus(ray: Any) -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))
