"""A live stream: frames from a feed are restyled chunk by chunk, and shown on time, until the source ends.

Three threads beside the source's: the caller's encodes and calls the network, one decodes, one shows.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..network.forward import Text
from ..plan.adjust import adjusted, step_counts, strength_of
from ..plan.chunks import Chunk, Plan
from ..plan.histories import check_recache
from ..plan.order import CHUNKS
from ..stream.inputs import Inputs
from ..stream.noise import Noise
from ..stream.prompts import Prompt, blend_prompts
from ..stream.stream import Stream
from ..stream.timeline import BLENDS, Change
from ..vae.decode import to_frames
from ..video.pixels import to_uint8
from .budget import Budget, Choice, Cost, Measured, Spent, Target
from .clock import Clock
from .engine import Engine, LiveSource, StoppedError, Watched, cores_for
from .feed import LOOK_SECONDS, EndedError, Feed
from .pacer import shown_rate
from .player import Player, Recorder

BLEND = Change("blend")
"""How a prompt takes over where nothing else is said."""

NO_JUMP = "a live stream cannot jump in time, as its plan stays: let the prompt change by a cut or a scene"

UNKNOWN = Cost(encode=1e-3, fixed=0.0, row=1e-3, decode=1e-3)
"""The cost before the first measurement, which takes its place: all is computed at first."""

REMEMBERED = 100
"""Lines of the log that are kept, the newest."""


@dataclass(frozen=True, slots=True)
class Cue:
    """A prompt that is ready before the stream begins."""

    words: str
    text: Tensor
    change: Change = BLEND


class Controls(NamedTuple):
    """The values of `LiveSession.adjust` that are in force."""

    strength: float
    steps: int | None
    """At most; None: as many as the plan has at this strength."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The description of a stream."""

    plan: Plan
    """Without an end, and restyling."""
    prompt: Prompt
    noise: Noise
    target: Target
    size: tuple[int, int]
    """Width and height of the picture; frames are cropped to it."""
    drops: bool = True
    """Whether frames of the source may be left out."""
    cues: tuple[Cue, ...] = ()

    def controls(self) -> Controls:
        """The controls as the plan has them."""
        return Controls(strength_of(self.plan), None)

    def ladder(self, controls: Controls | None = None) -> tuple[Choice, ...]:
        """The choices of the budget, the best first: frames are worth more than steps.

        One frame of one, two, ... is used, each with as many steps as were asked for, and with fewer.
        """
        plan = adjusted(self.plan, strength=(controls or self.controls()).strength)
        own = step_counts(plan)
        most = min(max(own[0], controls.steps), own[-1]) if controls and controls.steps else own[-1]
        every = range(1, (self.target.most_every if self.drops else 1) + 1)
        counts = range(most, own[0] - 1, -1)
        return tuple(Choice(CHUNKS, steps, one, plan.window.chunk_frames) for one in every for steps in counts)


class _Made(NamedTuple):
    """A chunk on its way to the decoder."""

    index: int
    latent: Tensor
    captured: tuple[float, ...]
    complete: float
    rate: float
    begins: bool
    """Whether it begins a scene, and is decoded as the first chunk of a video."""


