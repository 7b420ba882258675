"""Few-step distillation: python -m training.distill --begin STUDENT --teacher TEACHER --bank F --out DIR --minutes 30

The student makes videos as the engine will (`rollout`), and is moved towards the distribution of the teacher's clips by
distribution matching (DMD2, arXiv 2405.14867, without its adversary; Self-Forcing, arXiv 2506.08009): the real score is
the frozen teacher under guidance, the fake score a copy of it that keeps learning what the student makes.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from histream_core.plan.chunks import Plan
from histream_core.plan.schedule import Scale
from training import loop, protocol, repa
from training.data import Clips, Drawing, cell_weights
from training.dit_forward import CHUNK
from training.forcing import LATEST, TeacherForcing
from training.forward import Bidirectional, Flow, guided, hidden_state, spread
from training.network import Trainee, add_optimiser, begin
from training.protocol import Protocol, draw_sigma
from training.rng import Rng
from training.rollout import Rolled, choose_steps, rollout, until
from training.scene_bank import load_bank
from training.train_teacher import add_drawing, flow_matching_loss

TINY = 1e-3
"""Lower bound of the mean distance that gradients are divided by."""


@torch.no_grad()
def matching_direction(
    clean: Tensor, tokens: Tensor, sigma: Tensor, noise: Tensor, real: Flow, fake: Flow, guidance: float
) -> Tensor:
    """Step of clips [B, C, T, H, W] towards a higher likelihood under the real than under the fake score.

    Both estimate the clean clip from the same noisy one; the step is the real estimate minus the fake one, divided by
    the mean distance of the clip from the real estimate (DMD's weight).
    """
    level = spread(sigma, clean)
    noisy = (1 - level) * clean + level * noise
    real_clean = noisy - level * guided(real, noisy, sigma, tokens, guidance)
    fake_clean = noisy - level * fake(noisy, sigma, tokens)
    distance = (clean - real_clean).abs().mean(tuple(range(1, clean.ndim)), keepdim=True).clamp(min=TINY)
    return (real_clean - fake_clean) / distance


def matching_loss(clean: Tensor, direction: Tensor) -> Tensor:
    """Loss whose gradient with respect to `clean` is proportional to `-direction`."""
    return 0.5 * (clean - (clean + direction).detach()).square().mean()


@dataclass(frozen=True)
class Setting:
    """Settings that every step of a distillation draws from."""

    protocol: Protocol
    modes: tuple[str, ...]
    chunks: int
    """Chunks that are scored together, as many as the teacher's clips have."""
    lead: int
    """Largest number of chunks that are made before them."""
    low_share: float

    def draw(self, rng: Rng) -> tuple[Plan, Scale, range]:
        """Draw a step: its plan, and the scale and the chunks that are trained."""
        lead = rng.choices.randint(0, self.lead)
        plan = self.protocol.plan(rng.choices.choice(self.modes), CHUNK * (lead + self.chunks))
        scale = Scale.LOW if rng.choices.random() < self.low_share else Scale.HIGH
        return plan, scale, range(lead, lead + self.chunks)


def stream_noise(clips: Clips, rng: Rng):
    """Noise for a batch, as the engine draws it; chunk 0 takes the noise that belongs to the clips, if there is one."""

    def noise(chunk: int, step: int, shape: torch.Size) -> Tensor:
        if chunk == step == 0 and clips.noise is not None:
            return clips.noise
        return clips.shared(rng.normal(*shape))

    return noise


def regression_loss(rolled: Rolled, clips: Clips, object_weight: float, outline_weight: float) -> Tensor:
    """Weighted mean square distance of the estimates from the clips that belong to the same noise."""
    truth = clips.at(rolled.estimates.shape[-2:])
    weights = cell_weights(truth.geometry, object_weight, outline_weight)
    return ((rolled.estimates - truth.latents).square() * weights).mean()


def check(args: argparse.Namespace) -> None:
    """Raise ValueError for settings that cannot work together."""
    if not (args.dmd_weight or args.regression_weight):
        raise ValueError("there is nothing to learn from: give --dmd-weight or --regression-weight more than 0")
    if args.dmd_weight and args.teacher is None:
        raise ValueError("distribution matching needs the teacher: give --teacher, or --dmd-weight 0")
    if args.regression_weight and args.places > 1 and not args.noise_coupled:
        raise ValueError("regression needs one answer for one noise: give --noise-coupled, or --places 1")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    loop.add_arguments(parser, lr=3e-4)
    protocol.add_arguments(parser)
    add_optimiser(parser)
    add_drawing(parser, dropout=0)
    parser.add_argument("--noise-coupled", action="store_true", help="for regression: the noise decides the place")
    parser.add_argument("--begin", type=Path, required=True, help="checkpoint of the student")
    parser.add_argument("--teacher", type=Path, help="checkpoint of the teacher")
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=2, help="videos a step")
    parser.add_argument("--modes", nargs="+", choices=protocol.MODES, default=["histream"], help="one is drawn a step")
    parser.add_argument("--chunks", type=int, default=3, help="chunks that are scored together, as the teacher's clips")
    parser.add_argument("--lead", type=int, default=0, help="up to this many chunks are made before them")
    parser.add_argument("--low-share", type=float, default=0.5, help="part of the steps whose LOW calls are trained")
    parser.add_argument("--dmd-weight", type=float, default=1.0, help="of distribution matching")
    parser.add_argument("--regression-weight", type=float, default=0.0, help="of the distance from the true clip")
    parser.add_argument("--guidance", type=float, default=2.0, help="classifier-free guidance of the real score")
    parser.add_argument("--fake-updates", type=int, default=5, help="of the fake score, for each of the student")
    parser.add_argument("--fake-lr", type=float, default=6e-4)
    parser.add_argument("--shift", type=float, default=2.0, help="time shift of the noise levels of the scores")
    args = parser.parse_args(argv)
    check(args)
    loop.train(args, *distillation(args))


