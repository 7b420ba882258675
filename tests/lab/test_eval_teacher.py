"""The tables' teacher, compared with that of the training."""

import pytest
import torch

from histream_core.demo.text import token_table
from histream_core.lab.judge.teacher import Solver, solve
from histream_core.network.model import WanConfig
from histream_core.plan.presets import find_preset
from histream_core.plan.schedule import warp
from histream_core.runs.weights import Weights
from histream_core.stream.noise import SeededNoise
from training.forward import Bidirectional
from training.forward import solve as solve_in_training
from training.network import Network
from training.protocol import Protocol

SIDE = 64
PRESET = find_preset("demo")
CONFIG = WanConfig(dim=64, ffn_dim=64, num_heads=2, num_layers=2, text_dim=64)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_the_teacher_is_the_one_that_training_has(guidance):
    """Seen to fail when guidance is left out, or the frames of a clip see only those before them."""
    torch.manual_seed(0)
    network = Network(CONFIG).requires_grad_(False)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    weights = Weights(network.model, None, PRESET, torch.device("cpu"), torch.float32)
    solver = Solver(steps=5, guidance=guidance, shift=3.0)
    plan = solver.plan(PRESET, size=(SIDE, SIDE), num_latent_frames=6)
    tokens = token_table(["a red circle moves up on a blue background", "a green square"])
    found = solve(weights, plan, network.encoder(tokens), SeededNoise(3), guidance)
    noise = SeededNoise(3)(0, 0, torch.Size((2, 16, 6, 8, 8)))
    flow = Bidirectional(network, Protocol(size=SIDE).ropes(CONFIG, "cpu"))
    sigmas = [warp(1 - index / 5, 3.0) for index in range(6)]
    wanted = solve_in_training(flow, noise, sigmas, tokens, guidance)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
