"""The node API of the host, imported only here and by version number, so that another version changes one line."""

from comfy_api.v0_0_2 import ComfyAPI, ComfyExtension, InputImpl, io, ui
from comfy_execution.graph_utils import ExecutionBlocker

__all__ = ["ComfyAPI", "ComfyExtension", "InputImpl", "blocked", "io", "ui"]

CATEGORY = "HiStream"

Schedule = io.Custom("HISTREAM_SCHEDULE")
"""Socket of a `nodes.settings.StepChoice`."""

Speed = io.Custom("HISTREAM_SPEED")
"""Socket of a `histream_core.plan.speed.Speed`."""

FirstFrame = io.Custom("HISTREAM_FIRST_FRAME")
"""Socket of a `nodes.host.first_frame.FirstFrame`."""

Range = io.Custom("HISTREAM_RANGE")
"""Socket of a `histream_core.video.edit.ranges.VideoRange`."""

VideoOutput = io.Custom("HISTREAM_VIDEO_OUTPUT")
"""Socket of a `nodes.settings.VideoChoice`."""


def blocked(message: str | None) -> ExecutionBlocker:
    """An output without a value: nodes that need it show `message`, or are skipped silently if it is None."""
    return ExecutionBlocker(message)
