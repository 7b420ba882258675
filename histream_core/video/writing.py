"""A thread that encodes and writes while the next chunk is sampled, and the seconds that each stage takes."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from .pixels import Form, Leaving
from .writers import Frames, Writer

Note = Callable[[float], None]
"""Function that is passed the seconds of a block."""


@dataclass
class Times:
    """Seconds spent in each stage of a run. Denoising and decoding take turns; writing runs in parallel to both."""

    denoise: float = 0.0
    decode: float = 0.0
    write: float = 0.0
    """Work of the writer thread."""
    wait: float = 0.0
    """Time that the other two stages waited for the writer."""
    handed_frames: int = 0
    """Frames that the writer was given."""
    written_frames: int = 0
    """Frames among them that it has written."""
    write_began: float | None = None
    """When the writer began what it writes now, on the clock of `time.perf_counter`; None where it waits."""
    _unsettled: list[tuple[Note, torch.cuda.Event, torch.cuda.Event]] = field(default_factory=list, repr=False)

    @property
    def bottleneck(self) -> str:
        """The stage that limits the pace: "denoise", "decode" or "write"."""
        if self.write > self.denoise + self.decode:
            return "write"
        return "denoise" if self.denoise >= self.decode else "decode"

    @property
    def writing(self) -> float:
        """Seconds that the frames which are written now took so far; they are not in `write` yet."""
        began = self.write_began
        return 0.0 if began is None else time.perf_counter() - began

    @contextlib.contextmanager
    def count(self, work: str, *, device: torch.device | None = None, note: Note | None = None) -> Iterator[None]:
        """Add the seconds that a block takes to `work`, the name of a field, and pass them to `note`.

        A CUDA `device` finishes after the block, so its seconds are measured by events and added by `settle`.
        """

        def add(seconds: float) -> None:
            setattr(self, work, getattr(self, work) + seconds)
            if note:
                note(seconds)

        if device is not None and device.type == "cuda":
            with self._count_on(device, add):
                yield
            return
        start = time.perf_counter()
        try:
            yield
        finally:
            add(time.perf_counter() - start)

    def settle(self) -> None:
        """Wait for the devices to finish the counted blocks, and add their seconds."""
        for add, start, end in self._unsettled:
            end.synchronize()
            add(start.elapsed_time(end) / 1000)
        self._unsettled.clear()

    @contextlib.contextmanager
    def _count_on(self, device: torch.device, add: Note) -> Iterator[None]:
        stream = torch.cuda.current_stream(device)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(stream)
        yield
        end.record(stream)
        self._unsettled.append((add, start, end))


def _leaves(frames: Tensor) -> bool:
    """Whether frames have to leave a CUDA device, and are not bytes yet."""
    return frames.is_cuda and frames.is_floating_point()


class BackgroundWriter(Writer):
    """A writer in its own thread: `write` returns at once, unless `depth` calls are waiting already.

    An exception in the thread is raised by the next `write` or by `close`; frames still in the queue are dropped then,
    finished files stay. Frames leave their device in the form that the file has, which takes an eighth of their bytes;
    the caller's thread queues that, and the writer's waits for it.
    """

    def __init__(self, writer: Writer, *, depth: int = 2, times: Times | None = None) -> None:
        if depth < 1:
            raise ValueError(f"a queue of {depth} holds nothing: use 2")
        self.times = times or Times()
        self._writer, self._depth = writer, depth
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._pending: deque[Future[None]] = deque()
        self._broken = False

    @property
    def num_frames(self) -> int:
        """Frames written so far."""
        return self._writer.num_frames

    @property
    def finished(self) -> tuple[Path, ...]:
        return self._writer.finished

    @property
    def form(self) -> Form | None:
        return self._writer.form

    def write(self, frames: Frames) -> None:
        self._check(wait_for=0)
        with self.times.count("wait"):
            self._check(wait_for=len(self._pending) - self._depth + 1)
        if isinstance(frames, Tensor):
            form = self.form if _leaves(frames) else None
            frames = Leaving(frames.detach(), form) if form else frames.detach().cpu()
        self.times.handed_frames += len(frames)
        self._pending.append(self._thread.submit(self._work, frames))

    def _check(self, *, wait_for: int) -> None:
        """Wait for the oldest `wait_for` calls, and raise the exceptions of all finished ones."""
        while self._pending and (wait_for > 0 or self._pending[0].done()):
            wait_for -= 1
            error = self._pending.popleft().exception()
            if isinstance(error, Exception):
                raise error
            if error is not None:  # such as SystemExit, which would end the caller without a message
                raise RuntimeError(f"the thread that writes the video ended: {error!r}") from error

    def _work(self, frames: Frames) -> None:
        if self._broken:  # an earlier call failed: frames after a gap must not be written
            return
        self._broken = True
        self.times.write_began = time.perf_counter()
        with self.times.count("write"):
            self._writer.write(frames)
        self.times.write_began = None
        self.times.written_frames += len(frames)
        self._broken = False

    def _drain(self) -> None:
        with self.times.count("wait"):
            self._check(wait_for=len(self._pending))

    def _end(self) -> None:
        """Write the queue to its end and stop the thread; after an exception discard unfinished files."""
        try:
            self._drain()
        except BaseException:
            self.discard()
            raise
        self._thread.shutdown()

    def close(self) -> None:
        self._end()
        with self.times.count("write"):
            self._writer.close()

    def keep(self) -> Path | None:
        """Write the rest of the queue, then keep what was written (see `Writer.keep`)."""
        self._end()
        return self._writer.keep()

    def discard(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._pending.clear()
        self._writer.discard()

    def leave_unfinished(self) -> Path | None:
        return self._writer.leave_unfinished()
