"""A live stream: frames from a feed are restyled chunk by chunk, and shown on time, until the source ends.

Three threads beside the source's: the caller's encodes and calls the network, one decodes, one shows.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..network.forward import Text
from ..plan.chunks import Chunk, Plan
from ..plan.entry import Entry
from ..plan.order import CHUNKS
from ..plan.schedule import Step
from ..plan.sizes import pixel_frames
from ..runs.restyle import EncodedSource
from ..runs.weights import Weights
from ..stream.inputs import Inputs
from ..stream.noise import Noise
from ..stream.prompts import Prompt, blend_prompts
from ..stream.stream import Stream
from ..stream.timeline import BLENDS, Change
from ..vae.decode import to_frames
from ..vae.decoders import Decoder
from ..video.pixels import to_uint8
from ..video.writing import Times
from .budget import Budget, Choice, Cost, Measured, Spent, Target
from .clock import Clock
from .feed import LOOK_SECONDS, EndedError, Feed, unit
from .player import Player, Recorder

BLEND = Change("blend")
"""How a prompt takes over where nothing else is said."""

UNKNOWN = Cost(encode=1e-3, fixed=0.0, row=1e-3, decode=1e-3)
"""The cost before the first measurement, which takes its place: all is computed at first."""

REMEMBERED = 100
"""Lines of the log that are kept, the newest."""


class StoppedError(Exception):
    """The stream was stopped."""


@dataclass
class Watched:
    """Counts the seconds of network calls, and ends them where the stream was stopped."""

    stopped: threading.Event
    times: Times = field(default_factory=Times)

    def begin_call(self, step: Step) -> None:  # noqa: ARG002 - what a run's progress is told
        """End the stream before the call where it was stopped. Raises StoppedError."""
        if self.stopped.is_set():
            raise StoppedError("the stream was stopped")

    def end_call(self, step: Step) -> None:
        """Note nothing: the seconds are in `times`."""


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
        return cls(open_stream, weights.open_source, weights.open_decoder(), where, apart)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a stream is to be."""

    plan: Plan
    """Without an end, and restyling."""
    prompt: Prompt
    noise: Noise
    target: Target
    size: tuple[int, int]
    """Width and height of the picture; frames are cropped to it."""
    drops: bool = True
    """Whether frames of the source may be left out."""

    def ladder(self) -> tuple[Choice, ...]:
        """The choices of the budget: one frame of one, two, ..., each with the steps of the plan."""
        chunk = self.plan.chunks[1]
        most = self.target.most_every if self.drops else 1
        steps = max(1, len(chunk.steps))
        return tuple(Choice(CHUNKS, steps, every, len(chunk.frames)) for every in range(1, most + 1))


class _Made(NamedTuple):
    """A chunk on its way to the decoder."""

    index: int
    latent: Tensor
    captured: tuple[float, ...]
    rate: float


class _LiveSource:
    """A `Source` of a stream over the frames of a feed; notes when the frames of each chunk were captured."""

    def __init__(self, engine: Engine, plan: Plan, feed: Feed, clock: Clock):
        self._feed, self._clock, self._plan = feed, clock, plan
        self._frames: deque[Tensor] = deque()
        self._encoded = engine.open_source(iter(self._next, None), plan)
        self.captured: tuple[float, ...] = ()
        self.seconds = 0.0
        """Seconds that the last chunk took to encode."""

    def __call__(self, chunk: Chunk) -> tuple[Entry, Tensor]:
        """Wait for the frames of a chunk and encode them. Raises EndedError when there are none any more."""
        taken = self._feed.take(pixel_frames(chunk.frames.stop) - chunk.first_pixel_frame)
        self.captured = tuple(stamped.time for stamped in taken)
        began = self._clock()
        self._frames.extend(unit(taken))
        found = self._encoded(chunk)
        self._encoded.entries.clear()  # a stream without an end would have a curve without an end
        _finish(found[1].device)
        self.seconds = self._clock() - began
        return found

    def _next(self) -> Tensor | None:
        return self._frames.popleft() if self._frames else None


