"""Options of `histream demo` and `histream render`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from ... import demo
from ...demo.trained import world
from ...plan.sizes import FPS
from ..options.adding import add_run_options, add_size_options, add_upsampler, add_weight_options
from ..options.common import decimal, prompt_text
from . import Later

DEMO_SECONDS = 5.0

SIZE = 832, 480
"""Width and height of a rendered video, where nothing else is chosen."""


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add both verbs."""
    verb = verbs.add_parser(
        "demo",
        description=f"Make a {demo.WIDTH}x{demo.HEIGHT} video with the bundled model.",
        epilog=f"It was trained on {world()}. A note says what a prompt asks beyond that.",
    )
    verb.add_argument("prompt", metavar="PROMPT", nargs="?", type=prompt_text, help=f'default: "{demo.PROMPT}"')
    verb.add_argument("--seconds", metavar="S", type=decimal, default=DEMO_SECONDS, help="length (default: 5)")
    add_run_options(verb)
    verb.add_argument("--device", metavar="D", default="cpu", help="cuda, mps, cpu (default: cpu, which is enough)")
    verb.set_defaults(upsampler=None)
    verb.set_defaults(run=Later("videos", "run_demo"), check=Later("videos", "check_demo"))
    yield verb
    verb = verbs.add_parser("render")
    add_weight_options(verb)
    add_size_options(verb, default=f"{SIZE[0]}x{SIZE[1]}, or as --extend-video")
    verb.add_argument(
        "--fps", metavar="N", type=decimal, help=f"frames per second (default: {FPS}, or as --extend-video)"
    )
    add_upsampler(verb)
    add_run_options(verb)
    verb.set_defaults(run=Later("videos", "run_render"), check=Later("videos", "check_render"))
    yield verb
