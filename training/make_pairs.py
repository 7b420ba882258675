"""The teacher's clips with the noise they come from: python -m training.make_pairs --teacher F --bank F --out F

The teacher follows its ODE at LOW from noise to a clean clip; that is upsampled, re-noised to the first HIGH step of
the preset and followed to the end at HIGH, as Dual-Resolution Caching does. A killed run is resumed.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from histream_core.plan.schedule import Scale, warp
from histream_core.stream.resize import resize
from training import loop, protocol
from training.captions import PARTIAL_SHARE
from training.checkpoint import read, write
from training.data import CHANNELS, RESIZE
from training.forward import Bidirectional, Flow, solve
from training.network import begin
from training.protocol import MODES, Protocol
from training.rng import Rng
from training.scene_bank import load_bank, rows


def make_clips(
    flow: Flow, setting: Protocol, tokens: Tensor, noise: Tensor, rng: Rng, *, steps: int, guidance: float, shift: float
) -> Tensor:
    """Sample clean HIGH clips [B, C, T, G, G] from LOW noise [B, C, T, g, g], by `steps` Euler steps at each scale."""
    sigmas = [warp(1 - i / steps, shift) for i in range(steps + 1)]
    clean = solve(flow, noise, sigmas, tokens, guidance)
    upsampled = resize(clean, setting.grids()[Scale.HIGH], RESIZE)
    start = setting.steps((MODES[0],), Scale.HIGH, 0)[0][0].sigma
    noisy = torch.lerp(upsampled, rng.normal(*upsampled.shape), start)
    return solve(flow, noisy, [start * (1 - i / steps) for i in range(steps + 1)], tokens, guidance)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    protocol.add_arguments(parser)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--bank", type=Path, required=True, help="for its combinations")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--frames", type=int, default=9, help="as the teacher was trained")
    parser.add_argument("--ode-steps", type=int, default=16, help="Euler steps at LOW, and again at HIGH")
    parser.add_argument("--guidance", type=float, default=2.0, help="classifier-free guidance; 1: none")
    parser.add_argument("--shift", type=float, default=2.0, help="time shift of the ODE's noise levels at LOW")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args(argv)
    torch.set_flush_denormal(True)
    setting, bank = protocol.from_arguments(args), load_bank(args.bank)
    network = begin(args.teacher).to(args.device).requires_grad_(False)
    flow = Bidirectional(network, setting.ropes(network.config, args.device))
    low = setting.grids()[Scale.LOW]
    found = read(args.out) if args.out.exists() else {"combinations": [], "tokens": [], "noise": [], "latents": []}
    saved = time.monotonic()
    while (done := len(found["combinations"])) < args.count:
        rng = Rng(args.seed + done, args.device)
        chosen = [rng.choices.randrange(len(bank.combinations)) for _ in range(min(args.batch, args.count - done))]
        called = [bank.template(one, rng.choices, 0, PARTIAL_SHARE) for one in chosen]
        tokens = bank.captions(chosen, called).to(args.device)
        noise = rng.normal(len(chosen), CHANNELS, args.frames, *low)
        with loop.autocast(args):
            settings = {"steps": args.ode_steps, "guidance": args.guidance, "shift": args.shift}
            clips = make_clips(flow, setting, tokens, noise, rng, **settings)
        found["combinations"] += rows([bank.combinations[one] for one in chosen])
        new = {"tokens": tokens, "noise": noise.half(), "latents": clips.half()}
        for name, x in new.items():
            found[name] = torch.cat([found[name], x.cpu()]) if done else x.cpu()
        if time.monotonic() - saved >= loop.SAVE_EVERY or len(found["combinations"]) == args.count:
            write(args.out, found)
            saved = time.monotonic()
            print(f"{len(found['combinations'])}/{args.count}", flush=True)


if __name__ == "__main__":
    main()
