"""Trains the teacher: python -m training.train_teacher --bank F --out DIR --minutes 60

Flow matching on short clips with bidirectional attention, at any noise level; captions are dropped at random for
classifier-free guidance. The teacher initialises the student and is the real score of the distillation.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from histream_core.network.model import WanConfig
from histream_core.plan.schedule import Scale
from training import loop, protocol, repa
from training.captions import DROPOUT, PARTIAL_SHARE
from training.data import Clips, Drawing, cell_weights
from training.forward import Bidirectional, hidden_state, spread
from training.network import DEMO, Network, Trainee, add_optimiser, begin
from training.protocol import draw_sigma
from training.rng import Rng
from training.scene_bank import load_bank

BEFORE = 0.3
"""Share of the steps on the grid before the current one, so that it is not forgotten."""


def pick_grid(rng: Rng, grids: Sequence[int], share: float) -> int:
    """Grid of a step: from the smallest to the largest in the course of a run, each for an equal share of it."""
    reached = min(len(grids) - 1, int(share * len(grids)))
    back = reached > 0 and rng.choices.random() < BEFORE
    return grids[reached - back]


def flow_matching_loss(
    flow: Bidirectional, clips: Clips, rng: Rng, *, shift: float, object_weight: float = 1, outline_weight: float = 1
) -> Tensor:
    """Weighted mean square error of the flow at random noise levels."""
    sigma = draw_sigma(clips.shared(rng.uniform(len(clips.latents))), shift)
    noise = clips.shared(rng.normal(*clips.latents.shape))
    level = spread(sigma, noise)
    error = (flow((1 - level) * clips.latents + level * noise, sigma, clips.tokens) - (noise - clips.latents)).square()
    if clips.geometry is not None and max(object_weight, outline_weight) > 1:
        error = error * cell_weights(clips.geometry, object_weight, outline_weight, fade=sigma)
    return error.mean()


def add_network(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("size of the network; the stages after it take it over")
    for name, value in (("dim", DEMO.dim), ("ffn-dim", DEMO.ffn_dim), ("heads", DEMO.num_heads)):
        group.add_argument(f"--{name}", type=int, default=value)
    group.add_argument("--layers", type=int, default=DEMO.num_layers)


def add_drawing(parser: argparse.ArgumentParser, *, dropout: float = DROPOUT) -> None:
    """Add the options that help to learn shapes, `--prompt-dropout` of `dropout`; training/README.md explains them."""
    group = parser.add_argument_group("what is drawn, and what counts")
    group.add_argument("--places", type=int, default=16, help="places a side where a clip may start; 1: the middle")
    group.add_argument("--shape-groups", action="store_true", help="draw clips that differ in their shape alone")
    group.add_argument("--object-weight", type=float, default=4.0, help="of a cell of the object; background 1")
    group.add_argument("--outline-weight", type=float, default=4.0, help="of a cell on the outline; background 1")
    group.add_argument("--prompt-dropout", type=float, default=dropout, help="share of captions that are left out")
    group.add_argument(
        "--partial-captions", type=float, default=PARTIAL_SHARE, help="share of captions that say a part alone"
    )
    group.add_argument("--repa-weight", type=float, default=0.0, help="of the REPA alignment loss; 0: none")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    loop.add_arguments(parser, lr=3e-3)
    protocol.add_arguments(parser)
    add_optimiser(parser)
    add_network(parser)
    add_drawing(parser, dropout=0.1)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--begin", type=Path, help="checkpoint, or folder of exported files, to start from")
    parser.add_argument("--batch", type=int, default=4, help="clips on the largest grid; smaller grids take more")
    parser.add_argument("--frames", type=int, default=9, help="latent frames of a clip")
    parser.add_argument("--grids", type=int, nargs="+", help="curriculum, cells a side (default: LOW, then HIGH)")
    parser.add_argument("--start-chunks", type=int, default=0, help="clips start at chunk 0 up to this one")
    parser.add_argument("--shift", type=float, default=2.0, help="time shift of the noise levels")
    args = parser.parse_args(argv)

    setting, rng = protocol.from_arguments(args), Rng(args.seed, args.device)
    low, high = (setting.grids()[scale][0] for scale in (Scale.LOW, Scale.HIGH))
    grids = args.grids or [low, high]
    bank = load_bank(args.bank, args.device, largest=max(grids))
    drawing = Drawing(
        args.places, shape_groups=args.shape_groups, dropout=args.prompt_dropout, partial=args.partial_captions
    )
    features = bank.features if args.repa_weight else 0
    config = WanConfig(args.dim, args.ffn_dim, args.heads, args.layers, text_dim=DEMO.text_dim)

    def made(features: int) -> Network:
        if args.begin:
            return begin(args.begin, features, bank.vocabulary)
        return Network(config, features, bank.vocabulary)

    network = loop.seeded(args, lambda: made(features))
    trainee = Trainee(network, args.lr, args.optimiser, bf16=args.bf16)
    flow = Bidirectional(network, setting.ropes(network.config, args.device, tuple(grids)))

    def step(moment: loop.Moment) -> loop.Losses:
        grid = pick_grid(rng, grids, moment.share)
        start = setting.chunk_frames * rng.choices.randint(0, args.start_chunks)
        count = args.batch * (max(grids) // grid) ** 2
        clips = bank.draw(rng, count, range(start, start + args.frames), drawing, low).at((grid, grid))
        with loop.autocast(args), hidden_state(network.model, repa.layer(network.model.num_layers)) as hidden:
            weights = {"object_weight": args.object_weight, "outline_weight": args.outline_weight}
            loss = flow_matching_loss(flow, clips, rng, shift=args.shift, **weights)
            losses = {f"flow {grid}": loss}
            if args.repa_weight:
                losses["repa"] = repa.alignment_loss(network.projection, hidden[0], repa.targets(clips.geometry))
                loss = loss + args.repa_weight * losses["repa"]
        trainee.descend(loss, moment)
        return losses

    loop.train(args, {"network": trainee, "rng": rng}, step)


if __name__ == "__main__":
    main()
