"""Choices that make a run faster: kernels, reduced precision, and approximations.

The defaults are exact. `network.kernels.Kernels.in_use` names the kernels that a run really uses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .levers import CLEAN_ANCHOR, LAST_STEP, LEVERS, POOLED_LOW, SPARSE, SURVIVORS

ATTENTION = {
    "auto": "the fastest exact one that needs nothing installed",
    "host": "ComfyUI's own, as its command line says",
    "sdpa": "PyTorch's, with cuDNN's first on Hopper GPUs",
    "fa2": "FlashAttention 2",
    "fa3": "FlashAttention 3",
    "fa4": "FlashAttention 4",
    "sage": "SageAttention, 8-bit products; other frames, a little",
    "int8": "comfy-kitchen's 8-bit products; other frames, a little",
}
LINEARS = {
    "plain": "as the weights are",
    "fp8": "the layers' matrix products in FP8; other frames, a little",
}
ELEMENTWISE = {
    "plain": "PyTorch's kernels, one after the other",
    "fused": "comfy-kitchen's, fused, which ComfyUI brings; last bits differ",
}
COMPILE = {
    "off": "layers run as they are written",
    "inductor": "layers compiled by torch.compile: a wait before the first chunk of the first run; last bits differ",
}
GRAPHS = {
    "off": "every kernel is asked for one by one",
    "low": "passes at LOW are recorded once and replayed, on CUDA devices; the same frames",
}
HIGH_KEYS = {
    "clean": "a clean pass at HIGH over every chunk that others see",
    **{lever: f"{LEVERS[lever]}; other frames" for lever in (CLEAN_ANCHOR, LAST_STEP)},
}
CACHED_FRAMES = {
    "all": "clean passes over whole chunks",
    SURVIVORS: f"{LEVERS[SURVIVORS]}; other frames",
}
LOW_KEYS = {
    "clean": "a clean pass at LOW over every chunk that others see",
    POOLED_LOW: f"{LEVERS[POOLED_LOW]}; other frames",
}
SEEN_KEYS = {
    "all": "attention to the whole window",
    SPARSE: f"{LEVERS[SPARSE]}; other frames",
}
VAE_LAYOUT = {
    "plain": "the VAE's values as they are stored",
    "channels-last": "the channels of a pixel side by side, which newer GPUs' convolutions like; last bits differ",
}
VAE_STRIPS = {
    "1": "the whole picture",
    **{str(n): f"the picture in {n} strips, each with memory of its own; other frames, a little" for n in (2, 3, 4)},
}
DECODE = {
    "in-turn": "a chunk is decoded before the next one is sampled",
    "ahead": "a chunk is decoded while the next one is sampled, on the command line; the same frames",
}

CHOICES: Mapping[str, Mapping[str, str]] = {
    "attention": ATTENTION,
    "linears": LINEARS,
    "elementwise": ELEMENTWISE,
    "compile": COMPILE,
    "graphs": GRAPHS,
    "high_keys": HIGH_KEYS,
    "cached_frames": CACHED_FRAMES,
    "low_keys": LOW_KEYS,
    "seen_keys": SEEN_KEYS,
    "vae_layout": VAE_LAYOUT,
    "vae_strips": VAE_STRIPS,
    "decode": DECODE,
}
"""Allowed values of each field of `Speed`, with a description."""

APPROXIMATE = {
    "attention": ("sage", "int8"),
    "linears": ("fp8",),
    "high_keys": (CLEAN_ANCHOR, LAST_STEP),
    "cached_frames": (SURVIVORS,),
    "low_keys": (POOLED_LOW,),
    "seen_keys": (SPARSE,),
    "vae_strips": ("2", "3", "4"),
}
"""Choices that change frames by more than the last bits."""


@dataclass(frozen=True)
class Speed:
    """The speed choices of a run. Raises ValueError for an unknown one."""

    attention: str = "auto"
    linears: str = "plain"
    elementwise: str = "plain"
    compile: str = "off"
    graphs: str = "off"
    high_keys: str = "clean"
    cached_frames: str = "all"
    low_keys: str = "clean"
    seen_keys: str = "all"
    vae_layout: str = "plain"
    vae_strips: str = "1"
    decode: str = "in-turn"

    def __post_init__(self):
        for name, options in CHOICES.items():
            if getattr(self, name) not in options:
                raise ValueError(f'{name} "{getattr(self, name)}" does not exist: use one of {", ".join(options)}')

    @property
    def approximations(self) -> "Speed":
        """Only the approximate choices, with defaults for the exact ones; a kept run has this among its settings."""
        exact = [name for name in CHOICES if getattr(self, name) not in APPROXIMATE.get(name, ())]
        return replace(self, **{name: getattr(DEFAULTS, name) for name in exact})

    @property
    def levers(self) -> tuple[str, ...]:
        """The choices that are LEVERS, for the plan."""
        chosen = self.high_keys, self.cached_frames, self.low_keys, self.seen_keys
        return tuple(lever for lever in LEVERS if lever in chosen)


DEFAULTS = Speed()
