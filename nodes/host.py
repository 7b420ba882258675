"""The one adapter between the host and the engine.

Sampling runs inside the host's own guider, so loading, LoRA, offload, hooks and interrupts are the host's. One
wrapper around the Wan module, in place for one run only, lets `forward_chunk` compute what the module's own forward
would: it reads the step and the cache to use from the run that is on.

B batch, C channels, T latent frames, H W latent grid, L tokens, N heads, D head dim.
"""

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import comfy.ldm.wan.ar_model
import comfy.ldm.wan.model
import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import server
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy_execution.utils import get_executing_context
from torch import Tensor, nn

from ..histream_core.cache import KVCache
from ..histream_core.decode import StreamingDecoder, to_frames
from ..histream_core.noise import Noise, SeededNoise
from ..histream_core.plan import Plan
from ..histream_core.schedule import Step, Steps
from ..histream_core.stream import Prompt, Stream, make_caches
from ..histream_core.wan import Text, forward_chunk
from .settings import PRESET_KEY, ModelSettings, StepChoice, WindowChoice, plan_for

WAN_CLASSES = (comfy.ldm.wan.model.WanModel, comfy.ldm.wan.ar_model.CausalWanModel)
PREVIEW_PIXELS = 512
WRAPPER_KEY = "histream"

# Replacing one of these would change nothing here: the engine calls what lies below them.
UNUSED_FORWARDS = re.compile(
    r"diffusion_model\.(_?forward|forward_orig|rope_embedder|rope_encode|unpatchify"
    r"|blocks\.\d+(\.(self_attn|cross_attn))?(\.forward)?)$"
)
UNUSED_CONDITIONS = {
    "area": "an area",
    "clip_vision_output": "a CLIP vision image",
    "concat_latent_image": "an image to start from",
    "control": "a ControlNet",
    "end_percent": "a range of steps",
    "gligen": "GLIGEN",
    "mask": "a mask",
    "reference_latents": "reference latents",
    "start_percent": "a range of steps",
    "vace_frames": "VACE frames",
}


