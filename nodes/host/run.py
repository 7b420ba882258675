"""One sampling run inside the host's own guider, so loading, LoRA, offload, hooks and interrupts are the host's.

For the time of one run a wrapper around the Wan module calls `forward_chunk` in place of the module's own forward, with
the step and the cache of the current call.

B batch, C channels, T latent frames, H W latent grid, L tokens, N heads, D head dim.
"""

from collections.abc import Callable, Mapping, Sequence

import comfy.model_management
import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy.sampler_helpers import convert_cond
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import Tensor

from ...histream_core.network.cache.guided import GuidedCache
from ...histream_core.network.cache.tiers import make_caches
from ...histream_core.network.cache.window import CacheOptions, KVCache
from ...histream_core.network.forward import Forward, PassOptions, Text, check_sets, forward_chunk, sigmas_of
from ...histream_core.parallel.engine import open_caches
from ...histream_core.plan.chunks import Plan
from ...histream_core.plan.schedule import JoinedStep, Scale, SecondStep, Step
from ...histream_core.plan.speed import Speed
from ...histream_core.runs.progress import Watch, counted
from ...histream_core.stream.inputs import NOTHING_GIVEN, Inputs
from ...histream_core.stream.noise import Noise
from ...histream_core.stream.prompts import Prompt
from ...histream_core.stream.stream import Stream
from . import log as host_log
from .additions import AGAIN, WRAPPER_KEY, between_calls, blamed_for
from .caches import kv_bytes, make_room
from .checks import NEGATIVE_PROMPT, check_conditioning, check_options
from .naming import names_of
from .ranks import model_settings, network_of, sharing_of
from .second import second_of
from .speed import attend_by_host, kernels_for
from .timeline import check_negative

RAW_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Errors out of another node's function that an artist could make nothing of. A lost rank is none of them."""


Pass = tuple[Step, KVCache, Text]
"""One pass of the network: its step, and the cache and the text that it is computed with."""


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
        self.second = second_of(self.guider.model_patcher)
        check_sets(plan, self.second is not None)
        self.base = self.guider.inner_model
        self.speed = speed
        self.kernels = kernels_for(speed, self.guider.model_patcher, self._attend)
        self.sharing = sharing_of(self.guider.model_patcher, plan, speed, kv)
        self.block_forward = self.kernels.block_forward(plan, warn=host_log.warn)
        low_forward = self.kernels.low_forward(warn=host_log.warn)
        self.forwards: dict[Scale, Forward] = {Scale.LOW: low_forward, Scale.HIGH: forward_chunk}
        self.prompt = Prompt(self._text())
        """The prompt that the guider has."""
        self._passes: dict[int, Pass] = {}
        """The passes of a call that the guider has not asked for yet, by the index of their prompt."""
        self._checked: set[int] = set()
        """The prompts whose CONDITIONING was compared with what the guider has."""
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
        options.pop("disable_cfg1_optimization", None)  # no negative prompt is computed at CFG 1
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
        self._passes = passes_of(step, cache, text)
        joined = isinstance(step, JoinedStep)
        sigma = sigmas_of(step, latent).flatten() if joined else latent.new_full((self.batch,), step.sigma)
        clean = self._ask(latent, sigma)
        if self._passes:
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
        asked = transformer_options.get("cond_or_uncond", [0])
        parts = zip(asked, *(values.chunk(len(asked)) for values in (x, timestep, context)), strict=True)
        flows = [self._flow(executor.class_obj, transformer_options, *part) for part in parts]
        return flows[0] if len(flows) == 1 else torch.cat(flows)

    def _flow(
        self, module, transformer_options: dict, index: int, x: Tensor, timestep: Tensor, context: Tensor
    ) -> Tensor:
        """The flow of the pass for the prompt of that index."""
        step, cache, text = self._take_pass(index)
        self._check_context(index, context)

        def on_block(index: int) -> None:
            transformer_options["block_index"] = index

        self._transformer_options = transformer_options
        transformer_options["total_blocks"] = len(module.blocks)
        transformer_options["block_type"] = "double"
        options = PassOptions(
            attention=self.kernels.attention,
            attention_scale=step.attention_scale,
            cache_pass=step.sigma == 0,
            on_block=on_block,
            block_forward=self.block_forward,
            guidance=self.plan.guidance,
        )
        forward = self.forwards[step.scale]
        if self.second is not None and isinstance(step, SecondStep):
            module, forward = self.second.model.diffusion_model, forward_chunk
        flow = forward(module, x, timestep, text, cache, options)
        return torch.zeros_like(x) if flow is None else flow

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend_by_host(q, k, v, transformer_options=self._transformer_options)

    def _text(self) -> Text:
        """The prompt that the guider has, with its negative prompt where there is guidance."""
        guidance, negative = self.plan.guidance, None
        if guidance.is_on:
            found = self.guider.conds.get("negative") or self._negative_of_model()
            check_negative(guidance, found)
            negative = Text(self._context(found, which=NEGATIVE_PROMPT))
        return Text(self._context(self.guider.conds.get("positive")), negative)

    def _negative_of_model(self) -> list[dict]:
        return convert_cond(model_settings(self.guider.model_patcher).negative or [])

    def _context(self, conds: Sequence[Mapping] | None, **named: str) -> Tensor:
        context = check_conditioning(conds, self.batch, self.base.diffusion_model.text_dim, **named)
        return comfy.utils.repeat_to_batch_size(context, self.batch)

    def _take_pass(self, index: int) -> Pass:
        """A pass of the current call, once; raises ValueError where it was taken, or where another node set CFG."""
        cfg, planned = getattr(self.guider, "cfg", 1.0), self.plan.guidance.cfg
        if cfg != planned:
            raise ValueError(
                f"{self._between()} on this MODEL sets CFG to {cfg:g} while sampling, and the caches are those of CFG "
                f"{planned:g}: remove that node"
            )
        if index in self._passes:
            return self._passes.pop(index)
        if index < self.plan.guidance.passes and between_calls(self.guider.model_patcher):
            raise ValueError(f"{self._between()} on this MODEL {AGAIN}: remove that node")
        raise ValueError(
            "the guider asks for more than a prompt and its negative one: set CFG to 1, or use BasicGuider or CFGGuider"
        )

    def _check_context(self, index: int, context: Tensor) -> None:
        """Raise ValueError if another node changed a prompt: its keys are computed only once."""
        if index in self._checked:
            return
        text = self.prompt.text
        given = text.negative.context if index and text.negative else text.context
        if context.shape != given.shape or not torch.equal(context, given.to(context)):
            raise ValueError(
                f"{self._between()} on this MODEL changes the CONDITIONING while sampling, which HiStream would not "
                "see: remove that node"
            )
        self._checked.add(index)


def passes_of(step: Step, cache: KVCache, text: Text) -> dict[int, Pass]:
    """The passes of a network call by the host's index of their prompt: 0 the prompt, 1 the negative one."""
    if not isinstance(cache, GuidedCache):
        return {0: (step, cache, text)}
    assert text.negative is not None  # the stream has asked for it
    return {0: (step, cache.positive, text), 1: (step, cache.negative, text.negative)}
