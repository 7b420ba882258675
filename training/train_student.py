"""Trains the causal student: python -m training.train_student --begin TEACHER --bank F --out DIR --minutes 40

Teacher forcing: chunks at the noise levels of the engine, with clean chunks of the same clip in the window
(`dit_forward`). With `--pairs` some clips are the teacher's own, together with the noise they came from (ODE pairs), so
that a step from pure noise has one answer. With `--videos` windows hold what the student itself has made meanwhile, and
the true clip continues from there. With `--restyle-share` some chunks begin with noise and another clip that moves
alike, as in video to video (paired entry).
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from histream_core.plan.schedule import Scale
from training import loop, protocol, repa
from training.changes import draw_changed
from training.data import Bank, Clips, Drawing, Pairs
from training.dit_forward import CHUNK
from training.forcing import CONTEXT_NOISE, LATEST, TeacherForcing
from training.forward import hidden_state
from training.network import Trainee, add_optimiser, begin
from training.rng import Rng
from training.scene_bank import SceneBank, load_bank
from training.train_teacher import add_drawing
from training.videos import Videos

FIRST_ALONE = 3
"""Factor on the batch of a step on the first chunk alone."""


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    loop.add_arguments(parser, lr=2e-3)
    protocol.add_arguments(parser)
    add_optimiser(parser)
    add_drawing(parser)
    parser.add_argument("--noise-coupled", action="store_true", help="the noise decides where a clip starts")
    parser.add_argument(
        "--begin", type=Path, required=True, help="checkpoint of a teacher or student, or folder of exported files"
    )
    parser.add_argument(
        "--ffn-dim", type=int, default=0, help="units of a feed-forward layer, more than it begins with; 0: as many"
    )
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, help="file of training.make_pairs")
    parser.add_argument("--pairs-share", type=float, default=0.5, help="part of the steps on pairs, where given")
    parser.add_argument("--videos", type=int, default=0, help="videos of its own that go on while it trains; 0: none")
    parser.add_argument("--videos-share", type=float, default=0.7, help="part of the later chunks that continue them")
    parser.add_argument("--longest", type=int, default=24, help="most chunks of such a video")
    parser.add_argument(
        "--restyle-share", type=float, default=0.0, help="part of the other steps on clips that begin with a source"
    )
    parser.add_argument(
        "--change-share", type=float, default=0.0, help="part of the other later chunks behind a change of prompts"
    )
    parser.add_argument("--batch", type=int, default=2, help="clips at HIGH; LOW takes four times as many")
    parser.add_argument("--high-share", type=float, default=0.5, help="part of the steps at HIGH")
    parser.add_argument("--first-share", type=float, default=0.0, help="part of the LOW steps on the first chunk alone")
    parser.add_argument("--first-share-high", type=float, default=0.0, help="the share for steps at HIGH")
    parser.add_argument(
        "--context-noise", type=float, default=CONTEXT_NOISE, help="at most so much on the clean chunks"
    )
    parser.add_argument("--own-low", action="store_true", help="HIGH begins with the student's own LOW estimates")
    parser.add_argument("--whole-captions", action="store_true", help="captions at HIGH leave nothing out (--own-low)")
    parser.add_argument("--one-step", action="store_true", help="a row for one step of a chunk, drawn by its noise")
    parser.add_argument("--crop", type=int, default=0, help="cells a side of windows around objects at HIGH; 0: none")
    parser.add_argument("--crop-share", type=float, default=0.7, help="part of the HIGH steps that show windows")
    parser.add_argument("--modes", nargs="+", choices=protocol.MODES, default=list(protocol.MODES))
    args = parser.parse_args(argv)
    if args.restyle_share and not args.bank.is_dir():
        raise ValueError(f"{args.bank} has no pairs of clips to restyle: give a bank of scenes to --restyle-share")
    if args.crop and args.repa_weight:
        raise ValueError("REPA aligns whole frames: give --repa-weight 0, or --crop 0")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = read_arguments(argv)
    setting, rng = protocol.from_arguments(args), Rng(args.seed, args.device)
    largest = setting.grids()[Scale.HIGH][0]
    if args.crop % 2 or not 0 <= args.crop <= largest:
        raise ValueError(f"--crop {args.crop}: give an even number of cells, at most {largest}")
    bank = load_bank(args.bank, args.device, largest=largest)
    pairs = Pairs.load(args.pairs, args.device) if args.pairs else None
    drawing = Drawing(args.places, args.noise_coupled, args.shape_groups, args.prompt_dropout, args.partial_captions)
    # the student's own LOW decides what a caption leaves out, which HIGH could not know
    whole = replace(drawing, dropout=0, partial=0) if args.whole_captions else drawing
    features = bank.features if args.repa_weight else 0
    network = loop.seeded(args, lambda: begin(args.begin, features, bank.vocabulary, args.ffn_dim))
    trainee = Trainee(network, args.lr, args.optimiser, bf16=args.bf16)
    forcing = TeacherForcing(
        network, setting, args.modes, args.device, args.context_noise, one_step=args.one_step, crop=args.crop
    )
    videos = None
    if args.videos:
        plain = TeacherForcing(network, setting, args.modes, args.device, context_noise=0)
        videos = Videos(plain, bank, replace(drawing, dropout=0, partial=0), rng, args.videos, args.longest)
    shown = Shown(args, forcing, bank, pairs, videos, rng)
    weights = {"object_weight": args.object_weight, "outline_weight": args.outline_weight}
    fade = args.places > 1 and not args.noise_coupled

    def step(moment: loop.Moment) -> loop.Losses:
        high = rng.choices.random() < args.high_share
        scale, count = (Scale.HIGH, args.batch) if high else (Scale.LOW, 4 * args.batch)
        share = args.first_share_high if high else args.first_share
        alone = share > 0 and rng.choices.random() < share
        kind = shown.choose(alone)
        start = 0 if alone else CHUNK * shown.later_chunk(kind)
        if alone:  # a third of the rows and no window: as much work as the others
            count *= FIRST_ALONE
        cropped = high and args.crop > 0 and rng.choices.random() < args.crop_share
        if cropped:
            count = round(count * (largest / args.crop) ** 2)
        clips = shown.draw(kind, count, start, whole if high else drawing)
        with loop.autocast(args), hidden_state(network.model, repa.layer(network.model.num_layers)) as hidden:
            losses = forcing.loss(clips, start, scale, rng, **weights, fade=fade, own_low=args.own_low, cropped=cropped)
            # roots: a small error at LOW pulls as hard as a large one at HIGH, which would drown it in the momentum
            loss = sum(one.sqrt() for one in losses.values())
            if args.repa_weight and clips.geometry is not None:
                losses["repa"] = forcing.alignment_loss(hidden[-1], clips, start, scale)
                loss = loss + args.repa_weight * losses["repa"]
        trainee.descend(loss, moment)
        return losses

    loop.train(args, {"network": trainee, "rng": rng} | ({"videos": videos} if videos else {}), step)


@dataclass(frozen=True)
class Shown:
    """The clips that steps of a run show, by kind."""

    args: argparse.Namespace
    forcing: TeacherForcing
    bank: Bank | SceneBank
    pairs: Pairs | None
    videos: Videos | None
    rng: Rng

    def choose(self, alone: bool) -> str:
        """Draw the kind of clips of a step; `alone`: on the first chunk alone, which nothing comes before."""
        shares = {
            "pairs": self.args.pairs_share if self.pairs else 0,
            "restyled": self.args.restyle_share,
            "changed": 0 if alone else self.args.change_share,
            "videos": self.args.videos_share if self.videos and not alone else 0,
        }
        return next((kind for kind, share in shares.items() if share and self.rng.choices.random() < share), "plain")

    def later_chunk(self, kind: str) -> int:
        """Draw the number of a later chunk."""
        if kind == "videos":
            return LATEST
        latest = self.pairs.latents.shape[2] // CHUNK - 1 if self.pairs and kind == "pairs" else LATEST
        return self.rng.choices.randint(1, latest)

    def draw(self, kind: str, count: int, start: int, drawing: Drawing) -> Clips:
        """Draw `count` clips of `frames(start)`."""
        rng, frames, low = self.rng, self.forcing.frames(start), self.forcing.grids[Scale.LOW][0]
        if kind == "videos":
            with loop.autocast(self.args):
                return self.videos.draw(count)
        if kind == "pairs":
            return self.pairs.draw(rng, count, frames)
        if kind == "restyled":
            return self.bank.draw_pairs(rng, count, frames)
        if kind == "changed":
            return draw_changed(self.bank, rng, count, start, drawing, low)
        return self.bank.draw(rng, count, frames, drawing, low)


if __name__ == "__main__":
    main()
