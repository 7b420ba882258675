"""Trains the causal student: python -m training.train_student --begin TEACHER --bank F --out DIR --minutes 40

Teacher forcing: chunks at the noise levels of the engine, with clean chunks of the same clip in the window
(`dit_forward`). With `--pairs` some clips are the teacher's own, together with the noise they came from (ODE pairs), so
that a step from pure noise has one answer. With `--rollouts` windows hold what a student made, and the true clip
continues from there.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from histream_core.plan.presets import find_preset
from histream_core.plan.schedule import Scale, Step
from histream_core.stream.resize import resize
from training import loop, protocol, repa
from training.crops import Crop, around_objects
from training.data import CHANNELS, RESIZE, Clips, Drawing, Pairs, Rollouts, cell_weights
from training.dit_forward import CHUNK, Rotations, flow
from training.forward import hidden_state, spread
from training.network import Network, Trainee, add_optimiser, begin
from training.protocol import Protocol
from training.rng import Rng
from training.scene_bank import load_bank
from training.train_teacher import add_drawing

CONTEXT_NOISE = 0.1
"""Largest noise level of the clean chunks, since in inference the window holds imperfect chunks."""
FIRST_ALONE = 3
"""Factor on the batch of a step on the first chunk alone."""
LATEST = 8
"""Last chunk that is trained: beyond the trained span, so that the anchor's position is clamped."""

Steps = Sequence[tuple[Step, bool]]
"""Steps of a chunk, each with whether it begins with an estimate at LOW."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The student's answer for the R rows of a chunk."""

    noisy: Tensor
    """[B, R, C, T, H, W]."""
    asked: Tensor
    """The true flow, which leads to the clean clip, [B, R, C, T, H, W]."""
    sigma: Tensor
    """[B, R]."""
    flow: Tensor
    """The student's flow, [B, R, C, T, H, W]."""
    frames: slice
    """The chunk's frames among those of the clips."""

    @property
    def clean(self) -> Tensor:
        """The clean estimate of every row."""
        return self.noisy - spread(self.sigma, self.noisy) * self.flow


