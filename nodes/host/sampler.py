"""The one adapter between the host's sampling and the engine: a sampler function that makes a video chunk by chunk.

B batch, C channels, T latent frames, H W latent grid.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import comfy.model_management
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ...histream_core.plan.chunks import Plan
from ...histream_core.plan.schedule import Steps
from ...histream_core.plan.speed import DEFAULTS, Speed
from ...histream_core.stream.noise import Noise, SeededNoise
from ..settings import PRESET_KEY, ModelSettings, StepChoice, WindowChoice, plan_for
from .caches import chunk_shape
from .checks import check_empty, check_finite, check_guider, check_latent, check_model, check_sigmas
from .first_frame import FirstFrame, check_fits
from .preview import chunk_previewer
from .run import WRAPPER_KEY, HostRun
from .speed import say_kernels
from .timeline import Timeline, placed, timeline_of, with_scenes


@dataclass(frozen=True)
class ChunkSampler:
    """The sampler function that the host calls: makes the video chunk by chunk."""

    settings: ModelSettings
    steps: StepChoice
    window: WindowChoice
    speed: Speed = DEFAULTS
    shape: tuple[int, ...] | None = None
    """The whole LATENT [B, C, T, H, W], where the host is given less than that."""
    on_chunk: Callable[[Tensor], None] | None = None
    """Told every finished chunk, un-normalised, on the CPU; only the last chunk is then returned to the host."""
    noise: Noise | None = None
    vae: object | None = None
    extra_bytes: int = 0
    """Memory on the device that is needed besides the network's."""
    on_end: Callable[[HostRun], None] | None = None
    """Told the run when its video is made."""
    first_frame: FirstFrame | None = None
    """What the video begins with."""

    def plan(self, shape: Sequence[int], timeline: Timeline | None = None) -> Plan:
        """The plan of a LATENT of that shape; raises ValueError for what cannot work."""
        if self.first_frame:
            check_fits(self.first_frame, shape)
        given = self.first_frame.frames if self.first_frame else 0
        plan = plan_for(self.settings, self.steps, self.window, shape, levers=self.speed.levers, given_frames=given)
        return placed(timeline, plan).plan if timeline else plan

    def make(self, run: HostRun, seed: int, device: torch.device) -> Iterator[Tensor]:
        """Make the video; yield the latents that the host is given back, normalised."""
        noise, num_chunks = self.noise or SeededNoise(seed), len(run.plan.chunks)
        given = self.first_frame and given_latent(run.base, self.first_frame, run.batch)
        stream = run.stream(run.plan, noise, device, prompts=run.prompts(device), given=given)
        for index, chunk in enumerate(stream.chunks(), start=1):
            check_finite(chunk, f"chunk {index} of {num_chunks}")
            run.show(chunk)
            if self.on_chunk:
                self.on_chunk(run.base.process_latent_out(chunk.float()).cpu())
            if not self.on_chunk or index == num_chunks:
                yield chunk

    @torch.no_grad()
    def __call__(
        self, model: Callable, x: Tensor, sigmas: Tensor, extra_args: dict, callback=None, disable=None
    ) -> Tensor:
        """Latents [B, C, T, H, W], normalised; raises ValueError for what cannot work, before the first step."""
        shape = self.shape or tuple(x.shape)
        guider = model.inner_model
        check_model(guider.model_patcher)
        check_guider(guider, extra_args)
        plan = self.plan(shape, timeline_of(guider.conds.get("positive")))
        check_sigmas(sigmas, first_chunk_sigmas(first_steps(plan)))
        check_empty(model.latent_image)
        previewer = chunk_previewer(guider.model_patcher, self.vae)
        run = HostRun(
            model,
            plan,
            extra_args,
            batch=shape[0],
            kv=self.settings.kv,
            speed=self.speed,
            previewer=previewer,
        )
        say_kernels(run.kernels)
        made = torch.cat(list(self.make(run, extra_args.get("seed") or 0, x.device)), dim=2)
        if self.on_end:
            self.on_end(run)
        return made


