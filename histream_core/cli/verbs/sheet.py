"""`histream sheet`: one picture with a strip of frames for each setting, or for each prompt.

Not all settings of HiStream (arXiv 2512.21338) are published; the sheet shows which suit given weights.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from ... import demo
from ...demo.sentence import completed
from ...files.disk import under_new_name
from ...files.reading import read_text
from ...lab.charts import pick
from ...network.forward import Text
from ...plan.anchoring import AnchorSource, is_idle
from ...plan.chunks import Plan
from ...plan.draft import draft_of
from ...plan.make import make_plan
from ...plan.presets import Preset, of_base
from ...plan.schedule import Scale
from ...plan.sizes import pixel_frames
from ...runs.render import Order, collect
from ...runs.weights import Weights
from ...stream.noise import Noise, SeededNoise
from ...stream.prompts import Prompt
from ...video.pictures import crop_picture, write_png
from ..options.adding import DEMO
from ..options.common import check_files
from ..options.weights import find_source, prompt_list
from ..parsers.sheet import FRAMES, THIN
from ..progress import print_notes, progress_bar
from .videos import half_size, new_names, plan_video


@dataclass(frozen=True)
class Setting:
    """The settings of one strip."""

    drc: bool
    ntk: float
    shift: float
    scaled: bool

    @property
    def label(self) -> str:
        on = {True: "on", False: "off"}
        return f"DRC {on[self.drc]}  NTK {self.ntk:g}  shift {self.shift:g}  first-chunk scale {on[self.scaled]}"


SETTINGS = tuple(Setting(*values) for values in product((True, False), (1.0, 2.0, 5.0), (5.0, 7.0), (True, False)))
THIN_NTK = (2.3, 5.0, 10.0, 20.0)  # times the base: the ratio of the sides at 1080p, HiStream's value, CineScale's
THIN_RESIZE = ("area-down", "bilinear", "area")
THIN_ATTENTION = (1.0, 1.5, 1.88, 2.0)  # off, CineScale's two, and what ours is at 1080p
SHORT_SPAN = 3  # of Infinity-RoPE
WALK, SHARE = 9, 0.9  # of an anchor that walks, and of one that is an average
MAX_NTK_LOW = 2.0  # the method's value for 960x544, half of its largest size
SHIFT_LOW = 5.0  # the method's value in training
MAX_MOMENTS = 100
MAX_DRAFTS = 1000
COLUMNS = 2  # first-chunk scale on and off, side by side


def plan_setting(setting: Setting, preset: Preset, *, like: Plan) -> Plan:
    """The plan of one strip, with the length and size of `like`; the shift is for HIGH, LOW always has SHIFT_LOW."""
    width, height = like.size
    preset = replace(
        preset,
        ntk_high=setting.ntk,
        ntk_low=min(setting.ntk, MAX_NTK_LOW),
        shift_low=SHIFT_LOW,
        shift_high=setting.shift,
        scale_first_chunk=setting.scaled,
    )
    mode = "histream" if setting.drc else "full"
    return make_plan(preset, mode, size=(width, height), num_latent_frames=like.num_latent_frames)


def thin_plans(preset: Preset, like: Plan) -> list[tuple[str, Plan]]:
    """A label and a plan for every value of a setting with thin evidence; all else is as in `like`.

    NTK factors multiply the rotary base; the attention scale of the first chunk is CineScale's, ln(3600 c) / ln 3600.
    Settings that change nothing in such a plan are left out. Raises ValueError for a clip in which a span would show
    nothing.
    """
    window, high = like.window, Scale.HIGH
    moves = (
        bool(window.anchor_frames) and window.local_frames is not None
    )  # whether a span says where the anchor stands
    least = SHORT_SPAN + 2 * window.chunk_frames  # a chunk that begins behind the span
    if moves and like.num_latent_frames < least:
        raise ValueError(
            f"a span of {SHORT_SPAN} shows from latent frame {least} on: use --frames {pixel_frames(least)}, or more"
        )
    return [
        *((f"NTK {f:g} at HIGH", replace(like, ntk={**like.ntk, high: of_base(f)})) for f in THIN_NTK),
        *((f"resize {way}", replace(like, resize=way)) for way in THIN_RESIZE if len(like.grids) > 1),
        *(
            (f"first-chunk attention c {c:g}", replace(like, first_chunk_attention=math.log(3600 * c) / math.log(3600)))
            for c in THIN_ATTENTION
        ),
        *(
            (f"clamped, span {span}", replace(like, temporal=replace(like.temporal, span=span)))
            for span in (SHORT_SPAN, preset.span)
            if moves
        ),
        *(_other_anchors(like) if moves else ()),
    ]


def _other_anchors(like: Plan) -> Iterator[tuple[str, Plan]]:
    """Plans with an anchor that walks and with one that is an average, where the clip is long enough for that."""
    window = like.window
    walk = max(WALK, window.anchor_frames + (window.local_frames or 0))
    sources = {f"walks over {walk}": AnchorSource(walk=walk), f"an average, {SHARE:g}": AnchorSource(share=SHARE)}
    for name, source in sources.items():
        plan = replace(like, anchor_source=source)
        if not is_idle(plan):
            yield f"anchor {name}", plan


def run_sheet(args: argparse.Namespace) -> tuple[dict, str]:
    """Make the sheet; the file is rewritten after every strip."""
    from ...lab.charts.contact_sheet import contact_sheet

    if args.out and args.out.suffix.lower() != ".png":
        raise ValueError(f'"{args.out.name}" is not a name for a PNG file: use {args.out.stem or "sheet"}.png')
    if not 0 < args.moments <= MAX_MOMENTS:
        raise ValueError(f"a strip cannot have {args.moments} frames: use --moments 4, at most {MAX_MOMENTS}")
    if not 0 <= args.drafts <= MAX_DRAFTS:
        raise ValueError(f"{args.drafts} drafts cannot be shown: use --drafts 12, at most {MAX_DRAFTS}")
    if args.drafts and (args.prompts or args.settings == THIN):
        raise ValueError("--drafts shows one prompt in the preset's settings: leave --prompts and --settings out")
    if args.prompts and args.settings == THIN:
        raise ValueError("--prompts shows every prompt in the preset's settings: leave --settings out")
    check_files(args.out, overwrite=args.overwrite)
    prompts = _read_prompts(args.prompts) if args.prompts else prompt_list(args)
    words = _words(args, prompts)
    source = find_source(args, words)
    frames = FRAMES[args.settings] if args.frames is None else args.frames
    plan, notes = plan_video(source.preset, "histream", size=args.size, num_frames=frames)
    strips = _strips(args, source.preset, plan, prompts)
    weights, texts = source.load()
    shown = [(Prompt(Text(text)),) for text in texts]
    print_notes([*source.notes, *notes])
    orders = [(strip.label, Order(strip.plan, shown[strip.prompt], strip.noise)) for strip in strips]
    title = "  ".join([*([] if args.prompts else prompts), *([] if args.drafts else [f"seed {args.seed}"])])
    path, size = None, half_size(args.size) if args.drafts else args.size
    for done in make_strips(weights, orders, args.moments, size=size):
        sheet = contact_sheet(done, title=title, columns=COLUMNS)
        if path is None:
            path = _write_first(sheet, args)
        else:
            write_png(path, sheet)
    assert path is not None  # there is a strip
    result = {"file": str(path.resolve()), "prompts": prompts, "seed": args.seed, "strips": [s.label for s in strips]}
    return result, f"{result['file']}: {len(strips)} strips"


@dataclass(frozen=True)
class Strip:
    """One strip of a sheet: its label, and the clip that it shows."""

    label: str
    plan: Plan
    noise: Noise
    prompt: int = 0
    """The number of its prompt."""


def _seeds(args: argparse.Namespace) -> range:
    """The seeds of the strips, one after the other; that of all strips where they are no drafts."""
    return range(args.seed, args.seed + max(1, args.drafts))


def _words(args: argparse.Namespace, prompts: Sequence[str]) -> list[str]:
    """The prompts to encode: those of the demo model with what they leave open, as its videos of these seeds have."""
    if args.model != DEMO:
        return [*prompts]
    return [completed(prompt, seed) for prompt in prompts or [demo.PROMPT] for seed in _seeds(args)]


def _strips(args: argparse.Namespace, preset: Preset, plan: Plan, prompts: Sequence[str]) -> list[Strip]:
    """The strips that the options ask for; a draft of the demo model has words of its own. Raises ValueError."""
    noise = SeededNoise(args.seed)
    if args.prompts:
        return [Strip(prompt, plan, noise, index) for index, prompt in enumerate(prompts)]
    if args.drafts:
        draft, own = draft_of(plan), args.model == DEMO
        return [
            Strip(f"seed {seed}", draft, SeededNoise(seed), number if own else 0)
            for number, seed in enumerate(_seeds(args))
        ]
    if args.settings == THIN:
        return [Strip(label, one, noise) for label, one in thin_plans(preset, plan)]
    return [Strip(setting.label, plan_setting(setting, preset, like=plan), noise) for setting in SETTINGS]


def _write_first(sheet: np.ndarray, args: argparse.Namespace) -> Path:
    """Write the sheet of the first strip to --out or a new name, which is this process's from then on."""

    def write(path: Path) -> Path:
        write_png(path, sheet, overwrite=args.overwrite)
        return path

    return write(args.out) if args.out else under_new_name(new_names("histream-sheet", ".png"), write)


def make_strips(
    weights: Weights, orders: Sequence[tuple[str, Order]], moments: int, *, size: tuple[int, int]
) -> Iterator[list[tuple[str, list[np.ndarray]]]]:
    """Yield the list of all strips so far, (label, frames of `size`), after each strip; equal orders are made once."""
    strips: list[tuple[str, list[np.ndarray]]] = []
    for number, (label, order) in enumerate(orders):
        same = next((i for i in range(number) if _same(orders[i][1], order)), None)
        if same is None:
            with progress_bar(f"{number + 1}/{len(orders)} ") as report:
                frames = [crop_picture(frame, size) for frame in pick(collect(weights, order, report), moments)]
        else:
            label, frames = f"{label}  (= {same + 1})", strips[same][1]
        strips.append((f"{number + 1}  {label}", frames))
        yield strips


def _same(a: Order, b: Order) -> bool:
    return a.plan == b.plan and a.prompts is b.prompts and a.noise is b.noise


def _read_prompts(path: Path) -> list[str]:
    prompts = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not prompts:
        raise ValueError(f"{path} holds no prompt: write one on each line")
    return prompts
