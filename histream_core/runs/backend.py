"""The interface to the program that holds the weights: bare modules (`weights.Weights`), or a host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ..cost.cost import Cost
from ..network.kernels import Kernels
from ..plan import Plan
from ..plan.speed import Speed
from ..stream.inputs import Source
from ..stream.prompts import Prompt
from ..vae.decoders import Decoder
from .progress import Progress
from .session import OpenStream

Result = TypeVar("Result")


class Backend(Protocol):
    """The weights that a run is made with, and the device and kernels that they compute with.

    All operations on runs are written once over this protocol; the command line has one implementation and ComfyUI
    the other.
    """

    @property
    def device(self) -> torch.device:
        """The device that the network computes on."""
        ...

    @property
    def decode_device(self) -> torch.device:
        """The device that the VAE decodes on."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the network computes in."""
        ...

    @property
    def kv(self) -> str:
        """The memory tier of keys and values, one of TIERS."""
        ...

    @property
    def speed(self) -> Speed:
        """The speed choices of the run."""
        ...

    def kernels(self) -> Kernels:
        """The kernels to compute with. Raises ValueError for one that the device does not have."""
        ...

    def fingerprint(self) -> dict[str, str]:
        """Hashes of everything that latents and frames depend on; keys that begin with "vae" concern only decoding."""
        ...

    def open_decoder(self) -> Decoder:
        """The chosen decoder, for latents as the network has them."""
        ...

    def open_source(self, frames: Iterator[Tensor], plan: Plan) -> Source:
        """The source of a plan that restyles `frames` [H, W, 3] in [0, 1], encoded by the VAE."""
        ...

    def cost(self, plan: Plan, *, num_prompts: int = 1) -> Cost:
        """The cost of a plan with these weights."""
        ...

    def new_progress(self, plan: Plan) -> Progress:
        """A new progress for a run of `plan`."""
        ...

    def memory_problems(self, cost: Cost) -> tuple[str, ...]:
        """One sentence for each thing that does not fit into memory, with what to change."""
        ...

    def sample(
        self, plan: Plan, prompts: Sequence[Prompt], progress: Progress, work: Callable[[OpenStream], Result]
    ) -> Result:
        """Call `work` where the network may be called, and return its result; network calls are counted in `progress`.

        `plan` is the largest plan that `work` opens a stream of; `prompts` are the prompts of the run.
        """
        ...
