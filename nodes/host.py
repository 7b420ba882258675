"""The one adapter between the host and the engine.

Sampling runs inside the host's own guider, so loading, LoRA, offload, hooks and interrupts are the host's. One
wrapper around the Wan module, in place for one run only, lets `forward_chunk` compute what the module's own forward
would: it reads the step and the cache to use from the run that is on.

B batch, C channels, T latent frames, H W latent grid, L tokens, N heads, D head dim.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import cycle

import comfy.model_management
import comfy.samplers
import comfy.utils
import server
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.wan.vae import WanVAE as HostWanVAE
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from comfy_execution.utils import get_executing_context
from torch import Tensor, nn

from ..histream_core import decoders
from ..histream_core.cache import KVCache
from ..histream_core.kernels import Kernels
from ..histream_core.noise import Noise, SeededNoise
from ..histream_core.pace import Pace
from ..histream_core.plan import Plan
from ..histream_core.schedule import Scale, Step, Steps
from ..histream_core.speed import DEFAULTS, Speed
from ..histream_core.stream import Given, Prompt, Stream, make_caches
from ..histream_core.timeline import prompts_for
from ..histream_core.wan import Text, forward_chunk
from ..histream_core.wan_model import WanConfig
from ..histream_core.wan_vae import WanVAE
from .host_checks import (
    check_conditioning,
    check_empty,
    check_finite,
    check_guider,
    check_latent,
    check_model,
    check_options,
    check_sigmas,
)
from .host_first_frame import FirstFrame, check_fits
from .host_preview import PREVIEW_PIXELS, Previewer, guesser, small_decoder, stills
from .host_speed import kernels_for
from .host_timeline import Timeline, placed, timeline_of
from .settings import PRESET_KEY, ModelSettings, StepChoice, WindowChoice, plan_for

WRAPPER_KEY = "histream"


class HostRun:
    """One sampling run: its caches, its prompt, its progress. Made by the run, gone with it.

    `denoise` is the engine's network call; on the way it passes through the host's guider and comes back in
    `forward`, the wrapper.
    """

    def __init__(
        self,
        model: Callable,
        plan: Plan,
        extra_args: dict,
        *,
        batch: int,
        kv: str,
        speed: Speed,
        previewer: Previewer | None,
    ):
        """`model` is what a sampler function gets from the host, with its `extra_args`; `kv` is one of TIERS.

        Raises ValueError for a `speed` that cannot be had.
        """
        self.model, self.plan, self.kv = model, plan, kv
        self.guider = model.inner_model
        self.base = self.guider.inner_model
        self.kernels = kernels_for(speed, self.guider.model_patcher, self._attend)
        self.block_forward = self.kernels.block_forward(plan, tell=warn)
        self.low_forward = self.kernels.low_forward(tell=warn)
        self.batch = batch
        self.prompt = Prompt(self._text())
        self.told: list[str] = []
        """Where the prompts of a timeline begin, in words."""
        self.previewer = previewer
        self.bottleneck, self.kv_bytes = "", 0
        self.expect(plan, plan.num_steps())
        self._call: tuple[Step, KVCache, Text] | None = None
        self._context_checked = False
        options = extra_args["model_options"]
        transformer_options = options["transformer_options"] = dict(options.get("transformer_options", {}))
        transformer_options["wrappers"] = {
            kind: {key: list(wrappers) for key, wrappers in by_key.items()}
            for kind, by_key in transformer_options.get("wrappers", {}).items()
        }
        # It would compile the whole model piece by piece, dozens of graphs; the layers are compiled in its place.
        transformer_options["wrappers"].get(WrappersMP.APPLY_MODEL, {}).pop(COMPILE_KEY, None)
        add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, WRAPPER_KEY, self.forward, transformer_options)
        self.extra_args = extra_args

    def expect(self, plan: Plan, num_parts: int) -> None:
        """Begin a progress bar of so many parts, for what `plan` does not find done."""
        self.num_parts, self.num_done = num_parts, 0
        self.progress = comfy.utils.ProgressBar(num_parts)
        self.pace = Pace(plan, wan_config(self.base.diffusion_model), batch=self.batch)
        self.pictures: Iterator = iter(())

    def stream(
        self,
        plan: Plan,
        noise: Noise,
        device: torch.device,
        *,
        prompts: Sequence[Prompt] | None = None,
        given: Tensor | Given | None = None,
        extra_bytes: int = 0,
    ) -> Stream:
        """Allocate the caches, after the host made room for them and for `extra_bytes`, and set up the engine.

        `prompts` None: the one of the guider.
        """
        sizes = model_sizes(self.base.diffusion_model) | {"dtype": self.base.get_dtype_inference(), "kv": self.kv}
        self.kv_bytes = kv_bytes(plan, self.batch, **sizes)
        make_room(self.kv_bytes + extra_bytes, self.guider, device)
        caches = make_caches(plan, batch=self.batch, device=device, **sizes)
        return Stream(plan, self.denoise, caches, noise, prompts or [self.prompt], given=given)

    def prompts(self, device: torch.device) -> list[Prompt]:
        """The prompts of the guider's timeline, else its one prompt."""
        timeline = timeline_of(self.guider.conds["positive"])
        if timeline is None:
            return [self.prompt]
        found = placed(timeline, self.plan)
        self.told = found.lines
        for line in found.lines:
            say(line)
        return prompts_for(found.stretches(self.batch, self.base.diffusion_model.text_dim), device)

    def denoise(self, latent: Tensor, step: Step, cache: KVCache, text: Text) -> Tensor:
        """Clean estimate of a chunk [B, C, T, H, W], by way of the guider."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._call = step, cache, text
        self.pace.begin(step)
        tell(self.pace.describe(self.bottleneck))
        clean = self.model(latent, latent.new_full((self.batch,), step.sigma), **self.extra_args)
        if self._call is not None:
            raise ValueError(
                "another node on this MODEL skipped a step (EasyCache, TeaCache and the like do): remove it, few-step "
                "sampling needs every step"
            )
        self.pace.end(step)
        if step.sigma == 0:
            return latent
        self.count()
        return clean

    def forward(
        self,
        executor,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        clip_fea=None,
        time_dim_concat=None,
        transformer_options: dict | None = None,
        **kwargs,
    ) -> Tensor:
        """Stands in for the Wan module's forward: flow [B, C, T, H, W] of a chunk; zeros for a cache pass."""
        check_options(transformer_options, clip_fea, time_dim_concat, kwargs)
        if self._call is None:
            raise ValueError("the guider asks for more than one prompt: set CFG to 1, or use BasicGuider")
        step, cache, text = self._call
        self._call = None
        self._check_context(context)

        def on_block(index: int) -> None:
            transformer_options["block_index"] = index

        self._transformer_options = transformer_options
        transformer_options["total_blocks"] = len(executor.class_obj.blocks)
        transformer_options["block_type"] = "double"
        forward = self.low_forward if step.scale is Scale.LOW else forward_chunk
        flow = forward(
            executor.class_obj,
            x,
            timestep,
            text,
            cache,
            attention=self.kernels.attention,
            attention_scale=step.attention_scale,
            cache_pass=step.sigma == 0,
            on_block=on_block,
            block_forward=self.block_forward,
        )
        return torch.zeros_like(x) if flow is None else flow

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The host's own attention, or what another node put in its place: [B, L, N, D] as in the engine."""
        heads = q.shape[2]
        q, k, v = (y.flatten(2) for y in (q, k, v))
        y = optimized_attention(q, k, v, heads=heads, transformer_options=self._transformer_options)
        return y.unflatten(2, (heads, -1))

    def count(self) -> None:
        """One part more of the progress bar is done; what was finished last moves on by a picture."""
        self.num_done += 1
        self._update(next(self.pictures, None))

    def show(self, clean: Tensor) -> None:
        """Show a finished chunk [B, C, T, H, W]."""
        self.show_pictures(self.previewer(clean) if self.previewer else [])

    def show_pictures(self, pictures: Sequence) -> None:
        """Show the last picture of a finished chunk now, and all of them in turn while the next one is made."""
        self.pace.finish()
        tell(self.pace.describe(self.bottleneck))
        self.pictures = cycle(pictures)
        self._update(pictures[-1] if pictures else None)

    def _update(self, picture) -> None:
        preview = ("JPEG", picture, PREVIEW_PIXELS) if picture else None
        self.progress.update_absolute(self.num_done, self.num_parts, preview)

    def _text(self) -> Text:
        width = self.base.diffusion_model.text_dim
        context = check_conditioning(self.guider.conds.get("positive"), self.batch, width)
        return Text(comfy.utils.repeat_to_batch_size(context, self.batch))

    def _check_context(self, context: Tensor) -> None:
        """The keys of a prompt are computed once, so what arrives must be the prompt that the guider began with."""
        if self._context_checked:
            return
        given = self.prompt.text.context
        if context.shape != given.shape or not torch.equal(context, given.to(context)):
            raise ValueError(
                "another node changes the CONDITIONING while sampling, which HiStream would not see: remove it"
            )
        self._context_checked = True


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


