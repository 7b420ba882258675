"""Sampler functions that the host calls under its guider, and the guider that our own nodes run under.

B batch, C channels, T latent frames, H W latent grid.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ...histream_core.cost.cost import Cost
from ...histream_core.cost.pace import frames_of
from ...histream_core.parallel.engine import rest_gang
from ...histream_core.plan.chunks import Plan
from ...histream_core.plan.schedule import Scale, Steps
from ...histream_core.plan.speed import DEFAULTS, Speed
from ...histream_core.runs.progress import Progress, new_progress
from ...histream_core.stream.inputs import Inputs
from ...histream_core.stream.noise import SeededNoise
from ...histream_core.stream.prompts import Prompt, led_away
from ...histream_core.stream.stream import Stream
from ..settings import PRESET_KEY, ModelSettings, StepChoice, WindowChoice, plan_for
from .additions import WRAPPER_KEY, say_what_does_nothing
from .ahead import check_host_sampler
from .caches import chunk_shape
from .checks import check_empty, check_finite, check_guider, check_latent, check_model, check_sigmas
from .display import Display, told
from .first_frame import FirstFrame, check_fits
from .preview import chunk_previewer
from .ranks import model_settings, wan_config
from .run import HostRun
from .sizes import crop_latent, latent_size, say_crop
from .speed import say_kernels
from .timeline import Audience, Timeline, prompts_in, say_limits, timeline_of


class SamplerFunction:
    """The function that the host calls to sample: checks the guider, opens a run under it, and calls `sampled`."""

    shape: tuple[int, ...] | None
    """The whole LATENT [B, C, T, H, W], where the host is given less than that."""
    speed: Speed
    kv: str
    """One of TIERS: how keys and values lie in memory."""
    extra_bytes: int
    """Memory on the device that is needed besides the network's."""
    plan: Callable[..., Plan]
    """The plan of a LATENT of a shape, under a timeline if there is one."""
    sampled: Callable[[HostRun, Tensor, int], Tensor]
    """The latents, normalised, that the host is given back, from a run, its noise tensor and the seed."""

    @torch.no_grad()
    def __call__(
        self,
        model: Callable,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict,
        callback=None,
        disable=None,
    ) -> Tensor:
        """Latents [B, C, T, H, W], normalised; raises ValueError for what cannot work, before the first step."""
        shape = self.shape or tuple(x.shape)
        guider = model.inner_model
        check_model(guider.model_patcher)
        check_guider(extra_args)
        plan = plan_under(guider, self, shape)
        check_sigmas(sigmas, first_chunk_sigmas(first_steps(plan)))
        check_empty(model.latent_image)
        run = HostRun(model, plan, extra_args, batch=shape[0], kv=self.kv, speed=self.speed)
        say_kernels(run.kernels)
        say_what_does_nothing(guider.model_patcher)
        try:
            return self.sampled(run, x, extra_args.get("seed") or 0)
        finally:
            if run.sharing.ranks > 1:
                rest_gang()


