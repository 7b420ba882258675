"""One sampling run inside the host's own guider, so loading, LoRA, offload, hooks and interrupts are the host's.

For the time of one run a wrapper around the Wan module calls `forward_chunk` in place of the module's own forward, with
the step and the cache of the current call.

B batch, C channels, T latent frames, H W latent grid, L tokens, N heads, D head dim.
"""

from collections.abc import Callable, Sequence

import comfy.model_management
import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import Tensor

from ...histream_core.network.cache.tiers import make_caches
from ...histream_core.network.cache.window import CacheOptions, KVCache
from ...histream_core.network.forward import Forward, PassOptions, Text, forward_chunk, sigmas_of
from ...histream_core.parallel.engine import open_caches
from ...histream_core.plan.chunks import Plan
from ...histream_core.plan.schedule import JoinedStep, Scale, Step
from ...histream_core.plan.speed import Speed
from ...histream_core.runs.progress import Watch, counted
from ...histream_core.stream.inputs import NOTHING_GIVEN, Inputs
from ...histream_core.stream.noise import Noise
from ...histream_core.stream.prompts import Prompt
from ...histream_core.stream.stream import Stream
from . import log as host_log
from .additions import AGAIN, WRAPPER_KEY, between_calls, blamed_for
from .caches import kv_bytes, make_room
from .checks import check_conditioning, check_options
from .naming import names_of
from .ranks import network_of, sharing_of
from .speed import attend_by_host, kernels_for

RAW_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Errors out of another node's function that an artist could make nothing of. A lost rank is none of them."""