class LiveSession:
    """One live stream: `run` makes it, in the caller's thread; other threads speak to it meanwhile."""

    def __init__(self, engine: Engine, wanted: Wanted, feed: Feed, player: Player, clock: Clock):
        if not wanted.plan.endless or wanted.plan.order != CHUNKS:
            raise ValueError("a live stream needs a plan without an end, chunk after chunk: make one with ENDLESS")
        self.wanted = wanted
        self._engine, self._feed, self._player, self._clock = engine, feed, player, clock
        self._stopped = threading.Event()
        self._mailbox: deque[tuple[str, Tensor, Change]] = deque(maxlen=1)
        self._source = LiveSource(engine, wanted.plan, feed, clock)
        self._measured = Measured(replace(UNKNOWN, apart=engine.apart))
        self._budget = Budget(wanted.target, self._measured.cost, wanted.ladder())
        self._decoding: float | None = None
        self._failed: list[BaseException] = []
        self._began = clock()
        self._chunk = self._scene = 0
        """The next chunk, and the one that its scene began with; the stream counts from there."""
        self._words = wanted.prompt.words
        self._controls = self._asked = wanted.controls()
        self._asking, self._recording = threading.Lock(), threading.Lock()
        self._own_recorder: Recorder | None = None
        self.log: deque[str] = deque(maxlen=REMEMBERED)
        """Every change, with its second."""
        self.recorder: Recorder | None = None
        """Is given every frame, before it is shown."""
        self.open_recorder: Callable[[], Recorder] | None = None
        """Opens a recording in a new file, each call in the next one; None: the stream cannot be recorded."""
        self.recordings: list[str] = []
        """The names of the files that were recorded, without folders."""
        self.ended = ""
        """Why the stream has ended."""
        self.recording_error = ""
        """The first reason why a recording could not be written to its end."""

    @property
    def chunks(self) -> int:
        """Chunks that were sampled so far."""
        return self._chunk

    def say(self, words: str, text: Tensor, change: Change = BLEND) -> None:
        """Let the stream go over to another prompt at its next chunk; of several until then the newest counts.

        With a scene nothing that came before is seen any more: pictures that wait are left out, where some may be.
        Raises ValueError for a jump in time, and for a recache of an anchor that cannot be computed anew.
        """
        if change.kind == "jump":
            raise ValueError(NO_JUMP)
        if change.kind == "recache":
            check_recache(self.wanted.plan)
        self._mailbox.append((words, text, change))
        if change.kind == "scene":
            self._feed.cut()

    def cue(self, index: int) -> None:
        """Say the cue of that number, counted from 0. Raises ValueError where there is none."""
        cues = self.wanted.cues
        if not 0 <= index < len(cues):
            which = f"there are {len(cues)}, from 0 on" if cues else "this stream has none"
            raise ValueError(f"there is no cue {index}: {which}")
        self.say(cues[index].words, cues[index].text, cues[index].change)

    def adjust(self, *, strength: float | None = None, steps: int | None = None) -> None:
        """Change from the next chunk on how far the source is changed, and the most steps; None: as it is.

        The share of noise is the top of the rule for motion, where there is one. Raises ValueError with what would
        work.
        """
        with self._asking:
            asked = self._asked
            plan = adjusted(self.wanted.plan, strength=asked.strength if strength is None else strength)
            adjusted(plan, steps=steps)
            self._asked = Controls(strength_of(plan), asked.steps if steps is None else steps)

    def record(self, on: bool) -> None:
        """Begin a recording in a new file, or end it. Raises ValueError or OSError where none can begin."""
        with self._recording:
            if on == (self.recorder is not None):
                return
            ended, self._own_recorder = self._own_recorder, None
            self.recorder = self._own_recorder = self._next_recorder() if on else None
        if ended:
            self._finish(ended)

    def _finish(self, recorder: Recorder) -> None:
        try:
            recorder.close()
        except Exception as error:  # the stream goes on without it, as in `_keep`
            self._break_off(recorder, error)
            return
        if recorder.seconds:
            self._note(f"has recorded {recorder.name}")
        else:
            self.recordings.remove(recorder.name)
            self._note(f"no picture came, so there is no {recorder.name}")

    def _keep(self, frames: np.ndarray, captured: Sequence[float]) -> None:
        """Record frames. Where they cannot be written the recording is over, and the stream goes on."""
        with self._recording:
            recorder = self.recorder
            if recorder is None:
                return
            try:
                recorder.add(frames, captured)
            except Exception as error:
                self.recorder = self._own_recorder = None
                self._break_off(recorder, error)

    def _break_off(self, recorder: Recorder, error: Exception) -> None:
        """Say why a recording ended early, and where it is."""
        self.recordings = [recorder.left if name == recorder.name else name for name in self.recordings]
        why = f"the recording ended early, {recorder.left} holds what was written: {error}"
        self.recording_error = self.recording_error or why
        self._note(why)

    def _next_recorder(self) -> Recorder:
        if self.open_recorder is None:
            raise ValueError("this stream has no place for recordings: start it with one")
        if self._feed.over:
            raise ValueError("the stream is over, so there is nothing to record: start another one")
        recorder = self.open_recorder()
        self.recordings.append(recorder.name)
        self._note(f"records {recorder.name}")
        return recorder

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
        Raises what went wrong in decoding or showing. A recording that cannot be written ends alone, and
        `recording_error` says why.
        """
        made: queue.Queue[_Made | None] = queue.Queue(maxsize=1)
        work = (partial(self._decode_all, made), self._player.run) if threads else ()
        with cores_for(2 if threads and self._engine.shares_cores else 1):
            self._run(made, work)

    def _run(self, made: queue.Queue[_Made | None], work: Sequence[Callable[[], None]]) -> None:
        workers = [threading.Thread(target=self.guarded, args=(one,), daemon=True) for one in work]
        for worker in workers:
            worker.start()
        try:
            for chunk in self._chunks():
                if not workers:
                    self._decode(chunk)
                elif not self._hand_over(made, chunk):
                    break
        except (EndedError, StoppedError) as ended:
            self.ended = str(ended)
            self._note(self.ended)
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
            self.record(False)
        if self._failed:
            raise self._failed[0]

    def report(self) -> dict:
        """The stream so far in honest numbers, as plain values."""
        choice, recorder = self._budget.choice, self.recorder
        counts = step_counts(adjusted(self.wanted.plan, strength=self._asked.strength))
        return {
            **{name: round(value, 4) for name, value in asdict(self._player.report()).items()},
            **self._feed.report(),
            "seconds": round(self._clock() - self._began, 3),
            "chunks": self._chunk,
            "missed_chunks": list(self._player.missed),
            "every": choice.every,
            "steps": choice.steps,
            "fewest_steps": counts[0],
            "most_steps": counts[-1],
            "strength": self._asked.strength,
            "chunk_seconds": self._stage_seconds(),
            "utilisation": round(self._budget.utilisation(self._measured.cost), 3),
            "prompt": self._words,
            "cues": [cue.words for cue in self.wanted.cues],
            "recording": recorder.name if recorder else None,
            "recorded_seconds": round(recorder.seconds, 3) if recorder else None,
            "recordings": list(self.recordings),
            "recording_error": self.recording_error,
            "ended": self.ended,
            "log": list(self.log),
        }

    def _stage_seconds(self) -> dict[str, float]:
        """Seconds that each stage takes for a chunk, as measured."""
        cost, choice = self._measured.cost, self._budget.choice
        calls = choice.steps * (cost.fixed + cost.row * choice.chunk_frames) + cost.passes * choice.chunk_frames
        stages = {"encode": cost.encode * choice.chunk_frames, "network": calls}
        stages["decode"] = cost.decode * choice.chunk_frames
        return {name: round(seconds, 3) for name, seconds in stages.items()}

    def _chunks(self) -> Iterator[_Made]:
        """Sample the chunks one by one, and choose after each what is computed for the next."""
        watched, wanted = Watched(self._stopped), self.wanted
        inputs = Inputs(source=self._source)
        stream = self._engine.open_stream(wanted.plan, wanted.noise, [wanted.prompt], watched, inputs)
        chunks, before = stream.chunks(), (0.0, 0.0)
        last: tuple[float, ...] = ()
        while True:
            begins = self._source.wait(stream.plan.chunks[self._index], stream.plan.chunks[0])
            if begins:
                self._begin_scene(stream)
                chunks = stream.chunks()
            self._change_prompt(stream)
            self._change_plan(stream)
            latent = next(chunks)
            watched.settle()
            captured = self._source.captured
            rate = shown_rate(self._budget.frame_rate(self._measured.cost), (*last, *captured))
            last = captured[-1:]
            yield _Made(self._chunk, latent, captured, self._source.complete, rate, begins)
            stream.remember()  # while the chunk is decoded, and the frames of the next one come
            now = watched.settle()
            steps, passes = (seconds - earlier for seconds, earlier in zip(now, before, strict=True))
            before = now
            self._choose(stream.plan.chunks[self._index], steps, passes)
            self._chunk += 1

    @property
    def _index(self) -> int:
        """The number of the next chunk in its scene."""
        return self._chunk - self._scene

    def _begin_scene(self, stream: Stream) -> None:
        """Let the stream begin again with the next chunk, under the prompt that it has, or was going over to."""
        self._scene = self._chunk
        stream.begin_again([replace(stream.prompts[-1], first_chunk=0, recache=False, share=1.0)])
        self._note(f"a scene begins at chunk {self._chunk}")

    def _change_plan(self, stream: Stream) -> None:
        """Let the next chunk be computed as the controls and the budget say."""
        asked = self._asked
        if asked != self._controls:
            self._controls = asked
            self._budget.offer(self.wanted.ladder(asked), self._measured.cost)
        plan = adjusted(self.wanted.plan, strength=asked.strength, steps=self._budget.choice.steps)
        if plan != stream.plan:
            stream.change_plan(plan)
            self._source.change_plan(plan)
            strength = f"strength {asked.strength:g}, " if asked.strength else ""
            self._note(f"{strength}{self._budget.choice.steps} steps from chunk {self._chunk} on")

    def _change_prompt(self, stream: Stream) -> None:
        """Let the prompt in the mailbox begin at the next chunk: by a blend that begins with what is seen now."""
        if not self._mailbox:
            return
        words, text, change = self._mailbox.popleft()
        self._words, first = words, self._index
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
        self._note(f'"{words}" begins at chunk {self._chunk}, {how}')

    def _choose(self, chunk: Chunk, steps: float, passes: float) -> None:
        """Choose what is computed for the next chunk, after one whose steps and clean passes took so many seconds."""
        frames, before, count = len(chunk.frames), self._budget.choice, len(chunk.steps)
        calls = ((frames, steps / count),) * count if count else ()
        decoding, self._decoding = self._decoding, None
        self._measured.add(Spent(self._source.seconds / frames, calls, decoding, passes / frames))
        # A chunk whose decoding took long counts once, also where the next one is not decoded yet.
        choice = before if decoding is None else self._budget.choose(self._measured.cost)
        self._feed.adapt(choice.every, self._player.surplus())
        if choice.every != before.every:
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
        if chunk.begins:
            self._engine.decoder.reset()
        shown, seconds = 0, 0.0
        for latent in chunk.latent.split(1, dim=2):
            if self._stopped.is_set() or shown == len(chunk.captured):
                return
            with self._engine.turn:
                began = self._clock()
                pixels = to_frames(self._engine.decoder.decode(latent.to(self._engine.decode_device)))[0]
            frames = self._cropped(pixels[: len(chunk.captured) - shown])
            captured = chunk.captured[shown : shown + len(frames)]
            self._keep(frames, captured)
            seconds += self._clock() - began  # waiting for a slow disk is work too: the next chunk is as late by it
            if not shown:
                self._player.chunk_ready(chunk.index, chunk.captured, chunk.complete)
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

    def guarded(self, work: Callable[[], None]) -> None:
        """Do the work of a thread; an exception in it ends the stream."""
        try:
            work()
        except BaseException as error:  # raised again by `run`
            self._failed.append(error)
            self.stop()
            self._player.close(drop=True)

    def _note(self, what: str) -> None:
        self.log.append(f"{self._clock() - self._began:.1f} s: {what}")
