"""Weights into the host: a checkpoint file or the bundled demo model become MODEL, CLIP and VAE."""

from dataclasses import replace
from typing import ClassVar

import comfy.model_management
import comfy.sd
import folder_paths
import torch
from torch import Tensor, nn

from ...histream_core import demo
from ...histream_core.demo.sentence import completions
from ...histream_core.demo.text import token_table
from ...histream_core.demo.trained import untrained
from ...histream_core.plan.presets import PRESETS
from ...histream_core.weights.checkpoint import read_checkpoint
from ...histream_core.weights.inspection import describe_wan, guess_preset
from ..settings import ModelSettings
from . import log as host_log
from . import sampler as host
from .second import set_second, split_sets
from .timeline import NOTES, STAGINGS

WEIGHT_DTYPES = {"default": None, "fp8_e4m3fn": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
DEMO_TOKENS = "histream_demo"
FOLDER = "diffusion_models"


def model_names(folder: str = FOLDER) -> list[str]:
    """The files in the host's folder of diffusion models, or of other ones."""
    return folder_paths.get_filename_list(folder)


def model_path(name: str, folder: str = FOLDER) -> str:
    """Where the file of that name lies."""
    return folder_paths.get_full_path_or_raise(folder, name)


def load_model(path: str, *, preset: str | None = None, weight_dtype: str = "default"):
    """A MODEL from any container that people have; `preset` None: what the file tells, else a guess.

    Raises CheckpointError, a ValueError of one sentence, for a file that is no complete Wan text-to-video model.
    """
    checkpoint = read_checkpoint(path, kind="wan")
    dtype = WEIGHT_DTYPES[weight_dtype]
    options = {} if dtype is None else {"dtype": dtype}
    preset = preset or guess_preset(checkpoint)
    sets = [to_model(part, dict(checkpoint.metadata), options) for part in split_sets(checkpoint.state_dict) if part]
    model = sets[0]
    if checkpoint.second:
        set_second(model, sets[1])
    for note in describe_wan(checkpoint):
        host_log.warn(note)
    if PRESETS[preset].note:
        host_log.warn(f"preset {preset} ({PRESETS[preset].label}): {PRESETS[preset].note}")
    return host.attach(model, ModelSettings(preset=preset, second=checkpoint.second))


def to_model(weights: dict[str, Tensor], metadata: dict[str, str], options: dict):
    """A MODEL from Wan weights under their bare names; `weights` is emptied on the way."""
    model = comfy.sd.load_diffusion_model_state_dict(weights, model_options=options, metadata=metadata)
    if model is None:
        raise ValueError("ComfyUI does not know this model: update ComfyUI to 0.33 or later")
    return model


def load_demo_model():
    """The bundled demo model as MODEL, CLIP and VAE; raises CheckpointError where its files are damaged."""
    model = load_model(str(demo.TRANSFORMER_PATH), preset=demo.PRESET)
    model = host.attach(model, replace(host.model_settings(model), demo=True))
    vae = comfy.sd.VAE(sd=dict(read_checkpoint(demo.VAE_PATH, kind="wan-vae").state_dict))
    return model, comfy.sd.CLIP(target=DemoTarget), vae


class DemoTokenizer:
    """Prompts to token numbers, in the form that the host hands them on."""

    def __init__(self, embedding_directory=None, tokenizer_data=None):
        pass

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs) -> dict:
        return {DEMO_TOKENS: token_table([text, *completions(text)]), NOTES: untrained([text])}

    def state_dict(self) -> dict:
        return {}


class DemoTextModel(nn.Module):
    """The demo's text encoder, as the host calls text encoders."""

    dtypes = frozenset({torch.float32})

    def __init__(self, device=None, dtype=None, model_options=None):
        super().__init__()
        self.encoder = demo.load_text_encoder().to(device)

    def encode_token_weights(self, tokens: dict) -> tuple[Tensor, None, dict]:
        """Embeddings [1, tokens, channels], on the CPU as the host keeps CONDITIONING; no pooled vector; options."""
        device = next(self.encoder.parameters()).device
        one_by_one = tokens[DEMO_TOKENS].to(device).split(1)  # a batch has other last bits than the command
        embedded = torch.cat([self.encoder(one) for one in one_by_one])
        embedded = embedded.to(comfy.model_management.intermediate_device())
        return embedded[:1], None, {NOTES: tuple(tokens.get(NOTES, ())), STAGINGS: embedded}

    def set_clip_options(self, options: dict) -> None:
        """There are none: layer and projection do not exist here."""

    def reset_clip_options(self) -> None:
        """See `set_clip_options`."""


class DemoTarget:
    """The target from which the host makes a CLIP."""

    clip = DemoTextModel
    tokenizer = DemoTokenizer
    params: ClassVar[dict] = {}
