"""Options of a plan: what a chunk sees, and what a video is led away from."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...plan import Plan
from ...plan.anchoring import AnchorSource
from ...plan.guidance import Guidance
from ...plan.histories import CLEAN, HISTORIES
from ...plan.order import CHUNKS, ORDERS
from ...plan.positions import TemporalPolicy
from ...plan.sinks import SinkRule
from .common import decimal, whole

if TYPE_CHECKING:
    from torch import Tensor

    from ...stream.prompts import Prompt


def add_histories(verb: argparse.ArgumentParser) -> None:
    """Add --histories and --order."""
    listed = "; ".join(f"{name}: {what}" for name, what in HISTORIES.items())
    verb.add_argument("--histories", choices=[*HISTORIES], default=CLEAN, help=f"{listed} (default: {CLEAN})")
    listed = "; ".join(f"{name}: {what}" for name, what in ORDERS.items())
    verb.add_argument("--order", choices=[*ORDERS], default=CHUNKS, help=f"{listed} (default: {CHUNKS})")


def add_sinks(verb: argparse.ArgumentParser) -> None:
    """Add --sinks."""
    verb.add_argument(
        "--sinks",
        metavar="COSINE",
        type=decimal,
        help="let the frame of the anchor that is least like the newest one give way to it where the cosine of their "
        "mean latents is lower; for weights with chunks of one frame (default: the anchor stays)",
    )


def sink_rule(args: argparse.Namespace) -> SinkRule | None:
    """The rule that --sinks asks for; None without it. Raises ValueError."""
    return None if args.sinks is None else SinkRule(args.sinks)


def add_anchor(verb: argparse.ArgumentParser) -> None:
    """Add --span, --walking-anchor and --average-anchor."""
    verb.add_argument(
        "--span",
        metavar="N",
        type=whole,
        help="show the anchor no further behind a chunk than N latent frames, such as 3 (Infinity-RoPE; default: as "
        "far as the weights were trained for)",
    )
    one = verb.add_mutually_exclusive_group()
    one.add_argument(
        "--walking-anchor",
        metavar="N",
        type=whole,
        default=0,
        help="let the anchor walk over the first N latent frames and back as the video goes on, such as 9 (Rolling "
        "Sink; default: 0, it stands still)",
    )
    one.add_argument(
        "--average-anchor",
        metavar="SHARE",
        type=decimal,
        default=1.0,
        help="mix every frame that leaves the window into the anchor, which keeps this share of itself, such as 0.9 "
        "(an EMA sink; default: 1, nothing is mixed in)",
    )


def time_of(args: argparse.Namespace) -> TemporalPolicy | None:
    """The rule for times that --span asks for; None for that of the preset. Raises ValueError."""
    return None if args.span is None else TemporalPolicy(span=args.span)


def anchor_source(args: argparse.Namespace) -> AnchorSource:
    """The content of the anchor that the options ask for. Raises ValueError."""
    return AnchorSource(args.walking_anchor, args.average_anchor)


def add_guidance(verb: argparse.ArgumentParser, *, negative: bool = True) -> None:
    """Add --cfg and --nag, and --negative for a verb that makes a video."""
    verb.add_argument(
        "--cfg",
        metavar="X",
        type=decimal,
        default=1.0,
        help="classifier-free guidance, for weights that are not distilled, such as plain Wan: 3 to 6; twice the time "
        "and twice the memory of keys and values (default: 1, none)",
    )
    verb.add_argument(
        "--nag",
        metavar="X",
        type=decimal,
        default=1.0,
        help="normalized attention guidance, for few-step weights: 5 to 11; costs little (default: 1, none)",
    )
    if negative:
        verb.add_argument(
            "--negative",
            metavar="P",
            help="what the video shall not show, with --cfg or --nag (default with these: nothing named)",
        )


def guidance_of(args: argparse.Namespace) -> Guidance:
    """The guidance that the options ask for. Raises ValueError."""
    guidance = Guidance(cfg=args.cfg, nag=args.nag)
    negative = getattr(args, "negative", None)
    if negative is not None and not guidance.is_on:
        raise ValueError("--negative does nothing alone: give --nag 5 for few-step weights, or --cfg 5 for others")
    if guidance.is_on and getattr(args, "embeds", None):
        raise ValueError("--embeds holds one prompt, and guidance needs the negative one too: give --text-encoder")
    return guidance


def with_negative(args: argparse.Namespace, prompts: Sequence[str]) -> list[str]:
    """The prompts to encode, the negative one last where there is guidance; none where there are no prompts."""
    return [*prompts, args.negative or ""] if prompts and guidance_of(args).is_on else [*prompts]


def placed_texts(
    plan: Plan, texts: Sequence[Tensor], place: Callable[[Sequence[Tensor]], tuple[Prompt, ...]]
) -> tuple[Prompt, ...]:
    """The prompts that `place` makes of the embeddings of `with_negative`, with the negative one if it is there."""
    if not plan.guidance.is_on:
        return place(texts)
    from ...stream.prompts import led_away  # loads torch, which --help does without

    return led_away(place(texts[:-1]), texts[-1])