class TeacherForcing:
    """Noisy chunks of clean clips as rows of one forward, with the flows that the student should answer."""

    def __init__(
        self,
        network: Network,
        setting: Protocol,
        modes: Sequence[str],
        device: str,
        context_noise: float = CONTEXT_NOISE,
        *,
        one_step: bool = False,
        crop: int = 0,
    ) -> None:
        """Take rows for all steps of a chunk, or with `one_step` for one that is drawn by its noise level.

        `crop`: cells a side of windows that `loss` may take at HIGH.
        """
        if setting.chunk_frames != CHUNK:
            raise ValueError(f"preset {setting.preset} has chunks of {setting.chunk_frames} frames: train one with 3")
        self.network, self.num_layers, self.context_noise = network, network.config.num_layers, context_noise
        self.one_step = one_step
        self.grids = setting.grids()
        self.steps = {
            (scale, chunk): setting.steps(tuple(modes), scale, chunk) for scale in self.grids for chunk in (0, 1)
        }
        self.crop = crop
        self.rotations = {rope.grid: Rotations(rope) for rope in setting.ropes(network.config, device)}
        if crop:
            rope = setting.rope(network.config, Scale.HIGH, (crop // 2, crop // 2), device)
            self.cropped = Rotations(rope)
        tokens = self.grids[Scale.HIGH][0] * self.grids[Scale.HIGH][1] // 4
        high = find_preset(setting.preset).first_chunk_attention_scale(tokens)
        self.attention_scale = {Scale.LOW: 1.0, Scale.HIGH: high}

    def frames(self, start: int) -> list[int]:
        """Latent frames of a clip: the first chunk, the one before `start`, the one at `start`; 0: the first alone."""
        return [*range(CHUNK), *(range(start - CHUNK, start + CHUNK) if start else ())]

    def chunks(self, start: int, later_alone: bool = False) -> list[tuple[int, slice]]:
        """The chunks that are predicted, as 0 and 1, each with its place among `frames(start)`."""
        both = [(0, slice(0, CHUNK)), (1, slice(2 * CHUNK, 3 * CHUNK))]
        return both[:1] if not start else both[1:] if later_alone else both

    def all_steps(self, scale: Scale) -> list[Steps]:
        """The steps of a first and of a later chunk."""
        return [self.steps[scale, chunk] for chunk in (0, 1)]

    def drawn_steps(self, scale: Scale, rng: Rng) -> list[Steps]:
        """The steps that a loss takes of the first and of a later chunk: all, or one each, noisy ones more often."""
        both = self.all_steps(scale)
        if not self.one_step:
            return both
        return [rng.choices.choices(steps, weights=[step.sigma for step, _ in steps]) for steps in both]

    def rows(
        self, clean: Tensor, scale: Scale, steps: Steps, noise: Tensor, low: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A row for each of the steps: noisy [B, R, C, T, H, W], the flow that leads to `clean`, sigma [B, R].

        The first HIGH step begins with `low`, an estimate at LOW [B, C, T, h, w], or with `clean` resized to LOW.
        """
        blurred = resize(resize(clean, self.grids[Scale.LOW], RESIZE) if low is None else low, clean.shape[-2:], RESIZE)
        source = torch.stack([blurred if upsampled else clean for _, upsampled in steps], dim=1)
        sigma = torch.tensor([step.sigma for step, _ in steps], device=clean.device).expand(len(clean), -1)
        shown = torch.lerp(source, noise, spread(sigma, source))
        return shown, (shown - clean[:, None]) / spread(sigma, source), sigma

    def noise(self, clips: Clips, scale: Scale, steps: Steps, frames: slice, rng: Rng) -> Tensor:
        """Noise of the rows of steps; a first one from pure noise takes that which belongs to a clip, if any does."""
        noise = rng.normal(len(clips.tokens), len(steps), CHANNELS, CHUNK, *self.grids[scale])
        noise, belongs = clips.shared(noise), scale is Scale.LOW and steps[0][0].sigma == 1
        if belongs and clips.noise is not None and frames.stop <= clips.noise.shape[2]:
            noise[:, 0] = clips.noise[:, :, frames]
        return noise

    def predict(
        self,
        clips: Clips,
        start: int,
        scale: Scale,
        rng: Rng,
        low: Sequence[Tensor | None] = (None, None),
        *,
        steps: Sequence[Steps] | None = None,
        crop: Crop | None = None,
        later_alone: bool = False,
    ) -> list[Prediction]:
        """Predictions of `chunks(start, later_alone)`; `clips` hold `frames(start)`.

        `low`: LOW estimates that their HIGH steps begin with, as in `rows`. `steps` of both chunks; None: all. `crop`:
        windows that are shown and predicted, at HIGH.
        """
        steps, cut = steps or self.all_steps(scale), crop or (lambda frames: frames)
        clips, which = clips.at(self.grids[scale]), self.chunks(start, later_alone)
        rows = {
            chunk: self.rows(
                clips.latents[:, :, frames],
                scale,
                steps[chunk],
                self.noise(clips, scale, steps[chunk], frames, rng),
                begun,
            )
            for (chunk, frames), begun in zip(which, low, strict=False)
        }
        rows = {chunk: (cut(shown), cut(asked), sigma) for chunk, (shown, asked, sigma) in rows.items()}
        any_row, _, any_sigma = next(iter(rows.values()))
        nothing = any_row[:, :0], None, any_sigma[:, :0]
        (first, _, first_sigma), (later, _, later_sigma) = (rows.get(chunk, nothing) for chunk in (0, 1))
        window = any_row[:, :0]
        if start:
            seen = (clips.latents if clips.seen is None else clips.seen).split(CHUNK, dim=2)
            window = cut(torch.stack(seen[: 1 if start == CHUNK else 2], dim=1))
            window = window + self.context_noise * rng.choices.random() * rng.normal(*window.shape)
        predicted = flow(
            self.network.model, self.network.encoder(clips.tokens), window, first, later, first_sigma, later_sigma,
            start=start, first_attention_scale=self.attention_scale[scale],
            rotations=self.cropped if crop else self.rotations[tuple(cells // 2 for cells in self.grids[scale])],
        )  # fmt: skip
        return [Prediction(*rows[chunk], predicted[chunk], frames) for chunk, frames in which]

    @torch.no_grad()
    def own_low(self, clips: Clips, start: int, rng: Rng, *, later_alone: bool = False) -> list[Tensor]:
        """The student's own LOW estimates from pure noise, [B, C, T, h, w] for each chunk of `predict`."""
        first = [steps[:1] for steps in self.all_steps(Scale.LOW)]
        found = self.predict(clips, start, Scale.LOW, rng, steps=first, later_alone=later_alone)
        return [one.clean[:, 0] for one in found]

    def loss(
        self, clips: Clips, start: int, scale: Scale, rng: Rng, *, object_weight: float = 1, outline_weight: float = 1,
        fade: bool = True, own_low: bool = False, cropped: bool = False,
    ) -> loop.Losses:  # fmt: skip
        """Mean square errors of the flow in the first chunk and in the one at `start`; `clips` hold `frames(start)`.

        `fade`: the extra weight of objects fades with the noise, as it must where many answers are right. `own_low`:
        HIGH begins with the student's own LOW estimate, as in inference, instead of the true clip at LOW. `cropped`:
        windows around the objects of the last chunk, which is then the only one.
        """
        low = self.own_low(clips, start, rng, later_alone=cropped) if own_low and scale is Scale.HIGH else (None, None)
        geometry, losses, crop = clips.at(self.grids[scale]).geometry, {}, None
        if cropped:
            crop = around_objects(geometry[:, :, -CHUNK:], self.crop, rng)
            geometry = crop(geometry)
        taken = self.drawn_steps(scale, rng)
        for one in self.predict(clips, start, scale, rng, low, steps=taken, crop=crop, later_alone=cropped):
            name, error = "later" if one.frames.start else "first", (one.flow - one.asked).square()
            if geometry is not None and max(object_weight, outline_weight) > 1:
                shown = geometry[:, :, one.frames]
                levels = one.sigma.unbind(1) if fade else [None] * one.sigma.shape[1]
                weights = [cell_weights(shown, object_weight, outline_weight, level) for level in levels]
                error = error * torch.stack(weights, dim=1)
            losses[f"{name} {scale.value}"] = error.mean()
        return losses

    def alignment_loss(self, hidden: Tensor, clips: Clips, start: int, scale: Scale) -> Tensor:
        """REPA's loss of the noisy rows; `hidden` [B, R, L, dim] holds the clean ones too."""
        geometry = clips.at(self.grids[scale]).geometry
        count = 1 if self.one_step else None
        rows = [part for chunk, part in self.chunks(start) for _ in self.steps[scale, chunk][:count]]
        features = [repa.targets(geometry[:, :, part]) for part in rows]
        return repa.alignment_loss(self.network.projection, hidden[:, -len(features) :], torch.stack(features, dim=1))


def main(argv: Sequence[str] | None = None) -> None:
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
    parser.add_argument("--rollouts", type=Path, help="file of training.make_rollouts")
    parser.add_argument("--rollouts-share", type=float, default=0.7, help="part of the steps on them, where given")
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
    setting, rng = protocol.from_arguments(args), Rng(args.seed, args.device)
    largest = setting.grids()[Scale.HIGH][0]
    if args.crop % 2 or not 0 <= args.crop <= largest:
        raise ValueError(f"--crop {args.crop}: give an even number of cells, at most {largest}")
    bank = load_bank(args.bank, args.device, largest=largest)
    pairs = Pairs.load(args.pairs, args.device) if args.pairs else None
    rollouts = Rollouts.load(args.rollouts, bank) if args.rollouts else None
    drawing = Drawing(args.places, args.noise_coupled, args.shape_groups, args.prompt_dropout, args.partial_captions)
    # the student's own LOW decides what a caption leaves out, which HIGH could not know
    whole = replace(drawing, dropout=0, partial=0) if args.whole_captions else drawing
    features = bank.features if args.repa_weight else 0
    network = loop.seeded(args, lambda: begin(args.begin, features, bank.vocabulary))
    trainee = Trainee(network, args.lr, args.optimiser, bf16=args.bf16)
    forcing = TeacherForcing(
        network, setting, args.modes, args.device, args.context_noise, one_step=args.one_step, crop=args.crop
    )
    weights = {"object_weight": args.object_weight, "outline_weight": args.outline_weight}
    fade = args.places > 1 and not args.noise_coupled

    def step(moment: loop.Moment) -> loop.Losses:
        high = rng.choices.random() < args.high_share
        scale, count = (Scale.HIGH, args.batch) if high else (Scale.LOW, 4 * args.batch)
        share = args.first_share_high if high else args.first_share
        alone = share > 0 and rng.choices.random() < share
        use_pairs = pairs is not None and rng.choices.random() < args.pairs_share
        use_rollouts = rollouts is not None and rng.choices.random() < args.rollouts_share
        latest = pairs.latents.shape[2] // CHUNK - 1 if use_pairs else rollouts.latest if use_rollouts else LATEST
        start = 0 if alone else CHUNK * rng.choices.randint(1, latest)
        drawn = whole if high else drawing
        if alone:  # a third of the rows and no window: as much work as the others
            count *= FIRST_ALONE
        cropped = high and args.crop > 0 and rng.choices.random() < args.crop_share
        if cropped:
            count = round(count * (largest / args.crop) ** 2)
        if use_pairs:
            clips = pairs.draw(rng, count, forcing.frames(start))
        elif use_rollouts:
            clips = rollouts.draw(rng, count, forcing.frames(start), drawn)
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

    loop.train(args, {"network": trainee, "rng": rng}, step)


if __name__ == "__main__":
    main()
