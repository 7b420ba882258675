"""`histream live`: a camera, an address or a file in, a restyled stream out, on time."""

from __future__ import annotations

import argparse
import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import cache, partial
from itertools import chain, count
from pathlib import Path
from statistics import median

from ... import demo
from ...files.disk import NewName, path_of, under_new_name
from ...lab.bench.cpu import STATM, resident_mb
from ...live.devices import Device
from ...live.lan import Lan, how_to_certify
from ...live.outputs import find_output, sending
from ...live.page import Speak
from ...live.session import Cue, Engine, LiveSession
from ...live.stage import PAGE, PAGE_SIZE, LiveSettings, Recordings, Served, Stage, countable, open_source
from ...network.forward import Text
from ...plan import Plan, PlanOptions, make_plan
from ...plan.chunks import ENDLESS
from ...runs.describe import check_memory, video_tags
from ...runs.restyle import size_for
from ...stream.noise import SeededNoise
from ...stream.prompts import Prompt
from ...video.formats import Format, find_format
from ...video.writers import Writer, frame_rate, open_writer
from ...weights.text_encoder import load_text_encoder
from ..options.adding import DEMO
from ..options.speed import speed_of
from ..options.weights import Source, find_source
from ..progress import print_notes
from .restyle import restyled_preset
from .videos import check_output

SETTLED, LOOKED_AT = 8, 16
"""Chunks after which the memory of a stream does not grow any more, and those whose largest memory is looked at."""


def run_live(args: argparse.Namespace) -> tuple[dict, str]:
    """Restyle a source while it plays. Ctrl-C ends it, and the recording is whole."""
    if args.seconds is not None and not args.seconds > 0:
        raise ValueError(f"{args.seconds:g} s are no stream: use 60, or leave --seconds out")
    if args.fps is not None:
        frame_rate(args.fps)
    SeededNoise(args.seed)  # refuses a seed that is none
    lan = find_lan(args)
    source = find_source(args, prompts_of(args), encodes=True)
    device = open_device(args)
    plan, format = plan_live(args, source, device), find_format(args.format, args.depth)
    if args.out:
        length = round((args.seconds or 60) * device.fps)
        check_output(args.out, format, size=device.size, fps=device.fps, num_frames=length, overwrite=args.overwrite)
    outputs = [(address, find_output(address, device.size, device.fps)) for address in args.send]
    weights, texts = source.load()
    weights = replace(weights, kv=args.kv, speed=speed_of(args))
    check_memory(weights, countable(plan), ignore=args.ignore_memory)
    print_notes(source.notes)
    prompt = Prompt(Text(texts[0]), words=args.prompt or "")
    cues = tuple(Cue(*one) for one in zip(args.cue, texts[1:], strict=True))
    settings = LiveSettings(plan, device, prompt, args.seed, args.budget, args.policy, args.seconds, cues)
    stage = Stage.set(Engine.of(weights), settings)
    memory = Memory(stage.session)
    stage.player.viewers.append(memory)
    sends = sending(outputs, stage.player.viewers, stage.clock, lambda line: print_notes([line]))
    with sends as senders, contextlib.suppress(KeyboardInterrupt):  # the usual end of a stream
        stage.play(served=served(args, lan), recordings=recordings(args, format, device))
    report = stage.session.report()
    result = {
        "source": args.source,
        "file": str(args.out.resolve()) if args.out and args.out.name in report["recordings"] else None,
        "preset": source.preset.name,
        "mode": args.mode,
        "policy": args.policy,
        "seed": args.seed,
        "width": device.size[0],
        "height": device.size[1],
        "source_fps": device.fps,
        "budget": args.budget,
        "outputs": [sender.report() for sender in senders],
        "memory_grown_mb": memory.grown,
        **report,
    }
    if result["recording_error"]:
        print_notes([sentence(result)])
        raise OSError(result["recording_error"])
    return result, sentence(result)


def sentence(result: dict) -> str:
    """The stream in one sentence."""
    recorded = [result["file"], *result["recordings"][1:]] if result["file"] else result["recordings"]
    sent = [f"; {one['sent']} sent to {one['address']}, {one['dropped']} left out" for one in result["outputs"]]
    return (
        f"{result['frames']} frames in {result['seconds']:.1f} s, {result['fps']:.2f} frames per second of "
        f"{result['source_fps']:g}; delay {result['p50']:.2f} s, at most {result['p95']:.2f} s for 95%; "
        f"{result['misses']} of {result['chunks']} chunks late, {result['dropped']} of "
        f"{result['arrived']} frames left out"
        + (f"; {result['ended']}" if result["ended"] else "")
        + (f"; recorded in {', '.join(recorded)}" if recorded else "")
        + "".join(sent)
    )


