from typing import Any

from . import io as io
from . import ui as ui

ComfyAPI: Any
ComfyExtension: Any
InputImpl: Any
