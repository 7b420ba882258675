"""Makes the student's own videos: python -m training.make_rollouts --student CHECKPOINT --bank F --out FILE

One video of each combination, made by the engine, and for each of its chunks the roll with which the true clip
continues the chunk before. `train_student --rollouts` learns from them to correct its own mistakes: an expert's labels
on the learner's states (DAgger, arXiv 1011.0686). True windows never show a degraded outline.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from histream_core.plan.schedule import Scale
from training import protocol
from training.checkpoint import write
from training.data import Clips
from training.distill import stream_noise
from training.network import begin
from training.rng import Rng
from training.rollout import rollout
from training.scene_bank import load_bank, rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    protocol.add_arguments(parser)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--chunks", type=int, default=12)
    parser.add_argument("--batch", type=int, default=6, help="videos that are made at once")
    parser.add_argument("--modes", nargs="+", choices=protocol.MODES, default=list(protocol.MODES), help="in turn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args(argv)
    torch.set_flush_denormal(True)
    setting = protocol.from_arguments(args)
    bank = load_bank(args.bank, args.device, largest=setting.grids()[Scale.HIGH][0])
    student = begin(args.student).to(args.device).requires_grad_(False)
    found = {"combinations": rows(bank.combinations), "latents": [], "rolls": []}
    for turn, index in enumerate(torch.arange(len(bank.combinations), device=args.device).split(args.batch)):
        rng, mode = Rng(args.seed + turn, args.device), args.modes[turn % len(args.modes)]
        plan = setting.plan(mode, setting.chunk_frames * args.chunks)
        tokens = bank.captions(index.tolist(), [bank.whole(one) for one in index.tolist()])
        clips = Clips(tokens, torch.empty(0), index=index, roll=torch.zeros(len(index), bank.axes, dtype=torch.long))
        made = rollout(student, plan, tokens, stream_noise(clips, rng), [None] * args.chunks, bf16=args.bf16).chunks
        rolls = [clips.roll]
        for chunk, latent in zip(plan.chunks[:-1], made, strict=False):
            clips = replace(clips, roll=bank.catch_up(clips, chunk.frames, latent))
            rolls.append(clips.roll)
        found["latents"].append(torch.cat(made, dim=2).half().cpu())
        found["rolls"].append(torch.stack(rolls, dim=1).cpu())
        print(f"{len(index) + args.batch * turn}/{len(bank.combinations)}", flush=True)
    write(args.out, found | {name: torch.cat(found[name]) for name in ("latents", "rolls")})


if __name__ == "__main__":
    main()
