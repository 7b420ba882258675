"""Node: the speed choices of the sampler."""

from ...histream_core.network.kernels import check_installed
from ...histream_core.plan.speed import CHOICES, DEFAULTS, Speed
from ..host.api import CATEGORY, io
from ..host.api import Speed as SpeedSocket

TOOLTIPS = {
    "attention": "Which library computes attention, three quarters of the work at 1080p. What is not installed is "
    "refused, and the run says what it uses.",
    "linears": "What the matrix products of the layers are computed in, a quarter of the work at 1080p. fp8 needs an "
    "RTX 40 or newer, and pays where compile is on.",
    "elementwise": "What computes norms and positions between the matrix products.",
    "compile": "Whether the layers are compiled. What cannot be compiled runs as it is, and the run says so.",
    "graphs": "Whether CUDA graphs spare the CPU the work of asking for kernels one by one, where it is too slow to "
    "keep the GPU busy. Needs kv_memory full and all weights on the GPU.",
    "high_keys": "How a finished chunk is remembered at HIGH, for later chunks to see. The clean passes for that are a "
    "quarter of the work at 1080p.",
    "cached_frames": "Which frames of a finished chunk are remembered so, at both resolutions.",
    "low_keys": "How a finished chunk is remembered at LOW.",
    "seen_keys": "How much of the window attention sees at HIGH.",
    "vae_layout": "How the VAE's values lie in memory while it decodes.",
    "vae_strips": "How much of the picture is decoded at once. The VAE remembers in 9.2 GB at 1080p; of strips only "
    "the one that is decoded has its memory on the GPU.",
}
"""The choices that there are in ComfyUI: it moves weights while it samples, so nothing is decoded beside that."""


def tooltip(name: str) -> str:
    """The tooltip of an input, with one line for each option."""
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
            search_aliases=["HiStream", "attention", "FP8", "SageAttention", "FlashAttention", "torch.compile", "fast"],
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
