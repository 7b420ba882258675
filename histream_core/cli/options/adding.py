"""Options that several verbs have, as they are added to a parser. Nothing heavy is loaded for `--help`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ...plan.presets import MODES, PRESETS
from ...plan.sharing import AUTO, SPLITS
from ...plan.sizes import FITS
from ...plan.storage import DTYPES
from ...video.formats import FORMATS, NAMES
from .common import add_overwrite, decimal, prompt_text, whole
from .memory import add_kv_option, add_memory_option
from .plans import add_anchor, add_guidance, add_histories
from .speed import add_speed_options

DEMO = "demo"


def parse_size(text: str) -> tuple[int, int]:
    """Width and height from "1920x1080"."""
    match = re.fullmatch(r"([0-9]{1,5})[xX*]([0-9]{1,5})", text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f'"{text[:40]}" is not WIDTHxHEIGHT: write it like 1920x1088')
    return int(match[1]), int(match[2])


def add_weight_options(verb: argparse.ArgumentParser) -> None:
    """Add the options that `find_source` reads."""
    verb.add_argument("--model", metavar="F", required=True, help='a Wan transformer, or "demo" for the bundled one')
    verb.add_argument(
        "--vae",
        metavar="F",
        type=Path,
        help="the Wan 2.1 VAE, a lighter one of its kind, or a TAEHV (taew2_1, lighttaew2_1)",
    )
    text = verb.add_mutually_exclusive_group()
    text.add_argument("--text-encoder", metavar="F", type=Path, help="a umt5_xxl file as ComfyUI uses it")
    text.add_argument(
        "--embeds", metavar="F", type=Path, help="text embeddings made earlier, instead of --text-encoder"
    )
    verb.add_argument("--prompt", metavar="P", type=prompt_text, help="what the video shows")
    verb.add_argument("--preset", metavar="NAME", help=f"how the weights are sampled: {', '.join(PRESETS)}")
    add_device_options(verb)
    verb.add_argument("--vae-device", metavar="D", help="where to decode (default: where the rest is)")


def add_device_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of device and dtype."""
    verb.add_argument("--device", metavar="D", default="auto", help="cuda, cuda:1, mps, cpu (default: a GPU if any)")
    verb.add_argument(
        "--dtype", choices=sorted(DTYPES), help="compute in this type (default: bf16 on a GPU, else fp32)"
    )


def add_engine_options(verb: argparse.ArgumentParser) -> None:
    """Add --gpus and --split."""
    verb.add_argument(
        "--gpus",
        metavar="N",
        type=whole,
        default=1,
        help="how many GPUs of this computer make the video, from --device on; on the CPU, processes (default: 1)",
    )
    listed = "; ".join(f"{name}: {what}" for name, what in SPLITS.items())
    verb.add_argument(
        "--split",
        choices=[AUTO, *SPLITS],
        default=AUTO,
        help=f"{AUTO}: the fastest, by prediction; {listed}; the same frames (default: {AUTO})",
    )


def add_size_options(
    verb: argparse.ArgumentParser, *, size: str | None = None, default: str = "", frames: int | str = 81
) -> None:
    """Add --size, which is `size` or else `default` as the caller explains it, and --frames.

    Frames in words are None, and the caller chooses their number.
    """
    shown = f"width x height (default: {size or default})"
    verb.add_argument("--size", metavar="WxH", type=parse_size, default=size, help=shown)
    given = frames if isinstance(frames, int) else None
    verb.add_argument("--frames", metavar="N", type=whole, default=given, help=f"4n + 1 (default: {frames})")


def add_run_options(verb: argparse.ArgumentParser, *, restyles: bool = False) -> None:
    """Add --mode, --seed, and the options of the output, which is positional for a verb that `restyles` a video."""
    modes = "; ".join(f"{name}: {what}" for name, what in MODES.items())
    verb.add_argument("--mode", metavar="M", default="histream", help=f"{modes} (default: histream)")
    verb.add_argument("--seed", metavar="N", type=whole, default=0, help="another number, another video (default: 0)")
    verb.add_argument("--format", metavar="F", default=FORMATS[0].name, help=f"{', '.join(NAMES)} (default: h264-mp4)")
    verb.add_argument("--depth", metavar="BITS", type=whole, help="bits for each channel (default: what is usual)")
    add_timeline(verb)
    if restyles:
        verb.set_defaults(review=False)
    else:
        add_first_frame(verb)
        add_draft(verb)
        add_review(verb)
    verb.add_argument("--sound", metavar="FILE", type=Path, help="a video or sound whose sound is copied in as it is")
    place = verb.add_mutually_exclusive_group()
    where = "where to write (default: a new name here)"
    if restyles:
        verb.add_argument("out", metavar="OUT", nargs="?", type=Path, help=where)
    else:
        place.add_argument("--out", metavar="FILE", type=Path, help=where)
    place.add_argument(
        "--run-dir", metavar="DIR", type=Path, help="keep every finished chunk in DIR, so that the run can be resumed"
    )
    add_overwrite(verb, "OUT" if restyles else "--out")
    verb.add_argument("--discard", action="store_true", help="on Ctrl-C remove the run instead of keeping it")
    add_section_files(verb)
    add_snapshots(verb)
    verb.add_argument(
        "--anchor-match",
        metavar="W",
        type=decimal,
        default=0.0,
        help="pull the colour and contrast of every chunk that far to those of its prompt's first one: 0 to 1, against "
        "slow drift (default: 0, not at all)",
    )
    add_anchor(verb)
    add_guidance(verb)
    add_histories(verb)
    add_kv_option(verb)
    add_memory_option(verb)
    add_engine_options(verb)
    add_speed_options(verb)


