"""Weight files to modules that are ready to run, recognised by their content; nothing in a file is ever executed.

`load_wan` and `load_vae` load a transformer and a VAE, `inspect` says what a file is, `guess_preset` which preset fits
it; `convert.convert` writes it for ComfyUI. Every problem is a `CheckpointError` of one sentence that says what to do.
"""

from .checkpoint import Checkpoint, read_checkpoint
from .errors import CheckpointError
from .inspection import guess_preset, inspect
from .loading import load_vae, load_wan

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "guess_preset",
    "inspect",
    "load_vae",
    "load_wan",
    "read_checkpoint",
]
