"""Draw the pictures that the template browser shows beside the workflows.

Run by hand with the Python that runs the host tests: `python tests/host/draw_thumbnails.py`. Those on the
demo model are run on a real server and their own frames are shown; the others get a diagram.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]  # behind the host's own modules

from clips import read_frames  # noqa: E402
from comfy_server import Server  # noqa: E402

SIZE = (600, 400)
SHARP = 2  # drawn larger and shrunk
DARK, PALE, DIM = (24, 26, 32), (240, 240, 245), (165, 170, 185)
LOW, HIGH, FAINT = (86, 140, 220), (240, 170, 70), (52, 56, 68)
EXTEND = "HiStream 06 Extend, retry, branch, resume"
RESTYLE = "HiStream 07 Restyle a video"
LIVE = "HiStream 08 Live camera"
RANGES = "HiStream 09 Video to an upscaler"
VIDEOS = {
    "HiStream 01 Try it now, no download": (
        "Try it now",
        "the demo model: no download, any computer",
        [('"a cat moves right over the meadow"', FAINT, 0, 1)],
    ),
    "HiStream 04 Long video to disk, prompt timeline": (
        "Long video to disk",
        "a prompt timeline, written while it is made",
        [("one scene", LOW, 0, 0.31), ("the next", HIGH, 0.31, 0.66), ("and a third", PALE, 0.66, 1)],
    ),
    "HiStream 05 Image to video": (
        "Image to video",
        "begins with a picture, and goes on from it",
        [('"a red circle moves down on a blue background"', FAINT, 0, 1)],
    ),
    EXTEND: (
        "Extend, retry, branch",
        "a run goes on: longer, with another seed, after a crash",
        [("a run", LOW, 0, 0.4), ("extended with another prompt", HIGH, 0.4, 1)],
        [("shared", LOW, 0, 0.12), ("another seed", FAINT, 0.12, 0.4)],
    ),
    "HiStream 10 Video to an editor": (
        "Out to an editor",
        "ProRes 422 HQ, written while it is made",
        [("video.mov, cuts.edl", PALE, 0, 1)],
        [("video.01.mov", LOW, 0, 0.4), ("video.02.mov", HIGH, 0.4, 1)],
    ),
    "HiStream 13 Several GPUs": (
        "Several GPUs",
        "one video by all of them, the same frames; without a GPU by processes",
        [("GPU 1", LOW, 0, 1)],
        [("GPU 2", HIGH, 0, 1)],
    ),
}
DIAGRAMS = {
    "HiStream 02 Text to 1080p video, Wan sampler": (
        "Text to 1080p",
        "HiStream: 2 + 2 steps in every chunk",
        [(2, 2)] * 4,
    ),
    "HiStream 03 Text to 1080p video, faster": (
        "Text to 1080p, faster",
        "HiStream+: 2 + 2 steps first, then 1 + 1",
        [(2, 2), *[(1, 1)] * 5],
    ),
}


class Card:
    """A dark card with a title, on which lengths are in pixels of the finished picture."""

    def __init__(self, title: str, subtitle: str):
        self.image = Image.new("RGB", [side * SHARP for side in SIZE], DARK)
        self._draw = ImageDraw.Draw(self.image)
        self.text((32, 26), title, 34, PALE)
        self.text((32, 76), subtitle, 17, DIM)

    def text(self, place, text: str, size: int, colour, *, middle: bool = False) -> None:
        font = ImageFont.load_default(size * SHARP)
        place = [x * SHARP for x in place]
        self._draw.text(place, text, font=font, fill=colour, anchor="mm" if middle else "la")

    def box(self, left: float, top: float, right: float, bottom: float, colour) -> None:
        self._draw.rounded_rectangle([x * SHARP for x in (left, top, right, bottom)], 4 * SHARP, fill=colour)

    def picture(self, place, side: int, frame) -> None:
        picture = Image.fromarray(frame).resize((side * SHARP, side * SHARP), Image.Resampling.LANCZOS)
        self.image.paste(picture, tuple(x * SHARP for x in place))

    def save(self, name: str) -> None:
        self.image.resize(SIZE, Image.Resampling.LANCZOS).save(ROOT / "workflows" / f"{name}.jpg", quality=88)


def draw_diagram(name: str, title: str, subtitle: str, chunks: list[tuple[int, int]]) -> None:
    card = Card(title, subtitle)
    for left, colour, what in ((32, LOW, "half"), (260, HIGH, "full")):
        card.box(left, 120, left + 16, 136, colour)
        card.text((left + 26, 120), f"step at {what} resolution", 14, DIM)
    left, base = 32, 330
    for index, (num_low, num_high) in enumerate(chunks, start=1):
        start = left
        for height, colour in [(32, LOW)] * num_low + [(120, HIGH)] * num_high:
            card.box(left, base - height, left + 24, base, colour)
            left += 28
        card.text(
            ((start + left - 4) / 2, base + 20), f"chunk {index}" if index == 1 else str(index), 13, DIM, middle=True
        )
        left += 14
    card.text((left + 12, base - 10), "...", 26, DIM, middle=True)
    card.save(name)


def draw_ranges() -> None:
    card = Card("Out to an upscaler", "range by range, as much as memory holds")
    for frame in range(18):
        left = 32 + 30 * frame
        card.box(left, 136, left + 24, 160, LOW if 6 <= frame < 12 else FAINT)
        card.box(left, 236, left + 24, 308, HIGH if frame < 12 else FAINT)
    card.text((32, 168), "the video", 14, DIM)
    card.text((32, 316), "the video, upscaled", 14, DIM)
    for left in (212, 386):
        card.box(left, 164, left + 2, 232, PALE)
    card.text((300, 198), "one run, one range", 15, PALE, middle=True)
    card.save(RANGES)


def draw_lora() -> None:
    card = Card("LoRA", "between the model and the sampler, each with its strength")
    boxes = [("Load Model", 140, LOW), ("LoRA 0.6", 140, HIGH), ("Sampler", 140, LOW)]
    left = 32
    for text, width, colour in boxes:
        card.box(left, 190, left + width, 250, colour)
        card.text((left + width / 2, 220), text, 17, DARK, middle=True)
        left += width + 58
        if left < 500:
            card.text((left - 29, 218), ">", 24, PALE, middle=True)
    card.save("HiStream 11 Wan LoRA")


def draw_custom_sampler() -> None:
    card = Card("In a graph of custom samplers", "beside BasicGuider and RandomNoise, the same video")
    rows = [("RandomNoise", LOW), ("BasicGuider", LOW), ("Anchor-Window (SAMPLER)", HIGH), ("Step Schedule", HIGH)]
    for row, (text, colour) in enumerate(rows):
        top = 122 + 62 * row
        card.box(32, top, 282, top + 46, colour)
        card.text((157, top + 23), text, 17, DARK, middle=True)
        card.text((303, top + 21), ">", 24, PALE, middle=True)
    card.box(324, 122, 568, 354, FAINT)
    card.text((446, 238), "SamplerCustomAdvanced", 17, PALE, middle=True)
    card.save("HiStream 12 Wan sampler in a custom graph")


def draw_video(name: str, title: str, subtitle: str, *bars: list[tuple], frames: list, fps: int = 16) -> None:
    """Three moments of a video, and under them bars of (text, colour, start, end) on its time line from 0 to 1."""
    card = Card(title, subtitle)
    for place, part in enumerate((0.1, 0.5, 0.9)):
        index = min(round(part * len(frames)), len(frames) - 1)
        left = 32 + 185 * place
        card.picture((left, 124), 166, frames[index])
        card.text((left + 83, 306), f"{index / fps:.1f} s", 14, DIM, middle=True)
    for row, bar in enumerate(bars):
        top, width = 326 + 32 * row, SIZE[0] - 64
        for text, colour, start, end in bar:
            left, right = 32 + start * width, 30 + end * width
            card.box(left, top, right, top + 26, colour)
            ink = PALE if colour == FAINT else DARK
            card.text(((left + right) / 2, top + 13), text, 14, ink, middle=True)
    card.save(name)


PAIRS = {
    RESTYLE: (
        "Restyle a video",
        "video to video: another look, every frame, place and motion kept",
        16,
        (0, 8, 16, 24),
    ),
    LIVE: ("Live", "a clip, or your camera, restyled while it plays", 12, (6, 12, 18, 24)),
}
"""Title, subtitle, frames a second, and the moments that are shown."""


def draw_pairs(name: str, source: list, restyled: list) -> None:
    """Four moments of a source, and the same ones restyled."""
    title, subtitle, fps, moments = PAIRS[name]
    card = Card(title, subtitle)
    for row, (frames, what) in enumerate(((source, "source"), (restyled, "restyled"))):
        top = 118 + 138 * row
        card.text((32, top + 52), what, 15, PALE)
        for place, index in enumerate(moments):
            card.picture((126 + 113 * place, top), 104, frames[index])
            if row:
                card.text((178 + 113 * place, top + 122), f"{index / fps:.1f} s", 14, DIM, middle=True)
    card.save(name)


def run_workflow(server: Server, name: str) -> list:
    """The frames of the longest video that a workflow writes, with its Extend Run awake."""
    from comfy_cli.workflow_to_api import convert_ui_to_api

    workflow = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        if name == EXTEND and node["type"] == "HiStreamExtendRun":
            node["mode"] = 0
    before = set(videos(server))
    run = server.run(convert_ui_to_api(workflow, server.get("/object_info")))
    if run.error:
        sys.exit(run.error)
    made = [path for path in videos(server) if path not in before]
    return list(read_frames(max(made, key=lambda path: path.stat().st_size)))


def videos(server: Server) -> list[Path]:
    return [path for path in (server.folder / "output").rglob("*") if path.suffix in (".mp4", ".mov")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--diagrams", action="store_true", help="only those that need no ComfyUI")
    parser.add_argument("--only", default="", help="videos whose name contains this")
    args = parser.parse_args()
    for name, diagram in DIAGRAMS.items():
        draw_diagram(name, *diagram)
    draw_ranges()
    draw_lora()
    draw_custom_sampler()
    if args.diagrams:
        return
    comfyui = Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser()
    with tempfile.TemporaryDirectory() as folder, Server(comfyui, ROOT, Path(folder) / "comfyui") as server:
        for name, words in ((name, words) for name, words in VIDEOS.items() if args.only in name):
            draw_video(name, *words, frames=run_workflow(server, name))
        for name in (name for name in PAIRS if args.only in name):
            restyled = run_workflow(server, name)
            source = max((server.folder / "temp").glob("histream_demo_video_*.mp4"))
            draw_pairs(name, list(read_frames(source)), restyled)


if __name__ == "__main__":
    main()
