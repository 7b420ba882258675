"""What a run needs of the program that holds the weights: bare modules (`weights.Weights`), or a host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch

from ..cost.cost import Cost
from ..network.kernels import Kernels
from ..plan import Plan
from ..plan.speed import Speed
from ..stream.prompts import Prompt
from ..vae.decoders import Decoder
from .progress import Progress
from .session import OpenStream

Result = TypeVar("Result")


class Backend(Protocol):
    """Weights that a run is made with, and the place where they compute.

    Everything that can be done with a run is written once over it; the command line has one implementation and
    ComfyUI the other.
    """

    @property
    def device(self) -> torch.device:
        """Where the network computes."""

    @property
    def decode_device(self) -> torch.device:
        """Where the VAE decodes."""

    @property
    def dtype(self) -> torch.dtype:
        """The type that the network computes in."""

    @property
    def kv(self) -> str:
        """One of TIERS: how keys and values lie in memory."""

    @property
    def speed(self) -> Speed:
        """What was chosen for speed."""

    def kernels(self) -> Kernels:
        """The kernels that compute. Raises ValueError for what cannot be had on the device."""

    def fingerprint(self) -> dict[str, str]:
        """Hashes of all that latents and frames depend on; keys that begin with "vae" concern decoding alone."""

    def open_decoder(self) -> Decoder:
        """The decoder that was chosen, for latents as the network has them."""

    def cost(self, plan: Plan, *, num_prompts: int = 1) -> Cost:
        """What a plan costs with these weights."""

    def new_progress(self, plan: Plan) -> Progress:
        """The progress of a run of that plan."""

    def memory_problems(self, cost: Cost) -> tuple[str, ...]:
        """What does not fit into memory and what to change, one sentence each."""

    def sample(
        self, plan: Plan, prompts: Sequence[Prompt], progress: Progress, work: Callable[[OpenStream], Result]
    ) -> Result:
        """Return what `work` returns, called where the network may be called; its calls are counted in `progress`.

        `plan` is the largest that `work` opens a stream of, and `prompts` are those of the run.
        """