class LiveSession:
    """One live stream: `run` makes it, in the caller's thread; other threads speak to it meanwhile."""

    def __init__(self, engine: Engine, wanted: Wanted, feed: Feed, player: Player, clock: Clock):
        if not wanted.plan.endless or wanted.plan.order != CHUNKS:
            raise ValueError("a live stream needs a plan without an end, chunk after chunk: make one with ENDLESS")
        self.wanted = wanted
        self._engine, self._feed, self._player, self._clock = engine, feed, player, clock
        self._stopped = threading.Event()
        self._mailbox: deque[tuple[str, Tensor, Change]] = deque(maxlen=1)
        self._source = _LiveSource(engine, wanted.plan, feed, clock)
        self._measured = Measured(replace(UNKNOWN, apart=engine.apart))
        self._budget = Budget(wanted.target, self._measured.cost, wanted.ladder())
        self._decoding: float | None = None
        self._failed: list[BaseException] = []
        self._began = clock()
        self._chunk = 0
        self._words = wanted.prompt.words
        self.log: deque[str] = deque(maxlen=REMEMBERED)
        """Every change, with its second."""
        self.recorder: Recorder | None = None
        """Is given every frame, before it is shown."""

    @property
    def chunks(self) -> int:
        """Chunks that were sampled so far."""
        return self._chunk

    def say(self, words: str, text: Tensor, change: Change = BLEND) -> None:
        """Let the stream go over to another prompt at its next chunk; of several until then the newest counts."""
        self._mailbox.append((words, text, change))

    def stop(self) -> None:
        """End the stream before its next network call."""
        self._stopped.set()
        self._feed.end("the stream was stopped", drop=True)

    def pause(self, paused: bool) -> None:
        """Hold the picture, or go on."""
        self._feed.pause(paused)
        self._note("paused" if paused else "goes on")

    def run(self, *, threads: bool = True) -> None:
        """Make the stream until its source ends or it is stopped.

        Without `threads` a chunk is decoded before the next one is sampled, and the caller's clock shows the frames.
        Raises what went wrong in decoding, showing or recording.
        """
        made: queue.Queue[_Made | None] = queue.Queue(maxsize=1)
        work = (partial(self._decode_all, made), self._player.run) if threads else ()
        with _cores_for(2 if threads and self._engine.shares_cores else 1):
            self._run(made, work)

    def _run(self, made: queue.Queue[_Made | None], work: Sequence[Callable[[], None]]) -> None:
        workers = [threading.Thread(target=self._guarded, args=(one,), daemon=True) for one in work]
        for worker in workers:
            worker.start()
        try:
            for chunk in self._chunks():
                if not workers:
                    self._decode(chunk)
                elif not self._hand_over(made, chunk):
                    break
        except (EndedError, StoppedError) as ended:
            self._note(str(ended))
        except BaseException:
            self._stopped.set()
            raise
        finally:
            self._feed.end("the stream is over", drop=True)
            if workers:
                self._hand_over(made, None)
                workers[0].join()
            self._player.close(drop=self._stopped.is_set())
            for worker in workers:
                worker.join()
        if self._failed:
            raise self._failed[0]

    def report(self) -> dict:
        """The stream so far in honest numbers, as plain values."""
        choice = self._budget.choice
        return {
            **{name: round(value, 4) for name, value in asdict(self._player.report()).items()},
            **self._feed.report(),
            "seconds": round(self._clock() - self._began, 3),
            "chunks": self._chunk,
            "missed_chunks": list(self._player.missed),
            "every": choice.every,
            "steps": choice.steps,
            "chunk_seconds": self._stage_seconds(),
            "utilisation": round(self._budget.utilisation(self._measured.cost), 3),
            "prompt": self._words,
            "log": list(self.log),
        }

    def _stage_seconds(self) -> dict[str, float]:
        """Seconds that each stage takes for a chunk, as measured."""
        cost, choice = self._measured.cost, self._budget.choice
        calls = choice.steps * (cost.fixed + cost.row * choice.chunk_frames)
        stages = {"encode": cost.encode * choice.chunk_frames, "network": calls}
        stages["decode"] = cost.decode * choice.chunk_frames
        return {name: round(seconds, 3) for name, seconds in stages.items()}

    def _chunks(self) -> Iterator[_Made]:
        """Sample the chunks one by one, and choose after each what is computed for the next."""
        watched, plan = Watched(self._stopped), self.wanted.plan
        inputs = Inputs(source=self._source)
        stream = self._engine.open_stream(plan, self.wanted.noise, [self.wanted.prompt], watched, inputs)
        chunks, spent = stream.chunks(), 0.0
        while True:
            self._change_prompt(stream)
            latent = next(chunks)
            watched.times.settle()
            calls, spent = watched.times.denoise - spent, watched.times.denoise
            rate = self._budget.frame_rate(self._measured.cost)
            yield _Made(self._chunk, latent, self._source.captured, rate)
            self._choose(plan.chunks[self._chunk], calls)
            self._chunk += 1

    def _change_prompt(self, stream: Stream) -> None:
        """Let the prompt in the mailbox begin at the next chunk: by a blend that begins with what is seen now."""
        if not self._mailbox:
            return
        words, text, change = self._mailbox.popleft()
        self._words, first = words, self._chunk
        before = [prompt for prompt in stream.prompts if prompt.first_chunk < max(1, first)][-1].text.context
        blends = first > 0 and change.kind in BLENDS
        if blends and before.shape == text.shape:
            spherical = change.kind == "spherical"
            steps = blend_prompts(before, text, first_chunk=first, num_chunks=change.num_chunks, spherical=spherical)
            how = f"over {change.num_chunks} chunks"
        else:
            recache = first > 0 and change.kind == "recache"
            steps, how = [Prompt(Text(text), first, recache, words=words)], "at once"
            if blends:
                how = f"at once, as texts of {before.shape[1]} and {text.shape[1]} tokens cannot be blended"
        stream.change_prompts(steps)
        self._note(f'"{words}" begins at chunk {first}, {how}')

    def _choose(self, chunk: Chunk, calls: float) -> None:
        frames, before = len(chunk.frames), self._budget.choice
        each = calls / max(1, before.steps)
        spent = Spent(self._source.seconds / frames, ((frames, each),) * before.steps, self._decoding)
        self._measured.add(spent)
        choice = self._budget.choose(self._measured.cost)
        self._feed.adapt(choice.every, self._player.surplus())
        if choice != before:
            self._note(f"one frame of {choice.every} is used from chunk {self._chunk + 1} on")

    def _decode_all(self, made: queue.Queue[_Made | None]) -> None:
        while not self._failed:
            with contextlib.suppress(queue.Empty):
                chunk = made.get(timeout=LOOK_SECONDS)
                if chunk is None:
                    return
                self._decode(chunk)

    def _decode(self, chunk: _Made) -> None:
        """Decode a chunk a latent frame at a time, so that its first frames can be shown meanwhile."""
        shown, seconds = 0, 0.0
        for latent in chunk.latent.split(1, dim=2):
            if self._stopped.is_set() or shown == len(chunk.captured):
                return
            began = self._clock()
            pixels = to_frames(self._engine.decoder.decode(latent.to(self._engine.decode_device)))[0]
            frames = self._cropped(pixels[: len(chunk.captured) - shown])
            seconds += self._clock() - began
            captured = chunk.captured[shown : shown + len(frames)]
            if self.recorder:
                self.recorder.add(frames, captured)
            if not shown:
                self._player.chunk_ready(chunk.index, chunk.captured)
            self._player.add(frames, captured, chunk.rate)
            shown += len(frames)
        self._decoding = seconds / chunk.latent.shape[2]

    def _cropped(self, frames: Tensor) -> np.ndarray:
        """The picture of frames [F, H, W, 3], uint8: the edges that were drawn out are left out."""
        width, height = self.wanted.size
        top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
        return to_uint8(frames[:, top : top + height, left : left + width])

    def _hand_over(self, made: queue.Queue[_Made | None], chunk: _Made | None) -> bool:
        """Give a chunk to the decoder's thread as soon as that has room; False where a thread has failed."""
        while not self._failed:
            with contextlib.suppress(queue.Full):
                made.put(chunk, timeout=LOOK_SECONDS)
                return True
        return False

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do the work of a thread; an exception in it ends the stream."""
        try:
            work()
        except BaseException as error:  # raised again by `run`
            self._failed.append(error)
            self.stop()
            self._player.close(drop=True)

    def _note(self, what: str) -> None:
        self.log.append(f"{self._clock() - self._began:.1f} s: {what}")


def _finish(device: torch.device) -> None:
    """Wait until a device has done what it was given, so that its seconds can be told."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


@contextlib.contextmanager
def _cores_for(workers: int) -> Iterator[None]:
    """Give each of `workers` threads its share of the cores: with all cores each, they would wait for one another."""
    cores = torch.get_num_threads()
    torch.set_num_threads(max(1, cores // workers))
    try:
        yield
    finally:
        torch.set_num_threads(cores)
