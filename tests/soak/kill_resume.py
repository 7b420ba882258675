# ruff: noqa: T201
"""Kill a render of the demo model at random moments, resume it every time, and compare with one that was left alone.

    python tests/soak/kill_resume.py [--chunks 20] [--kills 10] [--format h264-mp4] [--seed 0]

Compared are the latents, the frames as they go to the encoder (float32, by hash), every segment and the video, byte
for byte; what was finished before a kill must be there unchanged after it, and each segment must play. Exit status 1
where anything differs.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from clips import probe  # noqa: E402

from histream_core.cli import main as histream  # noqa: E402
from histream_core.demo import FPS  # noqa: E402
from histream_core.runs import make as making  # noqa: E402

CHUNK_FRAMES = 12
WORK = "--work"


class Hashing:
    """A writer that notes what goes through it, a file for each chunk."""

    def __init__(self, writer, folder, first):
        self.writer, self.folder, self.next = writer, folder, first
        self.folder.mkdir(exist_ok=True)

    def __getattr__(self, name):
        return getattr(self.writer, name)

    def write(self, frames):
        digest = hashlib.sha256(frames.contiguous().numpy().tobytes()).hexdigest()
        path = self.folder / f"{self.next:05d}"
        if path.exists() and path.read_text() not in ("", digest):
            raise RuntimeError(f"the frames of chunk {self.next} are others than before")
        path.write_text(digest)
        self.next += 1
        self.writer.write(frames)


def work(words):
    """The command line itself, with an ear on the frames."""
    open_video_writer = making.open_video_writer

    def listening(journal, first, metadata=None):
        return Hashing(open_video_writer(journal, first, metadata), journal.folder / "rgb", first)

    making.open_video_writer = listening
    sys.exit(histream(words))


def call(words, folder=None, files=0, delay=0.0):
    """Run the command line in a process; True where it was killed, `delay` seconds after so many new files."""
    process = subprocess.Popen(
        [sys.executable, __file__, WORK, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if folder:
        wanted = len(names_in(folder)) + files
        while process.poll() is None and len(names_in(folder)) < wanted:
            time.sleep(0.05)
    try:
        _, said = process.communicate(timeout=delay if folder else None)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    if process.returncode:
        sys.exit(f"{' '.join(words)} failed: {said}")
    return False


def names_in(folder):
    """The files that a run has finished, checksums left out: a kill may come before one.

    Half written files have other names.
    """
    paths = [path for name in ("chunks", "segments", "rgb", "video") for path in (folder / name).rglob("*")]
    return [
        path
        for path in (*paths, *folder.glob("video.*"))
        if path.is_file() and not {".partial", ".sha256"} & set(path.suffixes)
    ]


def files_of(folder):
    """Those files with what is in them; a hash that was not written to its end is left out."""
    found = {path.relative_to(folder): path.read_bytes() for path in names_in(folder)}
    return {name: data for name, data in found.items() if data}


def check_kept(before, after, whole, attempt):
    """After a kill: nothing finished is gone or changed, and all of it is as in the run that was left alone."""
    for name in before:
        if after.get(name) != before[name]:
            sys.exit(f"kill {attempt}: {name} was finished and is gone or changed")
    for name, data in after.items():
        if data != whole.get(name):
            sys.exit(f"kill {attempt}: {name} differs from the run that was left alone")


def compare(files, whole):
    if files != whole:
        sys.exit(f"differ: {sorted({str(name) for name, _ in files.items() ^ whole.items()})}")


def check_plays(folder, names):
    for name in names:
        if name.parts[0] == "segments" and probe(folder / name).num_frames not in (9, CHUNK_FRAMES):
            sys.exit(f"{name} does not play to its end")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=20)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--format", default="h264-mp4")
    parser.add_argument("--snapshots", default="0")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as place:
        alone = Path(place) / "alone"
        seconds = str((CHUNK_FRAMES * args.chunks - 3) / FPS)
        words = ["demo", "--seconds", seconds, "--format", args.format, "--snapshots", args.snapshots, "--run-dir"]
        start = time.monotonic()
        call([*words, str(alone)])
        took = time.monotonic() - start
        whole = files_of(alone)
        print(f"left alone: {took:.0f} s, {len(whole)} files", flush=True)
        before, kills, runs = {}, 0, 1
        cut = Path(place) / "cut-1"
        while kills < args.kills:
            again = ["resume", str(cut), "--snapshots", args.snapshots]
            files, delay = chance.randint(0, 10), chance.uniform(0, took / args.chunks)
            killed = call(again if (cut / "manifest.json").exists() else [*words, str(cut)], cut, files, delay)
            if not killed:  # it came to its end: another one is for the kills that are left
                compare(files_of(cut), whole)
                before, runs = {}, runs + 1
                cut = Path(place) / f"cut-{runs}"
                continue
            kills += 1
            after = files_of(cut) if cut.exists() else {}
            check_kept(before, after, whole, kills)
            check_plays(cut, after.keys() - before.keys())
            counts = {name: sum(p.parts[0] == name for p in after) for name in ("chunks", "segments")}
            print(
                f"kill {kills} after {delay:.1f} s: {counts['chunks']} chunks, {counts['segments']} segments",
                flush=True,
            )
            before = after
        if (cut / "manifest.json").exists():
            call(["resume", str(cut)])
            check_kept(before, files_of(cut), whole, "none")
            compare(files_of(cut), whole)
        latents, frames = (sum(p.parts[0] == name for p in whole) for name in ("chunks", "rgb"))
        print(
            f"{kills} kills in {runs} runs of {args.chunks} chunks, {args.format}: {len(whole)} files equal byte for "
            f"byte, among them {latents} latents, the frames of {frames} chunks, and the video"
        )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if sys.argv[1:2] == [WORK]:
        work(sys.argv[2:])
    main()
