"""A live stream under the host's guider: its texts, Cancel, and what the node shows while it runs."""

import contextvars
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import comfy.model_management
import comfy.utils
import latent_preview
import numpy as np
import torch
from torch import Tensor

from ...histream_core.files.disk import NewName, under_new_name
from ...histream_core.live.devices import Device
from ...histream_core.live.engine import Engine, Watched
from ...histream_core.live.page import Speak
from ...histream_core.live.session import Cue
from ...histream_core.live.stage import LiveSettings, Recordings, Served, Stage, countable
from ...histream_core.network.forward import Text
from ...histream_core.plan.chunks import ENDLESS, Plan
from ...histream_core.plan.schedule import Scale
from ...histream_core.runs.describe import check_memory
from ...histream_core.stream.inputs import Inputs
from ...histream_core.stream.noise import Noise
from ...histream_core.stream.prompts import Prompt
from ...histream_core.stream.stream import Ask, Stream
from ...histream_core.stream.timeline import NEW_ANCHOR
from ...histream_core.video.formats import find_format
from ...histream_core.video.writers import Writer, frame_rate, open_writer
from . import log as host_log
from .backend import HostBackend
from .checks import check_conditioning
from .decode import SavedVideo, decode_bytes, output_names
from .preview import as_preview
from .run import HostRun
from .run_folders import name_of
from .sampler import PlannedSampler, guide
from .timeline import Timeline, timeline_of

LOOK_SECONDS, SHOW_SECONDS = 0.1, 1.0
"""Seconds between two looks at Cancel, and between two lines under the node."""

CPU = torch.device("cpu")
FOLDER, FORMAT = "histream/live", find_format("h264-mp4")
NO_CLIP = "the prompt stays as it is, but for the cues: connect the CLIP to the node Live to write others here"


def prompt_and_cues(positive: Sequence, width: int, words: str) -> tuple[Prompt, tuple[Cue, ...]]:
    """The prompt that a stream begins with, and the cues of a timeline. Raises ValueError for what is no plain prompt.

    `words`: the prompt as the artist wrote it.
    """
    timeline = timeline_of(positive)
    if timeline is None:
        [text] = Timeline((), (positive,)).texts(1, width)
        return Prompt(Text(text), words=words), ()
    for cue in timeline.cues:
        if cue.change.new_anchor:
            raise ValueError(
                f'"{cue.prompt[:60]}" asks for a new anchor, which a live stream has with a new scene alone: '
                f"write scene in its line, or leave {NEW_ANCHOR} out"
            )
    texts = timeline.texts(1, width)
    cues = tuple(Cue(cue.prompt, text, cue.change) for cue, text in zip(timeline.cues, texts, strict=True))
    return Prompt(Text(texts[0]), words=cues[0].words), cues


def speak_of(clip, width: int) -> Speak | str:
    """Encodes prompts beside a stream, on the CPU, so that no model of the stream is moved out.

    A sentence for the page where there is no CLIP.
    """
    if clip is None:
        return NO_CLIP
    if comfy.model_management.is_device_cpu(clip.patcher.load_device):
        clip.load_model()
    else:
        comfy.model_management.unload_model_and_clones(clip.patcher)
    one_at_a_time = threading.Lock()

    @torch.inference_mode()
    def speak(words: str) -> Tensor:
        with one_at_a_time:
            encoder = clip.cond_stage_model
            encoder.reset_clip_options()
            encoder.set_clip_options({"execution_device": CPU})
            text = encoder.encode_token_weights(clip.tokenize(words))[0]
        return check_conditioning([{"cross_attn": text.to(CPU)}], 1, width)

    return speak


class LiveFiles:
    """Recordings of a stream: the next new files under FOLDER in the host's output folder."""

    def __init__(self, device: Device, tags: Mapping[str, str]):
        """`tags` are stored in the files. Raises ValueError for a size or a rate that the files cannot have."""
        self._size, self._fps, self._tags = device.size, device.fps, tags
        FORMAT.check_size(device.size)
        frame_rate(device.fps, FORMAT)
        self._opened: list[SavedVideo] = []

    @property
    def saved(self) -> list[SavedVideo]:
        """The finished ones, in order."""
        return [video for video in self._opened if video.path.exists()]

    def open_next(self) -> tuple[Path, Writer]:
        """Open the next new file."""
        folder, subfolder, names = output_names(FOLDER, self._size, FORMAT)

        def open_new(path: Path) -> tuple[Path, Writer]:
            return path, open_writer(NewName(path), FORMAT, size=self._size, fps=self._fps, metadata=self._tags)

        path, writer = under_new_name((folder / name for name in names), open_new)
        self._opened.append(SavedVideo(path, subfolder, FORMAT))
        return path, writer


class Played(NamedTuple):
    """A stream that is over."""

    report: dict
    """Its numbers, as `LiveSession.report` tells them."""
    address: str
    """That of its page."""