def open_device(args: argparse.Namespace) -> Device:
    """The source that --source names. Raises ValueError or OSError."""
    if args.source == PAGE and args.no_page:
        raise ValueError("the page is the source, and --no-page leaves it out: leave one out")
    page_size = (demo.WIDTH, demo.HEIGHT) if args.model == DEMO else PAGE_SIZE
    again = args.seconds is not None
    return open_source(args.source, fps=args.fps, size=args.size, again=again, page_size=page_size)


def plan_live(args: argparse.Namespace, source: Source, device: Device) -> Plan:
    """The plan without an end that restyles a device. Raises ValueError."""
    preset, restyle = restyled_preset(args, source.preset)
    options = PlanOptions(restyle=restyle, levers=speed_of(args).levers)
    return make_plan(preset, args.mode, size=size_for(*device.size), num_latent_frames=ENDLESS, options=options)


def prompts_of(args: argparse.Namespace) -> list[str]:
    """The prompt and the cues. Raises ValueError."""
    if args.cue and not args.prompt:
        raise ValueError("a cue is a prompt for later: give --prompt for the beginning")
    for cue in args.cue:
        if not cue.strip():
            raise ValueError("a cue is empty: give it words, or leave it out")
    return [args.prompt, *args.cue] if args.prompt else []


def find_lan(args: argparse.Namespace) -> Lan | None:
    """The address that --listen names. Raises ValueError or OSError."""
    if args.listen is None:
        if args.certificate or args.key:
            raise ValueError("--certificate and --key are for --listen ADDRESS: give it, or leave them out")
        return None
    if args.no_page:
        raise ValueError("--no-page leaves out what --listen serves: leave one out")
    if not (args.certificate and args.key):
        raise ValueError(
            "--listen needs --certificate and --key, as a browser gives its camera to a page with a certificate alone; "
            f"this makes both: {how_to_certify(args.listen)}"
        )
    return Lan.of(args.listen, args.certificate, args.key)


def served(args: argparse.Namespace, lan: Lan | None) -> Served | None:
    """The page, unless it is left out."""
    return None if args.no_page else Served(text_encoder(args), lambda address: print_notes([f"open {address}"]), lan)


def recordings(args: argparse.Namespace, format: Format, device: Device) -> Recordings:
    """The file that --out names, and new ones that the page asks for."""
    tags = video_tags([args.prompt or ""], [args.seed])

    def open_file(path: Path | NewName) -> tuple[Path, Writer]:
        return path_of(path), open_writer(path, format, size=device.size, fps=device.fps, metadata=tags)

    first = [args.out if args.overwrite else NewName(args.out)] if args.out else []

    def open_next() -> tuple[Path, Writer]:
        if first:
            return open_file(first.pop())
        own = Path(f"live-{datetime.now():%Y%m%d-%H%M%S}{'' if format.is_sequence else format.suffix}")
        return under_new_name(numbered(args.out or own), lambda path: open_file(NewName(path)))

    return Recordings(open_next, at_once=bool(first))


def numbered(path: Path) -> Iterator[Path]:
    """A name, and the same with a number behind it: live.mp4, live-2.mp4, live-3.mp4."""
    return chain([path], (path.with_stem(f"{path.stem}-{number}") for number in count(2)))


def text_encoder(args: argparse.Namespace) -> Speak | str:
    """An encoder of prompts on the CPU, loaded when it is needed; or a text that says why there is none."""
    if args.model == DEMO:
        return demo.load_text_encoder().encode
    if args.text_encoder is None:
        return "the prompt stays: give --text-encoder in the place of --embeds to change it"
    load = cache(partial(load_text_encoder, args.text_encoder, device="cpu"))
    return lambda prompt: load().encode(prompt).cpu()


class Memory:
    """A viewer that looks at the memory of the process, and keeps the largest of each chunk.

    A chunk's memory goes up and down while it is made, by more than a stream may grow.
    """

    def __init__(self, session: LiveSession):
        self._session = session
        self._chunk = 0
        self._newest: deque[float] = deque(maxlen=LOOKED_AT)
        self._settled: float | None = None

    def __call__(self, *_: object) -> None:
        chunk = self._session.chunks
        if chunk < SETTLED or not STATM.exists():
            return
        if chunk > self._chunk:
            self._chunk = chunk
            self._newest.append(0.0)
        self._newest[-1] = max(resident_mb(), self._newest[-1])
        if chunk < SETTLED + LOOKED_AT:
            self._settled = median(self._newest)

    @property
    def grown(self) -> float | None:
        """Megabytes from the first chunks after the stream had settled to the newest: half of them used so much more.

        None where the stream was too short, or that is not known.
        """
        if self._settled is None or self._chunk < SETTLED + LOOKED_AT:
            return None
        return round(median(self._newest) - self._settled, 1)
