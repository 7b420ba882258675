"""The decoder for a VAE of the host."""

import torch
from comfy.ldm.wan.vae import WanVAE as HostWanVAE
from torch import nn

from ...histream_core.plan.speed import DEFAULTS, Speed
from ...histream_core.vae import Decoder, WanVAE, open_decoder


def open_host_decoder(vae, speed: Speed = DEFAULTS, *, normalised: bool = True) -> Decoder:
    """Open the decoder for a VAE, with the options of `speed`.

    The host takes a float16 TAEHV for that of another model and sets a latent format for it; here it is Wan's
    `taew2_1`, which takes normalised latents.
    """
    module = vae.first_stage_model
    return open_decoder(
        vae_module(vae),
        dtype=vae.vae_dtype,
        normalised=normalised,
        raw_latents=getattr(module, "latent_format", None) is None,
        channels_last=speed.vae_layout == "channels-last",
        strips=int(speed.vae_strips),
    )


def vae_module(vae) -> nn.Module:
    """The module to decode with: the host's, or on a CPU core's own with the same weights, which is faster."""
    module = vae.first_stage_model
    if not isinstance(module, HostWanVAE) or vae.device.type != "cpu" or vae.vae_dtype != torch.float32:
        return module
    return WanVAE.from_state_dict(module.state_dict())
