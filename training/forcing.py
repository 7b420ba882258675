"""Teacher forcing: chunks at the noise levels of the engine, with clean chunks of the same clip in their windows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from histream_core.plan.presets import find_preset
from histream_core.plan.schedule import Scale, Step
from histream_core.stream.resize import resize
from training import loop, repa
from training.crops import Crop, around_objects
from training.data import CHANNELS, RESIZE, Clips, cell_weights
from training.dit_forward import CHUNK, Rotations, flow
from training.forward import spread
from training.network import Network
from training.protocol import Protocol
from training.rng import Rng

CONTEXT_NOISE = 0.1
"""Largest noise level of the clean chunks, since in inference the window holds imperfect chunks."""
LATEST = 8
"""Last chunk that is trained: beyond the trained span, so that the anchor's position is clamped."""

ENTRY = (0.75, 0.95)
"""Shares of noise that a restyled chunk begins with (`--strength` of video to video)."""
ENTRIES = (0.7, 0.5)
"""Part of the steps at LOW of a restyled first and later chunk that are its entry; the others are later steps."""

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

    def entries(
        self, clips: Clips, start: int, rng: Rng, later_alone: bool = False
    ) -> tuple[list[Steps], list[Tensor]]:
        """The entries of a restyled first and later chunk, and the sources at LOW of those that are predicted."""
        steps = [[(Step(rng.choices.uniform(*ENTRY), Scale.LOW), True)] for _ in range(2)]
        source = clips.at(self.grids[Scale.LOW]).source
        return steps, [source[:, :, frames] for _, frames in self.chunks(start, later_alone)]

    def rows(
        self, clean: Tensor, scale: Scale, steps: Steps, noise: Tensor, low: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A row for each of the steps: noisy [B, R, C, T, H, W], the flow that leads to `clean`, sigma [B, R].

        The first HIGH step begins with `low`, an estimate at LOW [B, C, T, h, w], or with `clean` resized to LOW; an
        entry with `low`, the source.
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
        """The student's own LOW estimates from pure noise or a source, [B, C, T, h, w] for each chunk of `predict`."""
        first, low = [steps[:1] for steps in self.all_steps(Scale.LOW)], (None, None)
        if clips.source is not None:
            first, low = self.entries(clips, start, rng, later_alone)
        found = self.predict(clips, start, Scale.LOW, rng, low, steps=first, later_alone=later_alone)
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
        if clips.source is not None and scale is Scale.LOW:
            taken, low = self._entered(clips, start, rng)
        for one in self.predict(clips, start, scale, rng, low, steps=taken, crop=crop, later_alone=cropped):
            name, error = "later" if one.frames.start else "first", (one.flow - one.asked).square()
            if geometry is not None and max(object_weight, outline_weight) > 1:
                shown = geometry[:, :, one.frames]
                levels = one.sigma.unbind(1) if fade else [None] * one.sigma.shape[1]
                weights = [cell_weights(shown, object_weight, outline_weight, level) for level in levels]
                error = error * torch.stack(weights, dim=1)
            losses[f"{name} {scale.value}"] = error.mean()
        return losses

    def _entered(self, clips: Clips, start: int, rng: Rng) -> tuple[list[Steps], list[Tensor]]:
        """The steps at LOW that a loss takes of restyled clips, and their sources: entries, or steps after one.

        A later chunk may also begin with noise: what its caption leaves open the window shows.
        """
        entries, low = self.entries(clips, start, rng)
        after = [
            [one for one in steps if chunk or one[0].sigma < 1] for chunk, steps in enumerate(self.all_steps(Scale.LOW))
        ]
        taken = [
            entry if not others or rng.choices.random() < share else [rng.choices.choice(others)]
            for entry, others, share in zip(entries, after, ENTRIES, strict=True)
        ]
        return taken, low

    def alignment_loss(self, hidden: Tensor, clips: Clips, start: int, scale: Scale) -> Tensor:
        """REPA's loss of the noisy rows; `hidden` [B, R, L, dim] holds the clean ones too."""
        geometry = clips.at(self.grids[scale]).geometry
        count = 1 if self.one_step else None
        rows = [part for chunk, part in self.chunks(start) for _ in self.steps[scale, chunk][:count]]
        features = [repa.targets(geometry[:, :, part]) for part in rows]
        return repa.alignment_loss(self.network.projection, hidden[:, -len(features) :], torch.stack(features, dim=1))