class HostRun:
    """The network of one sampling run, called through the host's guider; it lives as long as the run.

    `denoise` is the engine's network call; on the way it passes through the host's guider and comes back in
    `forward`, the wrapper.
    """

    def __init__(self, model: Callable, plan: Plan, extra_args: dict, *, batch: int, kv: str, speed: Speed):
        """`model` is what a sampler function gets from the host, with its `extra_args`; `kv` is one of TIERS.

        Raises ValueError for a `speed` that cannot be had.
        """
        self.model, self.plan, self.kv, self.batch = model, plan, kv, batch
        self.guider = model.inner_model
        self.base = self.guider.inner_model
        self.speed = speed
        self.kernels = kernels_for(speed, self.guider.model_patcher, self._attend)
        self.sharing = sharing_of(self.guider.model_patcher, plan, speed, kv)
        self.block_forward = self.kernels.block_forward(plan, warn=host_log.warn)
        low_forward = self.kernels.low_forward(warn=host_log.warn)
        self.forwards: dict[Scale, Forward] = {Scale.LOW: low_forward, Scale.HIGH: forward_chunk}
        self.prompt = Prompt(self._text())
        """The prompt that the guider has."""
        self._call: tuple[Step, KVCache, Text] | None = None
        self._context_checked = False
        self.extra_args = extra_args
        self._wrap(extra_args["model_options"])

    def _wrap(self, options: dict) -> None:
        """Put `forward` around the Wan module, for this run only."""
        transformer_options = options["transformer_options"] = dict(options.get("transformer_options", {}))
        transformer_options["wrappers"] = {
            kind: {key: list(wrappers) for key, wrappers in by_key.items()}
            for kind, by_key in transformer_options.get("wrappers", {}).items()
        }
        # The host's compile node would compile the whole model in dozens of graphs; the layers are compiled instead.
        transformer_options["wrappers"].get(WrappersMP.APPLY_MODEL, {}).pop(COMPILE_KEY, None)
        options.pop("disable_cfg1_optimization", None)  # there is no negative prompt to be computed at CFG 1
        add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, WRAPPER_KEY, self.forward, transformer_options)

    def open_stream(
        self,
        plan: Plan,
        noise: Noise,
        prompts: Sequence[Prompt],
        progress: Watch,
        *,
        inputs: Inputs = NOTHING_GIVEN,
        extra_bytes: int = 0,
    ) -> Stream:
        """Allocate the caches, after the host made room for them and for `extra_bytes`, and set up the engine."""
        device, module = self.guider.model_patcher.load_device, self.base.diffusion_model
        dtype = self.base.get_dtype_inference()
        options = CacheOptions(batch=self.batch, device=device, dtype=dtype, kv=self.kv)
        make_room(kv_bytes(plan, module, options) + extra_bytes, self.guider, device)
        if self.sharing.ranks > 1:
            opened = open_caches(self.sharing, plan, network_of(self.guider), options, self.speed)
            caches, self.forwards = opened.caches, dict.fromkeys(Scale, opened.forward or forward_chunk)
        else:
            caches = make_caches(plan, module, options)
        denoise = counted(self.denoise, progress)
        return Stream(plan, denoise, caches, noise, prompts, inputs=inputs)

    def denoise(self, latent: Tensor, step: Step, cache: KVCache, text: Text) -> Tensor:
        """Clean estimate of a chunk [B, C, T, H, W], by way of the guider."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._call = step, cache, text
        joined = isinstance(step, JoinedStep)
        sigma = sigmas_of(step, latent).flatten() if joined else latent.new_full((self.batch,), step.sigma)
        clean = self._ask(latent, sigma)
        if self._call is not None:
            raise ValueError(
                f"{self._between()} on this MODEL skipped a step, as EasyCache and the like do: remove that node, "
                "few-step sampling needs every step"
            )
        return latent if step.sigma == 0 else clean

    def _ask(self, latent: Tensor, sigma: Tensor) -> Tensor:
        """Call the network through the guider; raises ValueError with the node whose function on the MODEL fails."""
        try:
            return self.model(latent, sigma, **self.extra_args)
        except RAW_ERRORS as error:
            node = "" if comfy.model_management.is_oom(error) else blamed_for(error, self.guider.model_patcher)
            if not node:
                raise
            said = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ValueError(
                f"{node} on this MODEL failed ({said}): HiStream calls the network for chunks at two resolutions, "
                "which it may not expect; remove that node"
            ) from error

    def _between(self) -> str:
        """The nodes that can change what a call of the network is asked or answers."""
        return names_of(between_calls(self.guider.model_patcher))

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
        """Compute the flow [B, C, T, H, W] of a chunk in place of the Wan module's forward; zeros for a cache pass."""
        transformer_options = {} if transformer_options is None else transformer_options
        check_options(transformer_options, clip_fea, time_dim_concat, kwargs)
        step, cache, text = self._take_call(transformer_options)
        self._check_context(context)

        def on_block(index: int) -> None:
            transformer_options["block_index"] = index

        self._transformer_options = transformer_options
        transformer_options["total_blocks"] = len(executor.class_obj.blocks)
        transformer_options["block_type"] = "double"
        options = PassOptions(
            attention=self.kernels.attention,
            attention_scale=step.attention_scale,
            cache_pass=step.sigma == 0,
            on_block=on_block,
            block_forward=self.block_forward,
        )
        flow = self.forwards[step.scale](executor.class_obj, x, timestep, text, cache, options)
        return torch.zeros_like(x) if flow is None else flow

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend_by_host(q, k, v, transformer_options=self._transformer_options)

    def _text(self) -> Text:
        width = self.base.diffusion_model.text_dim
        context = check_conditioning(self.guider.conds.get("positive"), self.batch, width)
        return Text(comfy.utils.repeat_to_batch_size(context, self.batch))

    def _take_call(self, transformer_options: dict) -> tuple[Step, KVCache, Text]:
        """The current call, once; raises ValueError where it was taken before, or where another node set CFG."""
        cfg = getattr(self.guider, "cfg", 1.0)
        if cfg != 1:
            raise ValueError(
                f"{self._between()} on this MODEL sets CFG to {cfg:g} while sampling, but few-step causal weights work "
                "without guidance: remove that node"
            )
        if self._call is not None:
            taken, self._call = self._call, None
            return taken
        if transformer_options.get("cond_or_uncond", [0]) == [0] and between_calls(self.guider.model_patcher):
            raise ValueError(f"{self._between()} on this MODEL {AGAIN}: remove that node")
        raise ValueError("the guider asks for more than one prompt: set CFG to 1, or use BasicGuider")

    def _check_context(self, context: Tensor) -> None:
        """Raise ValueError if another node changed the prompt: its keys are computed only once."""
        if self._context_checked:
            return
        given = self.prompt.text.context
        if context.shape != given.shape or not torch.equal(context, given.to(context)):
            raise ValueError(
                f"{self._between()} on this MODEL changes the CONDITIONING while sampling, which HiStream would not "
                "see: remove that node"
            )
        self._context_checked = True