@dataclass(frozen=True)
class ChunkSampler(SamplerFunction):
    """The choices of an Anchor-Window Sampler; as a SAMPLER it makes the whole LATENT."""

    settings: ModelSettings
    steps: StepChoice
    window: WindowChoice
    speed: Speed = DEFAULTS
    shape: tuple[int, ...] | None = None
    first_frame: FirstFrame | None = None
    """The first frame or frames of the video, if given."""
    extra_bytes: int = 0

    @property
    def kv(self) -> str:
        return self.settings.kv

    def plan(self, shape: Sequence[int], timeline: Timeline | None = None) -> Plan:
        """The plan of a LATENT of that shape, as `plan_for` makes it; raises ValueError for what cannot work."""
        plan = plan_for(self.settings, self.steps, self.window, shape, levers=self.speed.levers)
        if first := self.first_frame:
            check_fits(first, plan, latent_size(shape))
            plan = replace(plan, given_frames=first.frames, first_frame=first.picture)
        return timeline.place(plan).plan if timeline else plan

    def sampled(self, run: HostRun, x: Tensor, seed: int) -> Tensor:
        plan, positive = run.plan, run.guider.conds["positive"]
        check_host_sampler((run.batch, 16, plan.num_latent_frames, *plan.grids[Scale.HIGH]))
        audience = Audience(run.base.diffusion_model.text_dim, run.batch, seed=None if self.first_frame else seed)
        _, prompts = prompts_in(positive, plan, audience)
        if negative := run.prompt.text.negative:
            prompts = led_away(prompts, negative.context)
        display = Display(plan.num_steps(), lambda: chunk_previewer(run.guider.model_patcher))
        progress = latent_progress(run.base, plan, run.batch, display)
        say_limits(self.settings, plan, positive)
        given = self.first_frame and given_latent(run.base, self.first_frame, run.batch)
        stream = run.open_stream(plan, SeededNoise(seed), prompts, progress, inputs=Inputs(given))
        say_crop(plan, latent_size(x.shape))
        with told(display.where):
            made = torch.cat(list(shown(stream, progress, display)), dim=2).to(x.device)
        return crop_latent(made, x.shape)


@dataclass(frozen=True)
class PlannedSampler(SamplerFunction):
    """A sampler function for an existing plan: `work` does everything, and the host gets an empty latent."""

    planned: Plan
    work: Callable[[HostRun], None]
    shape: tuple[int, ...]
    kv: str
    speed: Speed
    extra_bytes: int = 0

    def plan(self, shape: Sequence[int], timeline: Timeline | None = None) -> Plan:
        return self.planned

    def sampled(self, run: HostRun, x: Tensor, seed: int) -> Tensor:
        self.work(run)
        return torch.zeros_like(x)


def as_sampler(function: SamplerFunction) -> comfy.samplers.KSAMPLER:
    """A sampler function as a SAMPLER of the host."""
    return comfy.samplers.KSAMPLER(function)


def latent_progress(base, plan: Plan, batch: int, display: Display) -> Progress:
    """The progress of a run that makes a LATENT, which another node may decode."""
    cost = Cost(wan_config(base.diffusion_model), plan, batch=batch)
    return new_progress(cost, decodes=False, report=display)


def shown(stream: Stream, progress: Progress, display: Display) -> Iterator[Tensor]:
    """Yield the chunks [B, C, T, H, W] of a stream as they are finished, each shown to the artist.

    Raises ValueError for one that is not finite.
    """
    num_chunks = stream.plan.num_chunks
    progress.pace.start()
    for index, chunk in enumerate(stream.chunks(), start=1):
        check_finite(chunk, f"chunk {index} of {num_chunks}")
        progress.count_chunk(frames_of(stream.plan, index - 1))
        display.show(chunk, progress)
        yield chunk


def attach(model, settings: ModelSettings):
    """A clone of MODEL that carries `settings` and, in a HiStream sampler, asks for the memory of one chunk."""
    model = model.clone()
    model.set_attachments(PRESET_KEY, settings)
    model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY, sample_by_chunks)
    return model


def sample_by_chunks(executor, noise: Tensor, latent_image: Tensor, sampler, *args, **kwargs) -> Tensor:
    """Wrapper of the guider's outer sampling: hand the host one chunk to look at instead of the whole video.

    The host would otherwise move the whole LATENT to the device and make room for the whole clip at once.
    Samplers of others pass through; raises ValueError for one on the demo model, and on SGF+.
    """
    function = getattr(sampler, "sampler_function", None)
    if not isinstance(function, ChunkSampler | PlannedSampler):
        check_other_sampler(model_settings(executor.class_obj.model_patcher))
        return executor(noise, latent_image, sampler, *args, **kwargs)
    guider = executor.class_obj
    check_latent({"samples": latent_image})
    shape = function.shape or tuple(latent_image.shape)
    function = replace(function, shape=shape)
    plan = plan_under(guider, function, shape)
    frames = plan.window.chunk_frames

    def prepare(executor, model, noise_shape, conds, *args, **kwargs):
        shape = chunk_shape(model, plan, noise_shape, kv=function.kv, extra_bytes=function.extra_bytes)
        return executor(model, shape, conds, *args, **kwargs)

    add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, WRAPPER_KEY, prepare, guider.model_options, is_model_options=True)
    sampler = comfy.samplers.KSAMPLER(function, sampler.extra_options, sampler.inpaint_options)
    return executor(noise[:, :, :frames], latent_image[:, :, :frames], sampler, *args, **kwargs)


