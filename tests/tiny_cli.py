"""Tiny random weights as files, in the place of the bundled ones, for the tests of the command line."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from histream_core import demo
from histream_core.cli import main
from histream_core.demo.text import DemoTextEncoder
from histream_core.network.model import WanConfig, WanModel
from histream_core.vae.model import WanVAE

SIDE = 32
"""Pixels of a side of the demo's video."""

TOLD = {"config": json.dumps({"transformer": {"num_heads": 2}})}  # too narrow for heads of 128

RED, BLUE = "a red circle moves right", "a blue square moves up"
LENGTH = ["--seconds", "2"]
"""Three chunks of 9, 12 and 12 frames."""


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


def render_words(weights, *more):
    files = ["--model", weights / "wan.safetensors", "--vae", weights / "vae.safetensors"]
    return list(map(str, ["render", *files, "--embeds", weights / "embeds.safetensors", *more]))


def refusal_of(words, capsys):
    """The one line on standard error of a run that must end with status 2."""
    assert main(list(map(str, words))) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith("\n") and said.err.count("\n") == 1, said.err
    return said.err


def result_of(words, capsys, *, last=False):
    """The one JSON object on standard output of a run that must work; with `last` others may have written before."""
    assert main([*map(str, words), "--json"]) == 0
    out = capsys.readouterr().out
    assert last or out.count("\n") == 1
    return json.loads(out.splitlines()[-1])


def files_in(folder):
    return {path.name: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file() and path.name != "lock"}
