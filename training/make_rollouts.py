"""Makes the student's own videos: python -m training.make_rollouts --student CHECKPOINT --bank F --out FILE

One video of each combination, made by the engine, and for each of its chunks the roll with which the true clip
continues the chunk before. `train_student --rollouts` learns from them to correct its own mistakes: an expert's labels
on the learner's states (DAgger, arXiv 1011.0686). True windows never show a degraded outline. A killed run is resumed.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from histream_core.plan.schedule import Scale
from training import loop, protocol
from training.checkpoint import read, write
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
    found = {"combinations": rows(bank.combinations), "seed": args.seed, "chunks": args.chunks, "batch": args.batch}
    parts = _begun(args.out, found)
    saved = time.monotonic()
    for turn, index in enumerate(torch.arange(len(bank.combinations), device=args.device).split(args.batch)):
        if turn < len(parts):
            continue
        rng, mode = Rng(args.seed + turn, args.device), args.modes[turn % len(args.modes)]
        plan = setting.plan(mode, setting.chunk_frames * args.chunks)
        tokens = bank.captions(index.tolist(), [bank.whole(one) for one in index.tolist()])
        clips = Clips(tokens, torch.empty(0), index=index, roll=torch.zeros(len(index), bank.axes, dtype=torch.long))
        made = rollout(student, plan, tokens, stream_noise(clips, rng), [None] * args.chunks, bf16=args.bf16).chunks
        rolls = [clips.roll]
        for chunk, latent in zip(plan.chunks[:-1], made, strict=False):
            clips = replace(clips, roll=bank.catch_up(clips, chunk.frames, latent))
            rolls.append(clips.roll)
        parts.append([torch.cat(made, dim=2).half().cpu(), torch.stack(rolls, dim=1).cpu()])
        print(f"{len(index) + args.batch * turn}/{len(bank.combinations)}", flush=True)
        if time.monotonic() - saved >= loop.SAVE_EVERY:
            write(_beside(args.out), found | {"parts": parts})
            saved = time.monotonic()
    latents, rolls = (torch.cat(part) for part in zip(*parts, strict=True))
    write(args.out, found | {"latents": latents, "rolls": rolls})
    _beside(args.out).unlink(missing_ok=True)


def _beside(out: Path) -> Path:
    """The file of the videos so far."""
    return out.with_suffix(".begun")


def _begun(out: Path, found: dict) -> list[list[Tensor]]:
    """Latents and rolls of the turns that a killed run has made. Raises ValueError for those of another run."""
    if not _beside(out).exists():
        return []
    before = read(_beside(out))
    if any(before[name] != value for name, value in found.items()):
        raise ValueError(f"{_beside(out)} has videos of another bank, seed or length: give another --out")
    return before["parts"]


if __name__ == "__main__":
    main()
