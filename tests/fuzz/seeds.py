"""Good files that the attack spoils: tiny weights, kept runs, media; and what each verb makes of an unspoilt run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from unittest.mock import patch

import torch
from clips import read_frames
from safetensors.torch import save_file
from sounds import sound_file
from tiny_cli import BLUE, RED, SIDE, write_weights
from tiny_vae import make_taehv
from tiny_weights import WEIGHTS, diffusers, prefixed

from histream_core import demo
from histream_core.cli import main
from histream_core.files import disk
from histream_core.network.forward import Denoiser
from histream_core.video.sound import pack_sound

STOP = 13
"""The network call at which the stopped runs were stopped: two of their three chunks are there."""
TWO = f"[0:00] {RED}\n[0:00.6, cut] {BLUE}"

INDEX = "wan.safetensors.index.json"
"""The name of an index of shards, of which all are one file."""

Words = Sequence[str | Path]
Files = dict[str, bytes]


class Seeds:
    """The files, made once in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.weights, self.runs, self.media = (self.root / name for name in ("weights", "runs", "media"))
        for folder in (self.weights, self.runs, self.media):
            folder.mkdir(parents=True)
        self.partials: set[str] = set()
        """Names under which verbs write what is not finished, in a folder "run" or beside it."""
        self._patches = contextlib.ExitStack()
        self._bundle(write_weights(self.weights))
        self._made: dict[tuple, Files] = {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self._write_media()
        self._write_runs()

    def _bundle(self, folder: Path) -> None:
        for name, file in (("TRANSFORMER", "wan"), ("VAE", "vae"), ("TEXT", "text")):
            self._patches.enter_context(patch.object(demo, f"{name}_PATH", folder / f"{file}.safetensors"))
        for side in ("WIDTH", "HEIGHT"):
            self._patches.enter_context(patch.object(demo, side, SIDE))

    def close(self) -> None:
        self._patches.close()
        self.listener.close()

    @property
    def port(self) -> int:
        return self.listener.getsockname()[1]

    def was_called(self) -> bool:
        """Whether somebody has connected to this machine since the last question."""
        with contextlib.suppress(BlockingIOError):
            self.listener.accept()[0].close()
            return True
        return False

    def _write_media(self) -> None:
        with _in(self.media):
            _say("demo", RED, "--seconds", "1", "--out", "clip.mp4")
            for name, codec in (
                ("sound.wav", "pcm_s16le"),
                ("sound.ogg", "libopus"),
                ("sound.m4a", "aac"),
                ("sound.flac", "flac"),
            ):
                sound_file(self.media / name, 1.2, codec)
            _say("demo", RED, "--seconds", "1", "--sound", "sound.m4a", "--out", "heard.mp4")
            _say("demo", RED, "--seconds", "1", "--format", "ffv1", "--out", "clip.mkv")
            _say("demo", RED, "--seconds", "0.5", "--format", "png8", "--out", "pictures")
            next(Path("pictures").iterdir()).rename("picture.png")
            shutil.rmtree("pictures")
            Path("packed.mka").write_bytes(pack_sound(self.media / "sound.m4a"))
            _remux(self.media / "clip.mp4", self.media / "clip.h264", "h264")

    def _write_runs(self) -> None:
        heard = ("--timeline", TWO, "--section-files", "--sound", self.media / "sound.m4a", "--format", "ffv1")
        self.starts: dict[str, tuple[Words, int | None]] = {
            "whole": (("demo", RED, "--seconds", "1"), None),
            "other": (("demo", BLUE, "--seconds", "1", "--seed", "5"), None),
            "cut": (("demo", RED, "--seconds", "2", "--snapshots", "9"), STOP),
            "pictures": (("demo", RED, "--seconds", "2", "--format", "png8"), STOP),
            "blue pictures": (("demo", BLUE, "--seconds", "2", "--seed", "5", "--format", "png8"), None),
            "heard": (("demo", "--seconds", "1", *heard), None),
        }
        with _in(self.runs), self._names_of_partials():
            for name, (words, stop) in self.starts.items():
                _say(*words, "--run-dir", "run", stop=stop)
                Path("run").rename(name)

    @contextlib.contextmanager
    def _names_of_partials(self) -> Iterator[None]:
        make = disk.File.__init__

        def noting(file: disk.File, path: Path, **how: bool) -> None:
            self.partials.add(str(path))
            make(file, path, **how)

        with patch.object(disk.File, "__init__", noting):
            yield

    @cached_property
    def checkpoints(self) -> dict[str, bytes]:
        """Files of weights by name, in several containers."""
        found = {path.name: path.read_bytes() for path in self.weights.iterdir()}
        for name, content in (
            ("bare.pt", WEIGHTS), ("ema.pt", {"generator_ema": prefixed("model.", WEIGHTS), "step": 3}),
            ("embeds.pt", {"embeds": torch.randn(7, 64, generator=torch.Generator().manual_seed(1))}),
        ):  # fmt: skip
            file = io.BytesIO()
            torch.save(content, file)
            found[name] = file.getvalue()
        for name, tensors in (("taehv.safetensors", make_taehv().state_dict()), ("diffusers.safetensors", diffusers())):
            save_file(tensors, self.root / name)
            found[name] = (self.root / name).read_bytes()
        found[INDEX] = json.dumps({"weight_map": dict.fromkeys(WEIGHTS, "wan.safetensors")}).encode()
        return found

    @cached_property
    def manifests(self) -> dict[bytes, str]:
        """The run that a manifest belongs to, by its bytes."""
        return {(self.runs / name / "manifest.json").read_bytes(): name for name in self.starts}

    def expected(self, name: str, *lines: Words) -> Files:
        """Everything that shows the video in "run", after these lines of words over that unspoilt run, one by one."""
        key = (name, *(tuple(map(str, words)) for words in lines))
        if key not in self._made:
            place = self.root / "made"
            place.mkdir()
            with _in(place):
                if name:
                    shutil.copytree(self.runs / name, "run")
                for words in lines:
                    _say(*words)
                self._made[key] = shown(place / str(_folder_of(lines[-1])))
            shutil.rmtree(place)
        return self._made[key]


def _folder_of(words: Words) -> str:
    """The folder whose video a verb writes."""
    return "new" if words[0] == "branch" else "run"


def shown(folder: Path) -> Files:
    """The files of a run that show its video, by relative path."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name.startswith("video")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if ".unfinished" not in path.suffixes}


def same_video(folder: Path, expected: Files) -> str:
    """The difference from the expected files; "" where all of them show the same frames."""
    found = shown(folder)
    if found == expected:
        return ""
    if missing := expected.keys() - found.keys():
        return f"{sorted(missing)} are missing"
    for name, data in expected.items():
        if found[name] != data and _frames(found[name]) != _frames(data):
            return f"{name} shows other frames"
    return ""


def _frames(data: bytes) -> list[bytes] | str:
    import av.error

    path = Path("frames.bin")
    try:
        path.write_bytes(data)
        return [frame.tobytes() for frame in read_frames(path)]
    except (ValueError, OSError, av.error.FFmpegError) as error:
        return str(error)
    finally:
        path.unlink(missing_ok=True)


def _remux(source: Path, target: Path, muxer: str) -> None:
    import av

    with av.open(str(source)) as clip, av.open(str(target), "w", format=muxer) as out:
        stream = out.add_stream_from_template(clip.streams.video[0])
        for packet in clip.demux(clip.streams.video[0]):
            if packet.size:
                packet.stream = stream
                out.mux_one(packet)


@contextlib.contextmanager
def _in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _say(*words: str | Path, stop: int | None = None) -> dict:
    """Run the command line, which must work, or be stopped at that network call; its JSON comes back."""
    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said), stopping(stop):
        status = main([*map(str, words), "--json"])
    if status != (0 if stop is None else 130):
        raise RuntimeError(f"{words}: {said.getvalue()}")
    return json.loads(printed.getvalue()) if status == 0 else {}


@contextlib.contextmanager
def stopping(call: int | None) -> Iterator[None]:
    """Ctrl-C at that network call."""
    denoise: Callable = Denoiser.__call__
    calls = iter(range(call if call is not None else 10**9))

    def counting(self: Denoiser, *args: object) -> object:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return denoise(self, *args)

    with patch.object(Denoiser, "__call__", counting):
        yield
