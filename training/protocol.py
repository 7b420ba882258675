"""The engine's plans and steps for the network: a preset at the size that is trained."""

import argparse
from dataclasses import dataclass

import torch

from histream_core.network.model import WanConfig
from histream_core.network.ops.rope import Rope
from histream_core.plan.chunks import Plan
from histream_core.plan.make import PlanOptions, make_plan
from histream_core.plan.presets import PRESETS, find_preset
from histream_core.plan.schedule import Scale, Step

MODES = ("histream", "histream-plus")


@dataclass(frozen=True, slots=True)
class Protocol:
    """Preset, size and NTK factors; steps, time shifts and windows follow from the preset."""

    preset: str = "demo"
    size: int = 256
    """Pixels per side."""
    ntk_low: float | None = None
    ntk_high: float | None = None

    def plan(self, mode: str, num_latent_frames: int) -> Plan:
        return make_plan(
            find_preset(self.preset),
            mode,
            size=(self.size, self.size),
            num_latent_frames=num_latent_frames,
            options=PlanOptions(ntk_low=self.ntk_low, ntk_high=self.ntk_high),
        )

    @property
    def chunk_frames(self) -> int:
        return find_preset(self.preset).chunk_frames

    def grids(self) -> dict[Scale, tuple[int, int]]:
        return dict(self.plan(MODES[0], self.chunk_frames).grids)

    def ropes(self, config: WanConfig, device: str, also: tuple[int, ...] = ()) -> list[Rope]:
        """Rotary positions of the LOW and the HIGH grid as in the engine, and of plain grids of `also` cells a side."""
        plan = self.plan(MODES[0], self.chunk_frames)
        ntk = {(cells, cells): 1.0 for cells in also} | {grid: plan.ntk[scale] for scale, grid in plan.grids.items()}
        return [
            Rope(config.head_dim, (height // 2, width // 2), ntk=factor, device=device)
            for (height, width), factor in ntk.items()
        ]

    def rope(self, config: WanConfig, scale: Scale, grid: tuple[int, int], device: str) -> Rope:
        """Rotary positions of another grid of tokens with a scale's NTK factor."""
        factor = self.plan(MODES[0], self.chunk_frames).ntk[scale]
        return Rope(config.head_dim, grid, ntk=factor, device=device)

    def steps(self, modes: tuple[str, ...], scale: Scale, chunk: int) -> list[tuple[Step, bool]]:
        """Distinct steps of a chunk at a scale over all modes, each with whether it starts from a LOW estimate."""
        found = {}
        for mode in modes:
            steps = self.plan(mode, self.chunk_frames * (chunk + 1)).chunks[chunk].steps
            for before, step in zip((None, *steps), steps, strict=False):
                if step.scale is scale:
                    found[step] = before is not None and before.scale is not scale
        return sorted(found.items(), key=lambda item: -item[0].sigma)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", choices=PRESETS, default="demo", help="steps, shifts, window, NTK factors")
    parser.add_argument("--size", type=int, default=256, help="pixels a side at HIGH, at most the bank's")
    parser.add_argument("--ntk-low", type=float, help="NTK factor at LOW instead of the preset's")
    parser.add_argument("--ntk-high", type=float, help="NTK factor at HIGH instead of the preset's")


def from_arguments(args: argparse.Namespace) -> Protocol:
    return Protocol(args.preset, args.size, args.ntk_low, args.ntk_high)


def draw_sigma(uniform: torch.Tensor, shift: float) -> torch.Tensor:
    """Noise levels from uniform numbers: kept away from 0 and 1, then time-shifted."""
    sigma = 0.02 + 0.96 * uniform
    return shift * sigma / (1 + (shift - 1) * sigma)