class HostRun:
    """One sampling run: its caches, its prompt, its progress. Made by the run, gone with it.

    `denoise` is the engine's network call; on the way it passes through the host's guider and comes back in
    `forward`, the wrapper.
    """

    def __init__(self, model: Callable, plan: Plan, extra_args: dict, *, batch: int, previewer: Callable | None):
        """`model` is what a sampler function gets from the host, with its `extra_args`."""
        self.model, self.plan = model, plan
        self.guider = model.inner_model
        self.base = self.guider.inner_model
        self.batch = batch
        self.prompt = Prompt(self._text())
        self.previewer = previewer
        self.progress = comfy.utils.ProgressBar(plan.num_steps())
        self.num_done = 0
        self._call: tuple[Step, KVCache, Text] | None = None
        self._context_checked = False
        options = extra_args["model_options"]
        transformer_options = options["transformer_options"] = dict(options.get("transformer_options", {}))
        transformer_options["wrappers"] = {
            kind: {key: list(wrappers) for key, wrappers in by_key.items()}
            for kind, by_key in transformer_options.get("wrappers", {}).items()
        }
        add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, WRAPPER_KEY, self.forward, transformer_options)
        self.extra_args = extra_args

    def stream(self, noise: Noise, device: torch.device) -> Stream:
        """Allocate the caches, after the host made room for them, and set up the engine."""
        sizes = model_sizes(self.base.diffusion_model) | {"dtype": self.base.get_dtype_inference()}
        comfy.model_management.free_memory(kv_bytes(self.plan, self.batch, **sizes), device)
        caches = make_caches(self.plan, batch=self.batch, device=device, **sizes)
        return Stream(self.plan, self.denoise, caches, noise, [self.prompt])

    def denoise(self, latent: Tensor, step: Step, cache: KVCache, text: Text) -> Tensor:
        """Clean estimate of a chunk [B, C, T, H, W], by way of the guider."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._call = step, cache, text
        clean = self.model(latent, latent.new_full((self.batch,), step.sigma), **self.extra_args)
        if self._call is not None:
            raise ValueError(
                "another node on this MODEL skipped a step (EasyCache, TeaCache and the like do): remove it, few-step "
                "sampling needs every step"
            )
        if step.sigma == 0:
            return latent
        self.num_done += 1
        self.progress.update_absolute(self.num_done)
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
        step, cache, text = self._call
        self._call = None
        self._check_context(context, text)

        def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            heads = q.shape[2]
            q, k, v = (y.flatten(2) for y in (q, k, v))
            y = optimized_attention(q, k, v, heads=heads, transformer_options=transformer_options)
            return y.unflatten(2, (heads, -1))

        def on_block(index: int) -> None:
            transformer_options["block_index"] = index

        transformer_options["total_blocks"] = len(executor.class_obj.blocks)
        transformer_options["block_type"] = "double"
        flow = forward_chunk(
            executor.class_obj,
            x,
            timestep,
            text,
            cache,
            attention=attention,
            attention_scale=step.attention_scale,
            cache_pass=step.sigma == 0,
            on_block=on_block,
        )
        return torch.zeros_like(x) if flow is None else flow

    def show(self, clean: Tensor) -> None:
        """Show a finished chunk [B, C, T, H, W] as a preview."""
        image = self.previewer(clean) if self.previewer else None
        preview = ("JPEG", image, PREVIEW_PIXELS) if image else None
        self.progress.update_absolute(self.num_done, self.plan.num_steps(), preview)

    def _text(self) -> Text:
        context = check_conditioning(self.guider.conds.get("positive"), self.batch)
        return Text(comfy.utils.repeat_to_batch_size(context, self.batch))

    def _check_context(self, context: Tensor, text: Text) -> None:
        """The keys of a prompt are computed once, so what arrives must be the prompt that the run began with."""
        if self._context_checked:
            return
        if context.shape != text.context.shape or not torch.equal(context, text.context.to(context)):
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
    shape: tuple[int, ...] | None = None
    """The whole LATENT [B, C, T, H, W], where the host is given less than that."""
    on_chunk: Callable[[Tensor], None] | None = None
    """Told every finished chunk, un-normalised, on the CPU; only the last chunk is then returned to the host."""
    noise: Noise | None = None
    vae: object | None = None

    def plan(self, shape: Sequence[int]) -> Plan:
        return plan_for(self.settings, self.steps, self.window, shape)

    @torch.no_grad()
    def __call__(
        self, model: Callable, x: Tensor, sigmas: Tensor, extra_args: dict, callback=None, disable=None
    ) -> Tensor:
        """Latents [B, C, T, H, W], normalised; raises ValueError for what cannot work, before the first step."""
        shape = self.shape or tuple(x.shape)
        guider = model.inner_model
        check_model(guider.model_patcher)
        check_guider(guider, extra_args)
        plan = self.plan(shape)
        check_sigmas(sigmas, plan)
        previewer = chunk_previewer(guider.model_patcher, self.vae)
        run = HostRun(model, plan, extra_args, batch=shape[0], previewer=previewer)
        noise = self.noise or SeededNoise(extra_args.get("seed") or 0)
        chunks = []
        for index, chunk in enumerate(run.stream(noise, x.device).chunks()):
            check_finite(chunk, f"chunk {index + 1} of {len(plan.chunks)}")
            run.show(chunk)
            if self.on_chunk:
                self.on_chunk(run.base.process_latent_out(chunk.float()).cpu())
                chunks.clear()
            chunks.append(chunk)
        return torch.cat(chunks, dim=2)


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
    plan = function.plan(function.shape)
    frames = plan.window.chunk_frames

    def prepare(executor, model, noise_shape, conds, *args, **kwargs):
        return executor(model, chunk_shape(model, plan, noise_shape), conds, *args, **kwargs)

    add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, WRAPPER_KEY, prepare, guider.model_options, is_model_options=True)
    sampler = comfy.samplers.KSAMPLER(function, sampler.extra_options, sampler.inpaint_options)
    return executor(noise[:, :, :frames], latent_image[:, :, :frames], sampler, *args, **kwargs)


def chunk_shape(model, plan: Plan, noise_shape: Sequence[int]) -> list[int]:
    """The latent shape whose memory is that of one chunk and of the key-value caches."""
    batch, channels, _, *grid = noise_shape
    sizes = model_sizes(model.model.diffusion_model) | {"dtype": model.model.get_dtype_inference()}
    frame_bytes = model.model.memory_required([2 * batch, channels, 1, *grid])
    extra = math.ceil(kv_bytes(plan, batch, **sizes) / max(1, frame_bytes))
    return [batch, channels, plan.window.chunk_frames + extra, *grid]


def sample_latent(
    model, positive: list, latent: dict, sampler: ChunkSampler, *, seed: int, vae=None, on_chunk=None
) -> dict:
    """Make a video under the host's guider without guidance: the LATENT, filled, un-normalised, on the CPU."""
    check_model(model)
    samples = check_latent(latent, model)
    check_seed(seed)
    model = attach(model, sampler.settings)
    if vae is not None:
        model.set_additional_models(WRAPPER_KEY, [vae.patcher])
    chunks = []

    def keep(chunk: Tensor) -> None:
        chunks.append(chunk)
        if on_chunk:
            on_chunk(chunk)

    sampler = replace(sampler, shape=tuple(samples.shape), on_chunk=keep, vae=vae)
    plan = sampler.plan(samples.shape)
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": positive})
    blank = samples.new_zeros((*samples.shape[:2], 1, *samples.shape[3:]))
    guider.sample(
        blank,
        blank,
        comfy.samplers.KSAMPLER(sampler),
        first_chunk_sigmas(plan.chunks[0].steps),
        disable_pbar=True,
        seed=seed,
    )
    rest = {key: value for key, value in latent.items() if not key.startswith("downscale_ratio")}
    return rest | {"samples": torch.cat(chunks, dim=2).to(comfy.model_management.intermediate_device())}


