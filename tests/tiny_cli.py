"""Tiny random weights as files, in the place of the bundled ones, for the tests of the command line."""

import json

import torch
from safetensors.torch import save_file

from histream_core import demo
from histream_core.demo.text import DemoTextEncoder
from histream_core.network.model import WanConfig, WanModel
from histream_core.vae.model import WanVAE

SIDE = 32
"""Of the demo's video, in pixels."""

TOLD = {"config": json.dumps({"transformer": {"num_heads": 2}})}  # too narrow for heads of 128


def write_weights(folder):
    """A transformer, a VAE, a text encoder and the embeddings of a prompt."""
    torch.manual_seed(0)
    model = WanModel(WanConfig(dim=64, ffn_dim=64, num_heads=2, num_layers=2, text_dim=64))
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.1)
    save_file(model.state_dict(), folder / "wan.safetensors", TOLD)
    save_file(WanVAE(dim=2).state_dict(), folder / "vae.safetensors")
    save_file(DemoTextEncoder().state_dict(), folder / "text.safetensors")
    save_file({"embeds": torch.randn(7, 64)}, folder / "embeds.safetensors")
    return folder


def bundle(monkeypatch, folder):
    """Let the demo take the weights in that folder, for a small video."""
    for name, file in (("TRANSFORMER", "wan"), ("VAE", "vae"), ("TEXT", "text")):
        monkeypatch.setattr(demo, f"{name}_PATH", folder / f"{file}.safetensors")
    monkeypatch.setattr(demo, "WIDTH", SIDE)
    monkeypatch.setattr(demo, "HEIGHT", SIDE)
