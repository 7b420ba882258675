"""Trains the causal student: python -m training.train_student --begin TEACHER --bank F --out DIR --minutes 40

Teacher forcing: chunks at the noise levels of the engine, with clean chunks of the same clip in the window
(`dit_forward`). With `--pairs` some clips are the teacher's own, together with the noise they came from (ODE pairs), so
that a step from pure noise has one answer. With `--videos` windows hold what the student itself has made meanwhile, and
the true clip continues from there.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from histream_core.plan.schedule import Scale
from training import loop, protocol, repa
from training.data import Drawing, Pairs
from training.dit_forward import CHUNK
from training.forcing import CONTEXT_NOISE, LATEST, TeacherForcing
from training.forward import hidden_state
from training.network import Trainee, add_optimiser, begin
from training.rng import Rng
from training.scene_bank import load_bank
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
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, help="file of training.make_pairs")
    parser.add_argument("--pairs-share", type=float, default=0.5, help="part of the steps on pairs, where given")
    parser.add_argument("--videos", type=int, default=0, help="videos of its own that go on while it trains; 0: none")
    parser.add_argument("--videos-share", type=float, default=0.7, help="part of the later chunks that continue them")
    parser.add_argument("--longest", type=int, default=24, help="most chunks of such a video")
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
    network = loop.seeded(args, lambda: begin(args.begin, features, bank.vocabulary))
    trainee = Trainee(network, args.lr, args.optimiser, bf16=args.bf16)
    forcing = TeacherForcing(
        network, setting, args.modes, args.device, args.context_noise, one_step=args.one_step, crop=args.crop
    )
    videos = None
    if args.videos:
        plain = TeacherForcing(network, setting, args.modes, args.device, context_noise=0)
        videos = Videos(plain, bank, replace(drawing, dropout=0, partial=0), rng, args.videos, args.longest)
    weights = {"object_weight": args.object_weight, "outline_weight": args.outline_weight}
    fade = args.places > 1 and not args.noise_coupled

    def step(moment: loop.Moment) -> loop.Losses:
        high = rng.choices.random() < args.high_share
        scale, count = (Scale.HIGH, args.batch) if high else (Scale.LOW, 4 * args.batch)
        share = args.first_share_high if high else args.first_share
        alone = share > 0 and rng.choices.random() < share
        use_pairs = pairs is not None and rng.choices.random() < args.pairs_share
        on_videos = videos is not None and not (alone or use_pairs) and rng.choices.random() < args.videos_share
        latest = pairs.latents.shape[2] // CHUNK - 1 if use_pairs else LATEST
        start = 0 if alone else CHUNK * (LATEST if on_videos else rng.choices.randint(1, latest))
        drawn = whole if high else drawing
        if alone:  # a third of the rows and no window: as much work as the others
            count *= FIRST_ALONE
        cropped = high and args.crop > 0 and rng.choices.random() < args.crop_share
        if cropped:
            count = round(count * (largest / args.crop) ** 2)
        if use_pairs:
            clips = pairs.draw(rng, count, forcing.frames(start))
        elif on_videos:
            with loop.autocast(args):
                clips = videos.draw(count)
        else:
            clips = bank.draw(rng, count, forcing.frames(start), drawn, forcing.grids[Scale.LOW][0])
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


if __name__ == "__main__":
    main()
