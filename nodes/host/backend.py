"""A MODEL and a VAE of the host as the backend of runs: the network is called under the host's guider.

B batch, C channels, T latent frames, H W latent grid.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ...histream_core.cost.cost import Cost
from ...histream_core.cost.fitting import does_not_fit
from ...histream_core.network.cache.window import CacheOptions
from ...histream_core.network.kernels import Kernels
from ...histream_core.plan.chunks import Plan
from ...histream_core.plan.schedule import Scale
from ...histream_core.plan.speed import DEFAULTS, Speed
from ...histream_core.runs.backend import Result
from ...histream_core.runs.progress import Progress, new_progress
from ...histream_core.runs.restyle import EncodedSource
from ...histream_core.runs.session import OpenStream
from ...histream_core.stream.inputs import Inputs
from ...histream_core.stream.noise import Noise, SeededNoise
from ...histream_core.stream.prompts import Prompt
from ...histream_core.stream.stream import Stream
from ...histream_core.vae.decoders import Decoder
from . import vae as host_vae
from .caches import dtype_of, kv_bytes
from .checks import check_latent, check_model
from .display import Display, told
from .fingerprint import fingerprints
from .memory import cost_of, decoder_sizes, device_memory
from .preview import chunk_previewer
from .ranks import model_settings, wan_config
from .run import HostRun
from .sampler import (
    ChunkSampler,
    PlannedSampler,
    attach,
    given_latent,
    guide,
    latent_progress,
    shown,
)
from .sizes import latent_size, say_crop, with_size
from .speed import kernels_for
from .timeline import Audience, prompts_in, say_limits, timeline_of, with_negative, with_scenes


@dataclass(frozen=True)
class HostBackend:
    """A `Backend` of a MODEL, a VAE and the speed choices."""

    model: Any
    """The host's ModelPatcher, which holds the Wan module and everything that other nodes put on it."""
    vae: Any = None
    speed: Speed = DEFAULTS
    batch: int = 1
    vae_bytes: int = 0
    """Bytes on the device that the VAE takes during sampling, besides its weights."""

    @property
    def device(self) -> torch.device:
        return self.model.load_device

    @property
    def decode_device(self) -> torch.device:
        return self.vae.device

    @property
    def dtype(self) -> torch.dtype:
        return dtype_of(self.model)

    @property
    def kv(self) -> str:
        return model_settings(self.model).kv

    @property
    def text_width(self) -> int:
        """Channels of the text that the model reads."""
        return self.model.model.diffusion_model.text_dim

    def kernels(self) -> Kernels:
        return kernels_for(self.speed, self.model)

    def fingerprint(self) -> dict[str, str]:
        return fingerprints(self.model, self.vae)

    def open_decoder(self) -> Decoder:
        return host_vae.open_host_decoder(self.vae, self.speed)

    def open_source(self, frames: Iterator[Tensor], plan: Plan) -> EncodedSource:
        needed = self.encode_bytes(plan)
        comfy.model_management.load_models_gpu([self.vae.patcher], memory_required=needed)
        return self.encoded(frames, plan)

    def encoded(self, frames: Iterator[Tensor], plan: Plan) -> EncodedSource:
        """The source of `open_source`, where the VAE is loaded already."""
        return EncodedSource(frames, plan, host_vae.vae_module(self.vae), normalised=True)

    def encode_bytes(self, plan: Plan) -> int:
        """Bytes on the device that encoding the source of a plan takes; 0 without one."""
        cost = self.cost(plan)
        return cost.encoder_bytes + cost.encoder_working_bytes

    def cost(self, plan: Plan, *, num_prompts: int = 1) -> Cost:
        return cost_of(self.model, self.vae, plan, batch=self.batch, num_prompts=num_prompts, speed=self.speed)

    def memory_problems(self, cost: Cost) -> tuple[str, ...]:
        """One sentence for each part of caches and working memory that does not fit; the host moves weights out."""
        return does_not_fit(cost, device_memory(self.device))

    def kv_bytes(self, plan: Plan) -> int:
        """Bytes of the caches of a run on the device."""
        options = CacheOptions(batch=self.batch, dtype=self.dtype, kv=self.kv)
        return kv_bytes(plan, self.model.model.diffusion_model, options)

    def new_progress(self, plan: Plan) -> Progress:
        """The progress of a run; of a MODEL only the sizes are read, so that it may hold its weights in any form."""
        config = wan_config(self.model.model.diffusion_model)
        sizes = decoder_sizes(self.vae) if self.vae else {}
        return new_progress(Cost(config, plan, batch=self.batch, **sizes))

    def sample(
        self, plan: Plan, prompts: Sequence[Prompt], progress: Progress, work: Callable[[OpenStream], Result]
    ) -> Result:
        """Run `work` inside a sampler function of the host, so that its loading, LoRA, offload and Cancel work."""
        results: list[Result] = []

        def in_run(run: HostRun) -> None:
            def open_stream(plan: Plan, noise: Noise, inputs: Inputs) -> Stream:
                return run.open_stream(plan, noise, prompts, progress, inputs=inputs, extra_bytes=self.vae_bytes)

            results.append(work(open_stream))

        shape = (self.batch, 16, plan.num_latent_frames, *plan.grids[Scale.HIGH])
        sampler = PlannedSampler(plan, in_run, shape, self.kv, self.speed, self.vae_bytes)
        guide(self.model, prompts[0], sampler, vae=self.vae)
        return results[0]


@dataclass(frozen=True)
class MadeLatent:
    """A LATENT, and the plan and progress of its run."""

    latent: dict
    """Samples [B, C, T, H, W], un-normalised, on the CPU."""
    backend: HostBackend
    progress: Progress
    lines: tuple[str, ...]
    """Where the prompts of a timeline begin."""


def sample_latent(model, positive: list, latent: dict, sampler: ChunkSampler, seed: int, *, vae=None) -> MadeLatent:
    """Make the LATENT of a video, without a run's folder.

    `vae` shows finished chunks in true colours. Raises ValueError for what cannot work, before the first step.
    """
    check_model(model)
    samples = check_latent(latent, model)
    backend = HostBackend(attach(model, sampler.settings), vae, sampler.speed, batch=samples.shape[0])
    audience = Audience(backend.text_width, backend.batch, seed=None if sampler.first_frame else seed)
    placed, prompts = prompts_in(positive, sampler.plan(samples.shape), audience)
    plan, base = placed.plan, model.model
    prompts = with_negative(prompts, plan.guidance, sampler.settings.negative, audience)
    size = latent_size(samples.shape)
    say_crop(plan, size)
    say_limits(sampler.settings, plan, positive)
    display = Display(plan.num_steps(), lambda: chunk_previewer(backend.model, vae))
    progress = latent_progress(base, plan, backend.batch, display)
    given = sampler.first_frame and given_latent(base, sampler.first_frame, backend.batch)

    def work(open_stream: OpenStream) -> list[Tensor]:
        stream = open_stream(plan, SeededNoise(seed), Inputs(given))
        return [base.process_latent_out(chunk.float()).cpu() for chunk in shown(stream, progress, display)]

    with told(display.where):
        chunks = backend.sample(plan, prompts, progress, work)
    rest = {key: value for key, value in latent.items() if not key.startswith("downscale_ratio")}
    made = torch.cat(chunks, dim=2).to(comfy.model_management.intermediate_device())
    lines = placed.lines if timeline_of(positive) else ()
    marked = with_size(with_scenes(rest | {"samples": made}, plan), plan, size)
    return MadeLatent(marked, backend, progress, lines)