def add_restyle_options(verb: argparse.ArgumentParser) -> None:
    """Add the options that `restyled_preset` reads."""
    verb.add_argument(
        "--strength",
        metavar="S",
        type=decimal,
        help="the share of noise that it begins with: at 0.5 most of the picture stays, at 0.9 little more than the "
        "layout, at 1 nothing (default: that of the preset, 0.8)",
    )
    verb.add_argument(
        "--motion",
        metavar="SPAN",
        type=decimal,
        help="less noise where the source moves, by SPAN at most (default: that of the preset: 0.1 for "
        "StreamDiffusionV2's weights, as in the paper, else 0, everywhere the same)",
    )
    verb.add_argument(
        "--told",
        metavar="OFFSET",
        type=decimal,
        help="tell the network so much less noise than there is (default: that of the preset: 0.1 for "
        "StreamDiffusionV2's weights, else 0)",
    )
    verb.add_argument(
        "--steps",
        metavar="N",
        type=whole,
        help="how many of the preset's steps, for StreamDiffusionV2's weights: 1 to 4 (default: that of the preset)",
    )


def add_snapshots(verb: argparse.ArgumentParser) -> None:
    """Add --snapshots."""
    verb.add_argument(
        "--snapshots",
        metavar="N",
        type=whole,
        default=0,
        help="with a run's folder: keep the caches every N chunks and on Ctrl-C, to resume faster (default: never)",
    )


def add_draft(verb: argparse.ArgumentParser) -> None:
    """Add --draft."""
    verb.add_argument(
        "--draft",
        action="store_true",
        help="the steps at half resolution alone, as a video of half the size: what the seed makes, for a fraction of "
        "the work; the first chunk is as in the whole video before its steps at full resolution, later ones drift away",
    )


def add_upsampler(verb: argparse.ArgumentParser, *, kept: bool = False) -> None:
    """Add --upsampler; that of a run that is `kept` may lie elsewhere now."""
    what = (
        "where the upsampler is now (default: where it was)"
        if kept
        else (
            "a network that takes latents from half to full resolution in place of resizing them: Ultra Flash's "
            "latent_upsampler as a safetensors file (default: they are resized)"
        )
    )
    verb.add_argument("--upsampler", metavar="F", type=Path, help=what)


def add_review(verb: argparse.ArgumentParser) -> None:
    """Add --review."""
    verb.add_argument(
        "--review",
        action="store_true",
        help="with a run's folder: show each chunk after its steps at half resolution, and ask whether to keep it or "
        "to draw it again with another seed, before the steps at full resolution",
    )


def add_section_files(verb: argparse.ArgumentParser) -> None:
    """Add --section-files and --no-section-files."""
    verb.add_argument(
        "--section-files",
        action=argparse.BooleanOptionalAction,
        help="with a run's folder: each stretch of one prompt and one seed as a file of its own too, video.01.mp4, ...",
    )


def add_timeline(verb: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add --timeline."""
    verb.add_argument(
        "--timeline",
        metavar="T",
        type=prompt_text,
        help='several prompts and when they begin, a line each, like "[0:00-0:04] a cat", "[0:04, blend 3] a dog" or '
        '"[0:08, scene] a cow": a file, or the text itself',
    )


def add_first_frame(verb: argparse.ArgumentParser) -> None:
    """Add --first-frame, --extend-video, --fit and --hold-first-frame."""
    verb.add_argument("--first-frame", metavar="FILE", type=Path, help="a picture that the video begins with")
    verb.add_argument(
        "--extend-video",
        metavar="FILE",
        type=Path,
        help="a video of any origin to go on from: this one begins with its last frames, as many as the window holds",
    )
    verb.add_argument(
        "--whole",
        action="store_true",
        help="write all of the video that is extended first, as it is and with its sound, and the new frames behind it",
    )
    ways = "; ".join(f"{name}: {what}" for name, what in FITS.items())
    verb.add_argument(
        "--fit", choices=FITS, help=f"how first frames of another size are fitted: {ways} (default: crop)"
    )
    verb.add_argument(
        "--hold-first-frame",
        action="store_true",
        help="let it stand for the whole first chunk, for weights that never saw a chunk of one frame",
    )