def first_chunk_sigmas(steps: Steps) -> Tensor:
    """Noise levels of a chunk's steps and the final 0, as SIGMAS."""
    return torch.tensor([*(step.sigma for step in steps), 0.0])


def model_sizes(module: nn.Module) -> dict[str, int]:
    """What `make_caches` wants to know about a Wan module."""
    heads = module.num_heads
    return {"num_layers": len(module.blocks), "num_heads": heads, "head_dim": module.dim // heads}


def kv_bytes(plan: Plan, batch: int, **sizes) -> int:
    """Bytes of a run's caches, without allocating them."""
    return sum(cache.nbytes for cache in make_caches(plan, batch=batch, device="meta", **sizes).values())


def chunk_previewer(model, vae=None) -> Callable[[Tensor], object] | None:
    """A function from a finished chunk [B, C, T, H, W] to an image of its last frame.

    True colours where a VAE is given; else what the user chose in the host's settings, else a linear guess.
    """
    if vae is not None:
        return lambda clean: decode_still(vae, model.model.process_latent_out(clean[:1, :, -1:].float()))
    latent_format = model.model.latent_format
    previewer = latent_preview.get_previewer(model.load_device, latent_format)
    if previewer is None and latent_format.latent_rgb_factors is not None:
        previewer = latent_preview.Latent2RGBPreviewer(
            latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias
        )
    return previewer and (lambda clean: previewer.decode_latent_to_preview(clean[:1, :, -1:]))


def decode_still(vae, latent: Tensor):
    """One un-normalised latent frame [1, C, 1, H, W] as a picture."""
    decoder = StreamingDecoder(vae.first_stage_model, dtype=vae.vae_dtype, normalised=False)
    return latent_preview.preview_to_image(to_frames(decoder.decode(latent.to(vae.device)))[0, 0], do_scale=False)


def check_seed(seed: int) -> None:
    SeededNoise(seed)


def check_latent(latent: Mapping, model=None) -> Tensor:
    """The samples of an empty LATENT, [B, 16, T, H, W]; raises ValueError for one that would be ignored."""
    samples = latent["samples"]
    if samples.is_nested:
        raise ValueError("the LATENT holds several tensors (video with audio): use an empty video latent of Wan 2.1")
    if model is not None:
        ratios = (latent.get("downscale_ratio_spacial"), latent.get("downscale_ratio_temporal"))
        samples = comfy.sample.fix_empty_latent_channels(model, samples, *ratios)
    if 0 in samples.shape:
        raise ValueError(f"the LATENT of shape {list(samples.shape)} is empty of frames: ask for at least 1 frame")
    check_finite(samples, "the LATENT")
    if torch.count_nonzero(samples):
        raise ValueError(
            "the LATENT is not empty, and this sampler starts from noise alone: use EmptyHunyuanLatentVideo"
        )
    if latent.get("noise_mask") is not None:
        raise ValueError("the LATENT has a noise mask, which this sampler cannot follow: remove it")
    return samples


def check_finite(latent: Tensor, name: str) -> None:
    if not torch.isfinite(latent).all():
        raise ValueError(
            f"{name} contains NaN or infinity: load the MODEL with another weight dtype, or make the LATENT anew"
        )


def check_model(model) -> None:
    """Refuse a MODEL whose weights or patches the causal forward would not honour."""
    module = model.get_model_object("diffusion_model")
    name = type(module).__name__
    if type(module) not in WAN_CLASSES:
        raise ValueError(f"the MODEL is a {name}, not a Wan 2.1 text-to-video model: load one of those")
    if module.model_type != "t2v" or (module.in_dim, module.out_dim) != (16, 16):
        raise ValueError(
            f"the MODEL takes {module.in_dim} latent channels (an image-to-video or other variant), not 16: load the "
            "text-to-video weights, causal video is made from those"
        )
    unused = [key for key in model.object_patches if UNUSED_FORWARDS.match(key)]
    if unused:
        raise ValueError(f"another node replaced {unused[0]}, which HiStream does not call: remove that node")


def check_guider(guider, extra_args: Mapping) -> None:
    cfg = getattr(guider, "cfg", 1.0)
    if cfg != 1:
        raise ValueError(f"CFG is {cfg:g}, but few-step causal weights work without guidance: set it to 1")
    if extra_args.get("denoise_mask") is not None:
        raise ValueError("the LATENT has a noise mask, which this sampler cannot follow: remove it")


def check_options(transformer_options: Mapping, clip_fea, time_dim_concat, kwargs: Mapping) -> None:
    """Refuse, on every call, whatever other nodes ask for and the causal forward would silently leave out."""
    if len(transformer_options.get("cond_or_uncond", [0])) > 1:
        raise ValueError("the guider asks for a negative prompt too: set CFG to 1, or use BasicGuider")
    wanted = {
        "block patches": transformer_options.get("patches_replace", {}).get("dit"),
        "attention patches": transformer_options.get("patches"),
        "position (RoPE) options": transformer_options.get("rope_options"),
    }
    asked = [name for name, value in wanted.items() if value]
    asked += [
        name for name, value in {"clip_fea": clip_fea, "time_dim_concat": time_dim_concat}.items() if value is not None
    ]
    asked += [name for name, value in kwargs.items() if value is not None]
    if asked:
        raise ValueError(f"another node on this MODEL uses {asked[0]}, which HiStream cannot follow: remove that node")


def check_conditioning(conds: Sequence[Mapping] | None, batch: int) -> Tensor:
    """The text [items, tokens, channels] of a CONDITIONING that is one plain prompt."""
    if not conds:
        raise ValueError("the guider has no positive conditioning: use BasicGuider")
    if len(conds) > 1:
        raise ValueError(
            f"the CONDITIONING holds {len(conds)} prompts at once, HiStream takes one: do not combine them"
        )
    cond = conds[0]
    unused = [what for key, what in UNUSED_CONDITIONS.items() if cond.get(key) is not None]
    if unused:
        raise ValueError(f"the CONDITIONING carries {unused[0]}, which HiStream cannot follow: connect a plain prompt")
    text = cond.get("cross_attn")
    if text is None or text.ndim != 3:
        raise ValueError("the CONDITIONING is no text for Wan: encode the prompt with a CLIP of type wan")
    if text.shape[0] not in (1, batch):
        raise ValueError(f"{text.shape[0]} prompts do not fit {batch} videos: give 1, or {batch}")
    return text


def check_sigmas(sigmas: Tensor, plan: Plan) -> None:
    """Refuse SIGMAS of another schedule: the steps are the plan's, and a later chunk may take others."""
    wanted = first_chunk_sigmas(plan.chunks[0].steps)
    if sigmas.shape != wanted.shape or not torch.allclose(sigmas.float().cpu(), wanted, atol=1e-4):
        listed = ", ".join(f"{sigma:.4g}" for sigma in wanted.tolist())
        raise ValueError(f"the SIGMAS are not those of the first chunk, {listed}: connect SIGMAS of Step Schedule")


def warn(message: str) -> None:
    """Say what works but is not what it seems: in the host's log, and under the node that is running."""
    logging.getLogger("histream").warning(message)
    context = get_executing_context()
    instance = getattr(server.PromptServer, "instance", None)
    if context and instance:
        instance.send_progress_text(message, context.node_id)