def check_other_sampler(settings: ModelSettings) -> None:
    """Refuse a sampler of others on weights that it cannot sample. Raises ValueError."""
    if settings.second:
        raise ValueError(
            "these weights (SGF+) have a second set for finished frames, which this sampler does not use: connect the "
            "MODEL to the Anchor-Window Sampler instead"
        )
    if settings.demo:
        raise ValueError(
            "the Demo Model makes videos chunk by chunk, and with this sampler they come out empty: connect it to the "
            "Anchor-Window Sampler instead"
        )


def plan_under(guider, function: SamplerFunction, shape: Sequence[int]) -> Plan:
    """The plan of a sampler function under a guider, whose CFG it takes. Raises ValueError where they differ."""
    plan = function.plan(shape, timeline_of(guider.conds.get("positive")))
    cfg, planned = getattr(guider, "cfg", 1.0), plan.guidance.cfg
    if cfg == planned:
        return plan
    if planned != 1:
        raise ValueError(
            f"CFG is {planned:g} on the MODEL (Dual-Resolution Cache) and {cfg:g} in the guider: set it to {planned:g} "
            "in a CFGGuider, or to 1 on the MODEL"
        )
    return replace(plan, guidance=replace(plan.guidance, cfg=cfg))


def guide(model, prompt: Prompt, sampler: PlannedSampler, *, vae=None) -> None:
    """Run a sampler that knows its shape under the host's guider; `vae` stays loaded beside it."""
    model = attach(model, model_settings(model))
    if vae is not None:
        model.set_additional_models(WRAPPER_KEY, [vae.patcher])
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds(conditions_of(prompt))
    guider.set_cfg(sampler.planned.guidance.cfg)
    batch, channels, _, *grid = sampler.shape
    blank = torch.zeros(batch, channels, 1, *grid)
    sigmas = first_chunk_sigmas(first_steps(sampler.plan(sampler.shape)))
    guider.sample(blank, blank, comfy.samplers.KSAMPLER(sampler), sigmas, disable_pbar=True, seed=0)


def conditions_of(prompt: Prompt) -> dict[str, list]:
    """The CONDITIONING of a prompt, and of its negative one where there is one, by the host's names."""
    negative = prompt.text.negative
    found = {"positive": [[prompt.text.context, {}]]}
    return found | ({"negative": [[negative.context, {}]]} if negative else {})


def first_steps(plan: Plan) -> Steps:
    """The steps of the first chunk that is denoised; none where none is, also of a plan without an end."""
    last = plan.given_chunks + len(plan.schedule)
    chunks = plan.chunks[:last] if plan.endless else plan.chunks
    return next((chunk.steps for chunk in chunks if chunk.steps), ())


def given_latent(base, first: FirstFrame, batch: int) -> Tensor:
    """The latent [B, C, T, H, W] of first chunks as the network has it, the same in every video of a batch."""
    return base.process_latent_in(first.latent).expand(batch, -1, -1, -1, -1)


def first_chunk_sigmas(steps: Steps) -> Tensor:
    """Noise levels of a chunk's steps and the final 0, as SIGMAS."""
    return torch.tensor([*(step.sigma for step in steps), 0.0])
