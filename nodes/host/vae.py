"""The decoder for a VAE of the host."""

import torch
from comfy.ldm.wan.vae import WanVAE as HostWanVAE
from torch import nn

from ...histream_core.plan.speed import DEFAULTS, Speed
from ...histream_core.vae import decoders
from ...histream_core.vae.model import WanVAE


def host_decoder(vae, speed: Speed = DEFAULTS, *, normalised: bool = True) -> decoders.Decoder:
    """The decoder for a VAE, as far as `speed` chooses one.

    A TAEHV in float16 the host takes for that of another model; here it is Wan's, which wants latents as sampled.
    """
    module = vae.first_stage_model
    return decoders.open_decoder(
        vae_module(vae),
        dtype=vae.vae_dtype,
        normalised=normalised,
        raw_latents=getattr(module, "latent_format", None) is None,
        channels_last=speed.vae_layout == "channels-last",
        strips=int(speed.vae_strips),
    )


def vae_module(vae) -> nn.Module:
    """The modules to decode with: the host's, or on a CPU core's own around the same weights, several times faster."""
    module = vae.first_stage_model
    if not isinstance(module, HostWanVAE) or vae.device.type != "cpu" or vae.vae_dtype != torch.float32:
        return module
    return WanVAE.from_state_dict(module.state_dict())
