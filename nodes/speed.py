"""Node: what the sampler computes with."""

from ..histream_core.kernels import check_installed
from ..histream_core.speed import CHOICES, DEFAULTS, Speed
from .api import CATEGORY, io
from .api import Speed as SpeedSocket

TOOLTIPS = {
    "attention": "Which library computes attention, three quarters of the work at 1080p. What is not installed is "
    "refused, and the run says what it uses.",
    "linears": "What the matrix products of the layers are computed in.",
    "elementwise": "What computes norms and positions between them.",
    "compile": "Whether the layers are compiled. What cannot be compiled runs as it is, and the run says so.",
    "graphs": "Whether CUDA graphs spare the CPU the work of asking for kernels one by one.",
    "high_keys": "Where what later chunks remember of a finished chunk comes from, at HIGH.",
    "cached_frames": "Of which frames it is computed.",
    "low_keys": "Where it comes from at LOW.",
    "seen_keys": "How much of the window attention sees at HIGH.",
    "vae_layout": "How the VAE's values lie in memory while it decodes.",
    "vae_strips": "How much of the picture is decoded at once. The VAE remembers in 9.9 GB at 1080p; of strips only "
    "the one that is decoded has its memory on the GPU.",
}
"""The choices that there are in ComfyUI: it moves weights while it samples, so nothing is decoded beside that."""


def tooltip(name: str) -> str:
    """What an input does, and each of its options in a line."""
    return "\n".join([TOOLTIPS[name], *(f"{option}: {what}." for option, what in CHOICES[name].items())])


class SpeedNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamSpeed",
            display_name="HiStream Speed",
            category=CATEGORY,
            description="Which kernels the Anchor-Window Sampler computes with, and what they may round. Needed only "
            "to change something: the defaults are exact.",
            search_aliases=["HiStream", "attention", "FP8", "SageAttention", "FlashAttention", "fast"],
            inputs=[
                io.Combo.Input(
                    name,
                    options=list(CHOICES[name]),
                    default=getattr(DEFAULTS, name),
                    tooltip=tooltip(name),
                    optional=name != "attention",
                    advanced=name != "attention",
                )
                for name in TOOLTIPS
            ],
            outputs=[
                SpeedSocket.Output(
                    display_name="speed", tooltip="For the Anchor-Window Sampler or Streaming VAE Decode."
                )
            ],
        )

    @classmethod
    def execute(cls, attention, **chosen):
        speed = Speed(attention, **chosen)
        check_installed(speed)
        return io.NodeOutput(speed)
