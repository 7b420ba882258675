"""Start a live stream and look at its page in a headless browser: `README.md` says what that takes.

Run by hand: `python tests/browser/see_live.py [--pictures FOLDER]`.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import av

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from histream_core.demo.painter import Combination, paint  # noqa: E402
from histream_core.live.page import jpeg_of  # noqa: E402

SCRIPT = Path(__file__).with_suffix(".js")
SOURCE = Combination("circle", "red", "white", "right")
PROMPT = "a green square moves right on a white background"
CUES = (
    "a yellow triangle moves right on a white background",
    "a blue square moves right on a white background",
    "a purple circle moves right on a green background",
)
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/#\S+")
START = "import sys; from histream_core.cli import main; sys.exit(main())"
SECONDS = 120
"""Until a stream must have ended that was told to."""


def begin(folder: Path, size: str, fps: str) -> subprocess.Popen:
    """A stream whose source is its page; its recordings go to a folder."""
    command = [sys.executable, "-c", START, "live", "--model", "demo", "--source", "page", "--fps", fps]
    command += ["--size", size, "--strength", "0.9", "--prompt", PROMPT]
    for cue in CUES:
        command += ["--cue", cue]
    here = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=here, stderr=subprocess.PIPE, text=True)


def draw_camera(path: Path) -> Path:
    """Make what the fake camera shows, 30 pictures a second: a painted clip as JPEG pictures in a row."""
    frames = (255 * paint(SOURCE, [index * 16 / 30 for index in range(120)], training=False)).astype("uint8")
    path.write_bytes(b"".join(jpeg_of(frame) for frame in frames))
    return path


def address_in(stream: subprocess.Popen) -> str:
    """The address that it prints."""
    assert stream.stderr
    for line in stream.stderr:
        if found := ADDRESS.search(line):
            return found[0]
    raise SystemExit("the stream began no page")


def frames_in(path: Path) -> int:
    """The frames of a recording, all decoded."""
    with av.open(path) as file:
        return sum(1 for _ in file.decode(video=0))


def told(name: str, fine: bool, seen: object) -> bool:
    """Print a check, and say whether it is fine."""
    sys.stdout.write(f"{'ok  ' if fine else 'FAIL'} {name} ({seen})\n")
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, help="keep the screenshots in this folder")
    parser.add_argument("--fps", default="8", help="of the stream (default: 8)")
    parser.add_argument(
        "--size", default="256x256", help="of the stream (default: 256x256, which the model has learnt)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = (args.pictures or folder / "pictures").resolve()
        pictures.mkdir(parents=True, exist_ok=True)
        stream = begin(folder, args.size, args.fps)
        try:
            camera = draw_camera(folder / "camera.mjpeg")
            command = ["node", str(SCRIPT), address_in(stream), str(pictures), str(camera)]
            looked = subprocess.run(command).returncode
            _, said = stream.communicate(timeout=SECONDS)
        finally:
            stream.kill()
        fine = [
            looked == 0,
            told("the stream ends as it should", stream.returncode == 0, said.strip() or stream.returncode),
        ]
        recordings = sorted(folder.glob("live-*.mp4"))
        counts = {path.name: frames_in(path) for path in recordings}
        fine.append(told("the recording plays", len(counts) == 1 and min(counts.values()) > 16, counts))
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