def chunk_shape(model, plan: Plan, noise_shape: Sequence[int], *, kv: str, extra_bytes: int = 0) -> list[int]:
    """The latent shape whose memory is that of one chunk, of the key-value caches and of `extra_bytes`."""
    batch, channels, _, *grid = noise_shape
    sizes = model_sizes(model.model.diffusion_model) | {"dtype": model.model.get_dtype_inference(), "kv": kv}
    frame_bytes = model.model.memory_required([2 * batch, channels, 1, *grid])
    extra = math.ceil((kv_bytes(plan, batch, **sizes) + extra_bytes) / max(1, frame_bytes))
    return [batch, channels, plan.window.chunk_frames + extra, *grid]


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
    return rest | {"samples": made}, runs[0]


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


def model_sizes(module: nn.Module) -> dict[str, int]:
    """What `make_caches` wants to know about a Wan module."""
    heads = module.num_heads
    return {"num_layers": len(module.blocks), "num_heads": heads, "head_dim": module.dim // heads}


def wan_config(module: nn.Module) -> WanConfig:
    """The sizes of a Wan module of the host."""
    return WanConfig(**{size.name: getattr(module, size.name) for size in fields(WanConfig)})


def kv_bytes(plan: Plan, batch: int, **sizes) -> int:
    """Bytes of a run's caches on the device, without allocating them."""
    return sum(cache.nbytes for cache in make_caches(plan, batch=batch, device="meta", **sizes).values())


def make_room(num_bytes: int, guider, device: torch.device) -> None:
    """Free memory on the device, but never of the models that this run needs."""
    needed = [guider.model_patcher, *guider.loaded_models]
    keep = [known for known in comfy.model_management.current_loaded_models if known.model in needed]
    comfy.model_management.free_memory(num_bytes, device, keep_loaded=keep)


def chunk_previewer(model, vae=None) -> Previewer | None:
    """What makes pictures of a finished chunk.

    True colours where a VAE is given or a TAEHV lies in the host's vae_approx folder, else a guess.
    """
    if vae is not None:
        decoder = open_decoder(vae, normalised=False)
        return lambda clean: stills(decoder, model.model.process_latent_out(clean[:1].float()).to(vae.device))
    try:
        small = small_decoder(model.load_device)
    except ValueError as error:
        warn(f"previews are a guess: {error}")
        small = None
    if small is None:
        return guesser(model)
    return lambda clean: stills(small, clean[:1].float().to(model.load_device))


def open_decoder(vae, speed: Speed = DEFAULTS, *, normalised: bool = True) -> decoders.Decoder:
    """The decoder for a VAE, as far as `speed` chooses one.

    A TAEHV in float16 the host takes for that of another model; here it is Wan's, which wants latents as sampled.
    """
    module = vae.first_stage_model
    return decoders.open_decoder(
        vae_module(vae),
        dtype=vae.vae_dtype,
        normalised=normalised,
        raw_latents=getattr(module, "latent_format", None) is None,
        channels_last=speed.vae_layout == "channels-last",
        strips=int(speed.vae_strips),
    )


def vae_module(vae) -> nn.Module:
    """The modules to decode with: the host's, or on a CPU core's own around the same weights, several times faster."""
    module = vae.first_stage_model
    if not isinstance(module, HostWanVAE) or vae.device.type != "cpu" or vae.vae_dtype != torch.float32:
        return module
    return WanVAE.from_state_dict(module.state_dict())


def say_kernels(kernels: Kernels) -> None:
    """What a run computes with, in the host's log: once for each run."""
    chosen = ", ".join(f"{name} {words}" for name, words in kernels.in_use.items())
    say(f"computing with {chosen}")


def say(message: str) -> None:
    """A line in the host's log."""
    logging.getLogger("histream").info(message)


def warn(message: str) -> None:
    """Say what works but is not what it seems: in the host's log, and under the node that is running."""
    logging.getLogger("histream").warning(message)
    tell(message)


def tell(message: str) -> None:
    """Show a line under the node that is running, to whoever runs it."""
    context = get_executing_context()
    instance = getattr(server.PromptServer, "instance", None)
    if context and instance:
        instance.send_progress_text(message, context.node_id, instance.client_id)
