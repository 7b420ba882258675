"""The engine of a live stream: the weights that it is made with, and how its source and its calls are timed."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..plan.chunks import Chunk, Plan
from ..plan.entry import Entry
from ..plan.schedule import Step
from ..plan.sizes import pixel_frames
from ..runs.restyle import EncodedSource
from ..runs.weights import Weights
from ..stream.inputs import Inputs
from ..stream.noise import Noise
from ..stream.prompts import Prompt
from ..stream.stream import Stream
from ..vae.decode import Decoder, StreamingDecoder
from ..video.writing import Times
from .clock import Clock
from .feed import Feed, unit
from .intake import Stamped


class StoppedError(Exception):
    """The stream was stopped."""


@dataclass
class Watched:
    """Counts the seconds of network calls, and ends them where the stream was stopped."""

    stopped: threading.Event
    times: Times = field(default_factory=Times)
    """Those of the call that has begun: steps and clean passes have times of their own."""

    def __post_init__(self):
        self._steps, self._passes = self.times, Times()

    def begin_call(self, step: Step) -> None:
        """End the stream before the call where it was stopped. Raises StoppedError."""
        if self.stopped.is_set():
            raise StoppedError("the stream was stopped")
        self.times = self._steps if step.sigma else self._passes

    def measure_call(self, seconds: float) -> None:
        """Note nothing: the seconds are in `times`."""

    def end_call(self, step: Step) -> None:
        """Note nothing: the seconds are in `times`."""

    def settle(self) -> tuple[float, float]:
        """Seconds of all steps and of all clean passes so far."""
        self._steps.settle()
        self._passes.settle()
        return self._steps.denoise, self._passes.denoise


OpenStream = Callable[[Plan, Noise, Sequence[Prompt], Watched, Inputs], Stream]


@dataclass(frozen=True)
class Engine:
    """The weights that a stream is made with."""

    open_stream: OpenStream
    open_source: Callable[[Iterator[Tensor], Plan], EncodedSource]
    """Function that encodes frames [H, W, 3] in [0, 1]."""
    decoder: Decoder
    decode_device: torch.device
    apart: bool = False
    """Whether chunks are decoded beside the work on the next one, on a processor of their own."""
    turn: contextlib.AbstractContextManager = field(default_factory=contextlib.nullcontext)
    """Held while a chunk is encoded or decoded: a lock where the VAE must not work in two threads at once."""

    @property
    def shares_cores(self) -> bool:
        """Whether chunks are decoded beside other work on the cores of one CPU."""
        return self.apart and self.decode_device.type == "cpu"

    @classmethod
    def of(cls, weights: Weights) -> Engine:
        """The engine of bare weights. Cores of a CPU decode beside each other, a GPU is one processor."""

        def open_stream(
            plan: Plan, noise: Noise, prompts: Sequence[Prompt], watched: Watched, inputs: Inputs
        ) -> Stream:
            return weights.open_stream(plan, noise, prompts, progress=watched, inputs=inputs)

        where = weights.decode_device
        apart = where.type == "cpu" or where != weights.device
        decoder = weights.open_decoder()
        if isinstance(decoder, StreamingDecoder):
            decoder.use_threads(decoding_threads(where))
        return cls(open_stream, weights.open_source, decoder, where, apart)


class LiveSource:
    """A `Source` of a stream over the frames of a feed; notes when the frames of each chunk were captured."""

    def __init__(self, engine: Engine, plan: Plan, feed: Feed, clock: Clock):
        self._feed, self._clock, self._turn = feed, clock, engine.turn
        self._frames: deque[Tensor] = deque()
        self._encoded = engine.open_source(iter(self._next, None), plan)
        self._taken: Sequence[Stamped[Tensor]] = ()
        self.captured: tuple[float, ...] = ()
        self.complete = 0.0
        """When the last frame of the chunk was captured; of one that was cut short, when it would have been."""
        self.seconds = 0.0
        """Seconds that the chunk took to encode so far."""

    def __call__(self, chunk: Chunk) -> tuple[Entry, Tensor]:
        """Encode the frames that `wait` took."""
        with self._timed(self._taken):
            found = self._encoded(chunk)
            finish(found[1].device)
        self._encoded.entries.clear()  # a stream without an end would have a curve without an end
        return found

    def wait(self, chunk: Chunk, first: Chunk) -> bool:
        """Wait for the frames of a chunk, or of a `first` one; returns whether a scene begins with them.

        The first ones are encoded while the others are still to come. Raises EndedError when there are none any more.
        """
        count, anew = (pixel_frames(one.frames.stop) - one.first_pixel_frame for one in (chunk, first))
        ahead = self._encode_ahead(chunk, count)
        taken = self._feed.take(count, anew)
        self._taken = taken if self._feed.begins_scene else taken[ahead:]
        self.captured = tuple(stamped.time for stamped in taken)
        missing = (anew if self._feed.begins_scene else count) - len(taken)
        self.complete = self.captured[-1] + missing * _last_interval(self.captured)
        if self._feed.begins_scene:
            self._encoded.begin_again(iter(self._next, None))
        return self._feed.begins_scene

    def change_plan(self, plan: Plan) -> None:
        """Encode for another plan from the next chunk on."""
        self._encoded.change_plan(plan)

    def _encode_ahead(self, chunk: Chunk, whole: int) -> int:
        """Encode all latent frames of a chunk of `whole` frames but the last as they come; returns their frames."""
        self.seconds, ahead = 0.0, 0
        for stop in chunk.frames[1:]:
            count = pixel_frames(stop) - chunk.first_pixel_frame
            reserved = self._feed.reserve(count, whole)
            if reserved is None:
                break
            with self._timed(reserved[ahead:]):
                finish(self._encoded.encode_ahead(count - ahead))
            ahead = count
        return ahead

    @contextlib.contextmanager
    def _timed(self, frames: Sequence[Stamped[Tensor]]) -> Iterator[None]:
        """Have the VAE, and frames for it; its seconds are added to those of the chunk."""
        with self._turn:
            began = self._clock()
            self._frames.extend(unit(frames))
            yield
            self.seconds += self._clock() - began

    def _next(self) -> Tensor | None:
        return self._frames.popleft() if self._frames else None


def finish(device: torch.device) -> None:
    """Wait until a device has done what it was given, so that its seconds can be told."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


@contextlib.contextmanager
def cores_for(workers: int) -> Iterator[None]:
    """Give each of `workers` threads its share of the cores: with all cores each, they would wait for one another."""
    cores = torch.get_num_threads()
    torch.set_num_threads(max(1, cores // workers))
    try:
        yield
    finally:
        torch.set_num_threads(cores)


def decoding_threads(device: torch.device) -> int:
    """The threads to decode in.

    Two where `cores_for` leaves a single core for decoding: the other core is free now and then. Several cores share
    each layer already.
    """
    return 2 if device.type == "cpu" and 2 <= torch.get_num_threads() < 4 else 1


def _last_interval(times: Sequence[float]) -> float:
    """Seconds between the last two of `times`."""
    return times[-1] - times[-2] if len(times) > 1 else 0.0
