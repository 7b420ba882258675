"""Backend of runs for bare weights: loaded modules, without a host."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from .. import demo
from ..cost.cost import GB, VAE_WIDTH, Cost
from ..cost.fitting import does_not_fit, vae_does_not_fit
from ..network.cache.tiers import make_caches
from ..network.cache.window import CacheOptions
from ..network.forward import Denoiser, check_sets, forward_chunk
from ..network.kernels import Kernels, choose_kernels
from ..network.model import WanModel
from ..parallel.engine import (
    ALONE,
    Engine,
    Network,
    Opened,
    chosen,
    open_caches,
    open_last_rank_decoder,
    rest_gang,
)
from ..parallel.workers import devices_from
from ..plan import Plan, Preset, Scale, find_preset
from ..plan.draft import check_low
from ..plan.sharing import PIPELINE, Sharing
from ..plan.speed import DEFAULTS, Speed
from ..stream.inputs import NOTHING_GIVEN, Inputs
from ..stream.noise import Noise
from ..stream.prompts import Prompt
from ..stream.stream import Stream
from ..stream.upsampling import LearnedUpsampling
from ..vae import decoders
from ..vae.encode import encode_frames, encode_picture
from ..vae.model import WanVAE
from ..vae.taehv import TAEHV
from ..vae.upsampler import LatentUpsampler
from ..weights.inspection import guess_preset
from ..weights.loading import load_vae, load_wan
from .backend import Result
from .progress import Progress, Watch, counted, new_progress
from .restyle import EncodedSource
from .session import OpenStream
from .store.fingerprint import fingerprint_weights
from .store.manifest import UPSAMPLER


@dataclass(frozen=True)
class Weights:
    """A `Backend` of a loaded transformer and VAE, with the settings they compute with."""

    model: WanModel
    vae: WanVAE | TAEHV
    preset: Preset
    device: torch.device
    dtype: torch.dtype
    kv: str = "full"
    """The memory tier of keys and values, one of TIERS."""
    speed: Speed = DEFAULTS
    sharing: Sharing = ALONE
    """The devices that make a run together."""
    gpus: int = 1
    """How many devices were asked for."""
    upsampler: LatentUpsampler | None = None
    """The network that takes LOW estimates to HIGH; None: they are resized."""

    @property
    def decode_device(self) -> torch.device:
        return next(self.vae.parameters()).device

    def kernels(self) -> Kernels:
        """The kernels to compute with. Raises ValueError for one that the device does not have."""
        return choose_kernels(self.speed, self.device, self.dtype)

    def fingerprint(self) -> dict[str, str]:
        found = {"model": fingerprint_weights(self.model), "vae": fingerprint_weights(self.vae)}
        return found | ({UPSAMPLER: fingerprint_weights(self.upsampler)} if self.upsampler else {})

    def open_decoder(self) -> decoders.Decoder:
        options = {
            "normalised": self.preset.normalised,
            "channels_last": self.speed.vae_layout == "channels-last",
            "strips": int(self.speed.vae_strips),
        }
        if self.sharing.split == PIPELINE:
            key = fingerprint_weights(self.vae)
            return open_last_rank_decoder(self.sharing, self.vae, options, self.device, key)
        return decoders.open_decoder(self.vae, **options)

    def encode_first_frame(self, picture: Tensor, hold: int) -> Tensor:
        """The latent [1, C, hold, H, W] of a picture [8H, 8W, 3], as the network has latents."""
        return encode_picture(self.vae, picture, hold=hold, normalised=self.preset.normalised)

    def encode_frames(self, frames: Iterable[Tensor]) -> Tensor:
        """The latents [1, C, T, H, W] of the 4n + 1 frames [8H, 8W, 3] that a video begins with."""
        return encode_frames(self.vae, frames, normalised=self.preset.normalised)

    def open_source(self, frames: Iterator[Tensor], plan: Plan) -> EncodedSource:
        """The source of a plan that restyles `frames` [H, W, 3] in [0, 1]."""
        return EncodedSource(frames, plan, self.vae, normalised=self.preset.normalised)

    def cost(self, plan: Plan, *, num_prompts: int = 1) -> Cost:
        return Cost(
            self.model.config,
            plan,
            num_prompts=num_prompts,
            dtype=self.dtype,
            vae_dtype=self.dtype,
            vae_strips=int(self.speed.vae_strips),
            vae_elsewhere=self.decode_device != next(self.model.parameters()).device,
            kv=self.kv,
            unified=self.device.type == "cpu",
            taehv=isinstance(self.vae, TAEHV),
            vae_width=VAE_WIDTH if isinstance(self.vae, TAEHV) else self.vae.dim,
            upsampler=self.upsampler and self.upsampler.sizes,
        )

    def memory_problems(self, cost: Cost) -> tuple[str, ...]:
        problems = does_not_fit(cost, memory_of(self.device))
        if cost.vae_elsewhere:
            problems += vae_does_not_fit(cost, memory_of(self.decode_device))
        return problems

    def new_progress(self, plan: Plan) -> Progress:
        return new_progress(self.cost(plan))

    def sample(
        self,
        plan: Plan,  # noqa: ARG002 - a host makes room for it
        prompts: Sequence[Prompt],
        progress: Progress,
        work: Callable[[OpenStream], Result],
    ) -> Result:
        def open_stream(plan: Plan, noise: Noise, inputs: Inputs) -> Stream:
            return self.open_stream(plan, noise, prompts, progress=progress, inputs=inputs)

        try:
            return work(open_stream)
        finally:
            if self.sharing.ranks > 1:
                rest_gang()

    def open_stream(
        self,
        plan: Plan,
        noise: Noise,
        prompts: Sequence[Prompt],
        *,
        progress: Watch,
        inputs: Inputs = NOTHING_GIVEN,
    ) -> Stream:
        """A stream over fresh caches. Raises ValueError for prompts that the model cannot read."""
        model, kernels = self.model, self.kernels()
        check_sets(plan, model.second is not None)
        if self.upsampler:
            check_low(plan)
        for prompt in prompts:
            if prompt.text.context.shape[-1] != model.text_dim:
                raise ValueError(
                    f"the text has {prompt.text.context.shape[-1]} channels but the model reads {model.text_dim}: "
                    "take the text encoder that belongs to it"
                )
        opened = self._open_caches(plan)
        denoise = opened.denoiser or Denoiser(
            model,
            dtype=self.dtype,
            attention=kernels.attention,
            block_forward=kernels.block_forward(plan),
            forwards={
                Scale.LOW: opened.forward or kernels.low_forward(),
                Scale.HIGH: opened.forward or forward_chunk,
            },
            guidance=plan.guidance,
        )
        if opened.denoiser and inputs.source:
            inputs = replace(inputs, source=opened.denoiser.timed(inputs.source))
        return Stream(
            plan,
            counted(denoise, progress),
            opened.caches,
            noise,
            prompts,
            channels=model.out_dim,
            inputs=inputs,
            upsample=self.upsampler and LearnedUpsampling(self.upsampler, plan, inputs.given_low),
            ring=self.sharing.ranks if opened.denoiser else 0,
        )

    def on(self, engine: Engine, plan: Plan) -> Weights:
        """These weights on several devices, for a plan; chunks are then decoded while the next one is sampled.

        Raises ValueError for devices that cannot make it together.
        """
        if engine.gpus == 1:
            return self
        sharing = chosen(engine, self.cost(plan), self.speed, self.kv, self.device)
        vae = self.vae.to(devices_from(self.device, sharing.gpus)[-1]) if sharing.vae_apart else self.vae
        return replace(self, vae=vae, sharing=sharing, gpus=engine.gpus, speed=replace(self.speed, decode="ahead"))

    def _open_caches(self, plan: Plan) -> Opened:
        options = CacheOptions(device=self.device, dtype=self.dtype, kv=self.kv)
        if self.sharing.ranks == 1:
            return Opened(make_caches(plan, self.model, options))
        network = Network(self.model, self.model.config, self.dtype, self.device, fingerprint_weights(self.model))
        return open_caches(self.sharing, plan, network, options, self.speed)


def load_weights(
    model: str | Path,
    vae: str | Path,
    *,
    preset: str | None = None,
    device: str | torch.device = "cpu",
    vae_device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Weights:
    """Load a Wan transformer and a VAE from files.

    `preset` None: the one that fits the transformer. `vae_device` None: where the transformer is. Raises
    CheckpointError, a ValueError of one sentence, for a file that is no such model.
    """
    place = torch.device(device)
    transformer, checkpoint = load_wan(model, dtype=dtype, device=place)
    found = find_preset(preset or guess_preset(checkpoint))
    decoder = load_vae(vae, dtype=dtype, device=place if vae_device is None else vae_device)
    return Weights(transformer, decoder, found, place, dtype)


def load_demo(device: str | torch.device = "cpu", *, preset: str = demo.PRESET) -> Weights:
    """The bundled demo model, in float32."""
    place = torch.device(device)
    model, vae = demo.load_transformer().to(place), demo.load_vae().to(place)
    return Weights(model, vae, find_preset(preset), place, torch.float32)


def memory_of(device: torch.device) -> float:
    """Installed memory of a device in GB; infinite if it cannot be found out."""
    size = installed_memory(device)
    return math.inf if size is None else round(size / GB, 1)


def installed_memory(device: torch.device) -> int | None:
    """Installed memory of a device in bytes; None if it cannot be found out."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None
