"""What makes a run fast: which kernels compute, and what they may round. One value, chosen before a run.

The defaults compute as always. What a run made of its choices is said once: `kernels.Kernels.in_use`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

ATTENTION = {
    "auto": "the fastest exact one that needs nothing installed",
    "host": "ComfyUI's own, as its command line says",
    "sdpa": "PyTorch's, with cuDNN's first on Hopper GPUs",
    "fa3": "FlashAttention 3",
    "fa4": "FlashAttention 4",
    "sage": "SageAttention, 8-bit products; other frames, a little",
    "int8": "comfy-kitchen's 8-bit products; other frames, a little",
}
LINEARS = {
    "plain": "as the weights are",
    "fp8": "the layers' matrix products in FP8; other frames, a little",
}
COMPILE = {
    "off": "layers run as they are written",
    "inductor": "layers compiled by torch.compile: a wait before the first chunk of the first run; last bits differ",
}
GRAPHS = {
    "off": "every kernel is asked for one by one",
    "low": "passes at LOW are recorded once and replayed, on CUDA devices; the same frames",
}

CHOICES: Mapping[str, Mapping[str, str]] = {
    "attention": ATTENTION,
    "linears": LINEARS,
    "compile": COMPILE,
    "graphs": GRAPHS,
}
"""What the fields of `Speed` may be, in words."""

APPROXIMATE = {"attention": ("sage", "int8"), "linears": ("fp8",)}
"""Choices that change frames by more than the last bits of numbers."""


@dataclass(frozen=True)
class Speed:
    """The choices of a run. Raises ValueError for one that does not exist."""

    attention: str = "auto"
    linears: str = "plain"
    compile: str = "off"
    graphs: str = "off"

    def __post_init__(self):
        for name, options in CHOICES.items():
            if getattr(self, name) not in options:
                raise ValueError(f'{name} "{getattr(self, name)}" does not exist: use one of {", ".join(options)}')

    @property
    def approximations(self) -> "Speed":
        """The same with the defaults in the place of all that is exact: what a kept run has among its settings."""
        exact = [name for name in CHOICES if getattr(self, name) not in APPROXIMATE.get(name, ())]
        return replace(self, **{name: getattr(DEFAULTS, name) for name in exact})


DEFAULTS = Speed()