@dataclass(frozen=True)
class Live:
    """A live stream of the host, ready to be played."""

    backend: HostBackend
    settings: LiveSettings
    speak: Speak | str
    files: LiveFiles
    record: bool
    """Whether it is recorded from its beginning."""

    def play(self) -> Played:
        """Let the stream run to its end.

        Raises ValueError for what cannot work, and the host's interruption after Cancel; what was recorded is whole.
        """
        plan = self.settings.plan
        check_memory(self.backend, countable(plan))
        shape = 1, 16, ENDLESS, *plan.grids[Scale.HIGH]
        vae_bytes = decode_bytes(self.backend.vae, shape, self.backend.speed)
        backend = replace(self.backend, vae_bytes=vae_bytes + self.backend.encode_bytes(countable(plan)))
        played: list[Played] = []

        def work(run: HostRun) -> None:
            played.append(self._play(run, backend))

        sampler = PlannedSampler(plan, work, shape, backend.kv, backend.speed, backend.vae_bytes)
        try:
            guide(backend.model, self.settings.prompt, sampler, vae=backend.vae)
        finally:
            recorded = "".join(f", recorded in {name_of(video.path)}" for video in self.files.saved)
            host_log.say(f"the live stream is over{recorded}")
            host_log.tell(f"over{recorded}")  # the page is gone, and so is its address
        return played[0]

    def _play(self, run: HostRun, backend: HostBackend) -> Played:
        """Play under the host's guider."""
        stage = Stage.set(engine_of(run, backend), self.settings)
        with Watch(stage) as watch:
            recordings = Recordings(self.files.open_next, at_once=self.record)
            stage.play(served=Served(self.speak, watch.tell_address), recordings=recordings)
            watch.check()
        return Played(stage.session.report(), watch.address)


def engine_of(run: HostRun, backend: HostBackend) -> Engine:
    """The host's weights as the engine of a live stream, within a run under its guider.

    On a CPU chunks are decoded beside the work on the next one. On any other device the work takes turns: the host
    moves weights there for one caller at a time.
    """
    where, turn = backend.decode_device, threading.Lock()
    apart = decodes_apart(where)

    def open_stream(plan: Plan, noise: Noise, prompts: Sequence[Prompt], watched: Watched, inputs: Inputs) -> Stream:
        stream = run.open_stream(plan, noise, prompts, watched, inputs=inputs, extra_bytes=backend.vae_bytes)
        if not apart:
            stream.denoise = in_turn(stream.denoise, turn)
        return stream

    waits = {} if apart else {"turn": turn}
    return Engine(open_stream, backend.encoded, backend.open_decoder(), where, apart, **waits)


def decodes_apart(device: torch.device) -> bool:
    """Whether chunks can be decoded there while the next one is sampled."""
    return comfy.model_management.is_device_cpu(device)


def in_turn(denoise: Ask, turn: threading.Lock) -> Ask:
    """A network call that is made while no other thread has its turn."""

    def call(*args):
        with turn:
            return denoise(*args)

    return call


class Watch:
    """Looks after a stream while it runs: shows it in the node, and stops it when the artist presses Cancel."""

    def __init__(self, stage: Stage):
        self._stage, self.address = stage, ""
        self._over, self._cancelled, self._mute = threading.Event(), False, False
        self._frame: np.ndarray | None = None
        self._bar = comfy.utils.ProgressBar(round(stage.settings.seconds or 1))
        stage.player.viewers.append(self._look)
        run = contextvars.copy_context().run  # which node it is
        self._thread = threading.Thread(target=run, args=(self._run,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def tell_address(self, address: str) -> None:
        """Tell where the page is."""
        self.address = address
        host_log.say(f"the page of the live stream is {address}")
        host_log.tell(address)

    def check(self) -> None:
        """Raise the host's interruption where the artist has pressed Cancel."""
        if self._cancelled:
            raise comfy.model_management.InterruptProcessingException
        comfy.model_management.throw_exception_if_processing_interrupted()

    def _look(self, frame: np.ndarray, _: float) -> None:
        self._frame = frame

    def _run(self) -> None:
        waited = 0.0
        while not self._over.wait(LOOK_SECONDS):
            waited += LOOK_SECONDS
            try:
                comfy.model_management.throw_exception_if_processing_interrupted()
            except comfy.model_management.InterruptProcessingException:
                self._cancelled = True
                self._stage.session.stop()
                return
            if waited >= SHOW_SECONDS:
                waited = 0.0
                self._try_to_show()

    def _try_to_show(self) -> None:
        """Show the stream in the node; Cancel works on where that fails."""
        try:
            self._show()
        except Exception as error:
            if not self._mute:
                host_log.say(f"the node cannot show the live stream, which goes on: {error}")
            self._mute = True

    def _show(self) -> None:
        report = self._stage.session.report()
        host_log.tell(f"{self.address}\n{line_of(report)}")
        frame, length = self._frame, self._stage.settings.seconds
        preview = None
        if frame is not None:
            picture = latent_preview.preview_to_image(torch.from_numpy(frame).float().div_(255), do_scale=False)
            preview = as_preview(picture)
        self._bar.update_absolute(round(min(report["seconds"], length)) if length else 0, preview=preview)


def line_of(report: dict) -> str:
    """The stream so far in one short line."""
    return (
        f"{report['fps']:.1f} frames a second, {report['p50']:.1f} s behind, {report['misses']} chunks late, "
        f"{report['dropped']} frames left out"
    )