def attach(model, settings: ModelSettings):
    """A clone of MODEL that carries `settings` and, in a HiStream sampler, asks for the memory of one chunk."""
    model = model.clone()
    model.set_attachments(PRESET_KEY, settings)
    model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY, sample_by_chunks)
    return model


def model_settings(model) -> ModelSettings:
    """What a MODEL says about itself; the defaults for one that comes from another loader."""
    return model.get_attachment(PRESET_KEY) or ModelSettings()


def sample_by_chunks(executor, noise: Tensor, latent_image: Tensor, sampler, *args, **kwargs) -> Tensor:
    """Wrapper of the guider's outer sampling: hand the host one chunk to look at instead of the whole video.

    The host would otherwise move the whole LATENT to the device and make room for the whole clip at once.
    Samplers of others pass through.
    """
    function = getattr(sampler, "sampler_function", None)
    if not isinstance(function, ChunkSampler):
        return executor(noise, latent_image, sampler, *args, **kwargs)
    guider = executor.class_obj
    check_latent({"samples": latent_image})
    function = replace(function, shape=function.shape or tuple(latent_image.shape))
    plan = function.plan(function.shape, timeline_of(guider.conds.get("positive")))
    frames = plan.window.chunk_frames

    def prepare(executor, model, noise_shape, conds, *args, **kwargs):
        shape = chunk_shape(model, plan, noise_shape, kv=function.settings.kv, extra_bytes=function.extra_bytes)
        return executor(model, shape, conds, *args, **kwargs)

    add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, WRAPPER_KEY, prepare, guider.model_options, is_model_options=True)
    sampler = comfy.samplers.KSAMPLER(function, sampler.extra_options, sampler.inpaint_options)
    return executor(noise[:, :, :frames], latent_image[:, :, :frames], sampler, *args, **kwargs)


def sample_latent(
    model, positive: list, latent: dict, sampler: ChunkSampler, *, seed: int, vae=None
) -> tuple[dict, HostRun]:
    """Make a video under the host's guider without guidance.

    The LATENT, filled, un-normalised, on the CPU; and the run that made it, its caches gone.
    """
    check_model(model)
    samples = check_latent(latent, model)
    chunks, runs = [], []
    noise = sampler.noise or SeededNoise(seed)
    sampler = replace(
        sampler, shape=tuple(samples.shape), on_chunk=chunks.append, noise=noise, vae=vae, on_end=runs.append
    )
    guide(model, positive, sampler, seed=seed)
    rest = {key: value for key, value in latent.items() if not key.startswith("downscale_ratio")}
    made = torch.cat(chunks, dim=2).to(comfy.model_management.intermediate_device())
    return with_scenes(rest | {"samples": made}, runs[0].plan), runs[0]


def guide(model, positive: list, sampler: ChunkSampler, *, seed: int) -> None:
    """Run a sampler that knows its shape under the host's guider, without guidance."""
    model = attach(model, sampler.settings)
    if sampler.vae is not None:
        model.set_additional_models(WRAPPER_KEY, [sampler.vae.patcher])
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": positive})
    batch, channels, _, *grid = sampler.shape
    blank = torch.zeros(batch, channels, 1, *grid)
    sigmas = first_chunk_sigmas(first_steps(sampler.plan(sampler.shape)))
    guider.sample(blank, blank, comfy.samplers.KSAMPLER(sampler), sigmas, disable_pbar=True, seed=seed)


def first_steps(plan: Plan) -> Steps:
    """The steps of the first chunk that is denoised."""
    return next((chunk.steps for chunk in plan.chunks if chunk.steps), ())


def given_latent(base, first: FirstFrame, batch: int) -> Tensor:
    """The latent [B, C, T, H, W] of a first chunk as the network has it, the same in every video of a batch."""
    return base.process_latent_in(first.latent).expand(batch, -1, -1, -1, -1)


def first_chunk_sigmas(steps: Steps) -> Tensor:
    """Noise levels of a chunk's steps and the final 0, as SIGMAS."""
    return torch.tensor([*(step.sigma for step in steps), 0.0])
