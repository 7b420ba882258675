"""The trained network, a transformer and its text encoder, with its optimiser and moving average."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from histream_core.demo import TEXT_PATH, TRANSFORMER_PATH, load_text_encoder, load_transformer
from histream_core.demo.text import EMBEDDINGS, TEXT_DIM, DemoTextEncoder, words_of
from histream_core.demo.words import SHAPE_WORDS
from histream_core.network.forward import Text
from histream_core.network.model import WanConfig, WanModel
from training import processes
from training.checkpoint import read
from training.loop import Moment
from training.muon import Muon

DEMO = WanConfig(dim=256, ffn_dim=512, num_heads=2, num_layers=4, text_dim=TEXT_DIM)
AVERAGE_DECAY = 0.995
OPTIMISERS = ("adamw", "muon")
"""Muon learns more per step with a large batch, AdamW more per CPU second."""


class Network(nn.Module):
    """Transformer and text encoder; with `features`, also REPA's projection onto that many, for training only."""

    def __init__(self, config: WanConfig, features: int = 0, vocabulary: Sequence[str] = SHAPE_WORDS) -> None:
        super().__init__()
        self.config = config
        self.model, self.encoder = WanModel(config), DemoTextEncoder(vocabulary)
        nn.init.zeros_(self.model.head.head.weight)
        nn.init.zeros_(self.model.head.head.bias)
        if features:
            self.projection = nn.Sequential(
                nn.Linear(config.dim, config.dim), nn.SiLU(), nn.Linear(config.dim, features)
            )

    def text(self, tokens: Tensor) -> Text:
        """Text conditioning of captions [B, L]."""
        return Text(self.encoder(tokens))


class Trainee:
    """A network in training, with its optimiser and its moving average."""

    def __init__(self, network: Network, lr: float, optimiser: str = "adamw", *, bf16: bool = False) -> None:
        """Take one of OPTIMISERS; "muon" trains the matrices at `lr` and the rest by AdamW at a third of it.

        `bf16`: matrices are orthogonalised in bfloat16, which changes their updates by 2 or 3%.
        """
        self.network = network
        named = dict(network.named_parameters())
        muon = optimiser == "muon"
        matrices = {k for k, p in named.items() if muon and p.ndim == 2 and (".blocks." in k or "time_projection" in k)}
        self.others = [p for k, p in named.items() if k not in matrices]
        self.optimiser = Muon(
            [named[k] for k in named if k in matrices],
            self.others,
            lr=lr,
            other_lr=lr / 3 if muon else lr,
            dtype=torch.bfloat16 if bf16 else torch.float32,
        )
        self.average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.updates = 0

    def descend(self, loss: Tensor, moment: Moment) -> None:
        """Take one optimiser step on `loss`."""
        self.optimiser.zero_grad()
        loss.backward()
        processes.average_gradients(self.network.parameters())
        torch.nn.utils.clip_grad_norm_(self.others, 1.0)
        self.optimiser.scale_lr(moment.rate)
        self.optimiser.step()
        self.updates += 1
        decay = min(AVERAGE_DECAY, self.updates / (self.updates + 20))
        with torch.no_grad():
            now = self.network.state_dict()
            torch._foreach_lerp_(list(self.average.values()), [now[k] for k in self.average], 1 - decay)

    def state_dict(self) -> dict:
        return {
            "config": asdict(self.network.config),
            "now": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["now"])
        for name, value in self.average.items():
            value.copy_(state["average"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.updates = state["updates"]


def add_optimiser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--optimiser", choices=OPTIMISERS, default="adamw", help="of the network's matrices")


def begin(path: Path, features: int = 0, vocabulary: Sequence[str] = (), ffn_dim: int = 0) -> Network:
    """Load the averaged network of a run or its checkpoint, or of a folder of exported files; the rest is initialised.

    It knows the words of the checkpoint, and the rest of `vocabulary`, whose embeddings are new. With a larger
    `ffn_dim` feed-forward layers are that wide; what they compute is the same until the new units are trained. Raises
    ValueError for a smaller one.
    """
    run = path / "checkpoint.pt"
    config, average = _averaged(run) if run.exists() else _exported(path) if path.is_dir() else _averaged(path)
    if ffn_dim:
        config, average = _widened(config, average, ffn_dim)
    key = f"encoder.{EMBEDDINGS}"
    known = words_of(average[key])
    network = Network(config, features, max(known, tuple(vocabulary), key=len))
    mine = network.state_dict()
    average[key] = torch.cat([average[key], mine[key][len(known) + 1 :]])
    network.load_state_dict(mine | {name: w for name, w in average.items() if name in mine})
    return network


def _widened(config: WanConfig, weights: dict[str, Tensor], ffn_dim: int) -> tuple[WanConfig, dict[str, Tensor]]:
    """The network with wider feed-forward layers: new units read at random and write nothing yet."""
    if ffn_dim < config.ffn_dim:
        raise ValueError(f"its feed-forward layers have {config.ffn_dim} units: ask for more than that, not {ffn_dim}")
    wide = replace(config, ffn_dim=ffn_dim)
    fresh = Network(wide).state_dict()
    for name, old in weights.items():
        if ".ffn." in name and old.shape != fresh[name].shape:
            new = fresh[name].clone() if name.endswith("ffn.0.weight") else torch.zeros_like(fresh[name])
            new[tuple(slice(size) for size in old.shape)] = old
            weights = weights | {name: new}
    return wide, weights


def _averaged(path: Path) -> tuple[WanConfig, dict[str, Tensor]]:
    found = read(path)["network"]
    return WanConfig(**found["config"]), dict(found["average"])


def _exported(folder: Path) -> tuple[WanConfig, dict[str, Tensor]]:
    """Configuration and weights in the files that `training.export` writes."""
    model, encoder = load_transformer(folder / TRANSFORMER_PATH.name), load_text_encoder(folder / TEXT_PATH.name)
    parts = {"model": model.state_dict(), "encoder": encoder.state_dict()}
    return model.config, {f"{part}.{key}": w for part, weights in parts.items() for key, w in weights.items()}
