# ruff: noqa: T201
"""Render a long video with the demo model in a process of its own and watch its memory, open files and threads.

    python tests/soak/long_video.py [--frames 9601] [--run-dir DIR]

A line a minute; the last lines say whether resident memory stayed within 64 MB of what it was after the first minute,
and open files and threads did not grow. Exit status 1 where they did. Linux only: it reads /proc.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from histream_core.demo import FPS  # noqa: E402

MINUTE = 60
LOOK_SECONDS = 0.05
"""Between two looks: an encoder lives for a fraction of a second in each chunk, and every minute must see one."""
LIMIT_MB = 64
PROGRAM = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from histream_core.cli import main; sys.exit(main())"


def look(process):
    """Resident megabytes, open files and threads of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    return int(values["VmRSS"].split()[0]) / 1024, files, int(values["Threads"])


def watch(process, folder, seen):
    """Look often, say so every minute; keep the highest of each minute."""
    start, highest = time.monotonic(), (0.0, 0, 0)
    while process.poll() is None:
        time.sleep(LOOK_SECONDS)
        try:
            now = look(process)
        except (OSError, KeyError):  # it ended just now
            continue
        highest = tuple(map(max, highest, now))
        if time.monotonic() - start >= MINUTE * (len(seen) + 1):
            seen.append(highest)
            chunks = len(list((folder / "chunks").glob("?????.safetensors")))
            segments = len(list((folder / "segments").glob("seg-?????.mp4")))
            memory, files, threads = highest
            print(
                f"minute {len(seen)}: {chunks} chunks, {segments} segments; at most {memory:.0f} MB, {files} files, "
                f"{threads} threads",
                flush=True,
            )
            highest = (0.0, 0, 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=9601)
    parser.add_argument("--run-dir", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = args.run_dir or Path(place) / "run"
        words = ["demo", "--seconds", str(args.frames / FPS), "--run-dir", str(folder), "--json"]
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        seen = []
        try:
            watch(process, folder, seen)
            result = json.loads(process.communicate()[0])
        finally:
            process.kill()
    if len(seen) < 3:
        sys.exit(f"{len(seen)} minutes are too few to tell: ask for more --frames")
    base, later = seen[1], seen[2:]
    growth = [max(minute[i] for minute in later) - base[i] for i in range(3)]
    print(f"{result['frames']} frames, {result['s_per_frame']} s for each, first after {result['ttff_s']} s")
    print(
        f"after the first minute: memory {base[0]:.0f} MB, at most {growth[0]:+.0f} MB since; "
        f"files {base[1]}, at most {growth[1]:+d}; threads {base[2]}, at most {growth[2]:+d}"
    )
    sys.exit(growth[0] > LIMIT_MB or growth[1] > 0 or growth[2] > 0)


if __name__ == "__main__":
    main()
