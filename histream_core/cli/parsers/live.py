"""Options of `histream live`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...live.budget import BUDGET
from ...live.intake import EVEN, POLICIES
from ...live.lan import FORMS
from ...plan.presets import MODES
from ...video.formats import FORMATS
from ..options.adding import add_restyle_options, add_weight_options, parse_size
from ..options.common import add_overwrite, decimal, whole
from ..options.memory import add_kv_option, add_memory_option
from ..options.speed import add_speed_options
from . import Later

MEASURED_SPEED = ("attention", "linears", "elementwise", "vae_layout")
"""Fields of `Speed` that a stream may choose."""


def add_to(verbs: Any) -> Iterator[argparse.ArgumentParser]:
    """Add the verb."""
    verb = verbs.add_parser("live", description="Restyle a camera, an address or a file while it plays.")
    verb.add_argument(
        "--source",
        metavar="S",
        required=True,
        help="camera:0, an address such as rtsp://HOST/NAME, a file, or page: a camera or a file of the browser",
    )
    add_weight_options(verb)
    add_restyle_options(verb)
    modes = "; ".join(f"{name}: {what}" for name, what in MODES.items())
    verb.add_argument("--mode", metavar="M", default="histream", help=f"{modes} (default: histream)")
    verb.add_argument("--seed", metavar="N", type=whole, default=0, help="another number, other details (default: 0)")
    verb.add_argument("--size", metavar="WxH", type=parse_size, help="scale and crop the source (default: as it is)")
    verb.add_argument("--fps", metavar="N", type=decimal, help="frames per second (default: those of the source)")
    verb.add_argument(
        "--budget",
        metavar="S",
        type=decimal,
        default=BUDGET,
        help="seconds from the last picture of a chunk until the chunk must be made (default: 1)",
    )
    listed = "; ".join(f"{name}: {what}" for name, what in POLICIES.items())
    verb.add_argument("--policy", choices=[*POLICIES], default=EVEN, help=f"{listed} (default: {EVEN})")
    verb.add_argument(
        "--cue",
        metavar="P",
        action="append",
        default=[],
        help="a button of the page: a prompt for later; may be repeated",
    )
    verb.add_argument("--no-page", action="store_true", help="serve no page, which shows the stream to this computer")
    verb.add_argument(
        "--listen", metavar="ADDRESS", help="serve the page to other computers, at this address or name of this one"
    )
    verb.add_argument("--certificate", metavar="PEM", type=Path, help="of the address, for --listen")
    verb.add_argument("--key", metavar="PEM", type=Path, help="of the certificate, without a passphrase")
    verb.add_argument("--seconds", metavar="N", type=decimal, help="end after so long; a file is repeated until then")
    verb.add_argument("--out", metavar="FILE", type=Path, help="record every frame that is made")
    verb.add_argument(
        "--send", metavar="ADDRESS", action="append", default=[], help=f"show it to another program too: {FORMS}"
    )
    verb.add_argument("--format", metavar="F", default=FORMATS[0].name, help="of --out (default: h264-mp4)")
    verb.add_argument("--depth", metavar="BITS", type=whole, help="bits for each channel (default: what is usual)")
    add_overwrite(verb, "--out")
    add_kv_option(verb)
    add_memory_option(verb)
    add_speed_options(verb, MEASURED_SPEED)
    verb.set_defaults(run=Later("live", "run_live"))
    yield verb
