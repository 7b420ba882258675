"""VAEs of random weights: Wan's at a fraction of its width, and TAEHV."""

import torch

from histream_core.vae.model import WanVAE
from histream_core.vae.taehv import TAEHV


def make_vae(seed=0, **kwargs):
    torch.manual_seed(seed)
    vae = WanVAE(dim=4, **kwargs).requires_grad_(False).eval()
    for name, p in vae.named_parameters():
        if name.endswith("gamma"):
            p.add_(torch.randn_like(p) * 0.3)
    vae.decoder.head[2].weight.mul_(0.25)  # pixels about [-1, 1], as real ones are
    return vae


def make_taehv(*, raw_latents=False):
    torch.manual_seed(0)
    vae = TAEHV(widths=(8, 6, 4, 4), raw_latents=raw_latents).requires_grad_(False).eval()
    for p in vae.parameters():
        p.mul_(1.5)
    return vae
