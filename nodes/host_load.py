"""Weights into the host: a checkpoint file or the bundled demo model become MODEL, CLIP and VAE."""

import comfy.sd
import comfy.utils
import torch
from torch import Tensor

from ..histream_core.checkpoint import check, guess_preset, read_checkpoint
from ..histream_core.presets import PRESETS
from . import host
from .settings import ModelSettings

WEIGHT_DTYPES = {"default": None, "fp8_e4m3fn": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}


def load_model(path: str, *, preset: str | None = None, weight_dtype: str = "default"):
    """A MODEL from any container that people have; `preset` None: what the file tells, else a guess.

    Raises CheckpointError, a ValueError of one sentence, for a file that is no complete Wan text-to-video model.
    """
    checkpoint = check(read_checkpoint(path), "wan")
    dtype = WEIGHT_DTYPES[weight_dtype]
    options = {} if dtype is None else {"dtype": dtype}
    preset = preset or guess_preset(checkpoint)
    model = to_model(dict(checkpoint.state_dict), dict(checkpoint.metadata), options)
    if PRESETS[preset].note:
        host.warn(f"preset {preset} ({PRESETS[preset].label}): {PRESETS[preset].note}")
    return host.attach(model, ModelSettings(preset=preset))


def to_model(weights: dict[str, Tensor], metadata: dict[str, str], options: dict):
    """A MODEL from Wan weights under their bare names; `weights` is emptied on the way."""
    model = comfy.sd.load_diffusion_model_state_dict(weights, model_options=options, metadata=metadata)
    if model is None:
        raise ValueError("ComfyUI does not know this model: update ComfyUI to 0.33 or later")
    return model