def distillation(args: argparse.Namespace):
    """Parts of the run that are saved, and the function of a step."""
    setting = Setting(protocol.from_arguments(args), tuple(args.modes), args.chunks, args.lead, args.low_share)
    rng, grids = Rng(args.seed, args.device), setting.protocol.grids()
    bank, low = load_bank(args.bank, args.device, largest=grids[Scale.HIGH][0]), grids[Scale.LOW][0]
    drawing = Drawing(args.places, args.noise_coupled, args.shape_groups, args.prompt_dropout, args.partial_captions)
    features = bank.features if args.repa_weight else 0
    student = Trainee(loop.seeded(args, lambda: begin(args.begin, features, bank.vocabulary)), args.lr, args.optimiser)
    parts = {"network": student, "rng": rng}
    forcing = TeacherForcing(student.network, setting.protocol, args.modes, args.device)
    weights = {"object_weight": args.object_weight, "outline_weight": args.outline_weight}
    if args.dmd_weight:
        teacher, copy = (begin(args.teacher).to(args.device) for _ in range(2))
        ropes = setting.protocol.ropes(teacher.config, args.device)
        real, fake = Bidirectional(teacher.requires_grad_(False), ropes), Bidirectional(copy, ropes)
        parts["fake"] = critic = Trainee(copy, args.fake_lr, args.optimiser)

    def learn_fake(clips: Clips, moment: loop.Moment) -> Tensor:
        """Train the fake score on what the student makes now."""
        for _ in range(args.fake_updates):
            with loop.autocast(args):
                loss = flow_matching_loss(fake, clips, rng, shift=args.shift)
            critic.descend(loss, moment)
        return loss

    def align() -> Tensor:
        """REPA's loss on a true clip; the features of the student's own videos are unknown."""
        scale, start = rng.choices.choice(list(Scale)), CHUNK * rng.choices.randint(1, LATEST)
        clips = bank.draw(rng, args.batch, forcing.frames(start), drawing, low)
        with loop.autocast(args), hidden_state(student.network.model, repa.layer(forcing.num_layers)) as hidden:
            forcing.loss(clips, start, scale, rng)
            return forcing.alignment_loss(hidden[0], clips, start, scale)

    def step(moment: loop.Moment) -> loop.Losses:
        plan, scale, trained = setting.draw(rng)
        frames = range(CHUNK * trained.start, CHUNK * trained.stop)
        clips = bank.draw(rng, args.batch, frames, drawing, low)
        chosen = choose_steps(plan, scale, trained, rng)
        noise, short = stream_noise(clips, rng), until(plan, chosen)
        rolled = rollout(student.network, short, clips.tokens, noise, chosen, bf16=args.bf16)
        losses, name = {}, scale.value
        if args.dmd_weight:
            made = Clips(clips.tokens, rolled.estimates.detach())
            losses[f"fake {name}"] = learn_fake(made, moment)
            sigma = draw_sigma(rng.uniform(len(clips.tokens)), args.shift)
            noise = rng.normal(*made.latents.shape)
            with loop.autocast(args):
                towards = matching_direction(made.latents, made.tokens, sigma, noise, real, fake, args.guidance)
            losses[f"dmd {name}"] = args.dmd_weight * matching_loss(rolled.estimates, towards)
        if args.regression_weight:
            losses[f"regression {name}"] = args.regression_weight * regression_loss(rolled, clips, **weights)
        if args.repa_weight:
            losses["repa"] = args.repa_weight * align()
        student.descend(sum(loss for name, loss in losses.items() if not name.startswith("fake")), moment)
        return losses

    return parts, step


if __name__ == "__main__":
    main()
