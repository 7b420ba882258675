"""The Wan transformer: noisy latents, a timestep, text and a cache in, the predicted flow out.

It promises one forward over whichever module holds the weights, core's own or a host's. Nothing is kept on the module:
past frames lie in caches that a run owns, and every faster way to compute (kernels, compilers, CUDA graphs) is a
function that the caller passes in. It knows plans only as far as caches and graphs depend on them.

`model` has the parameters, `forward` the forward of a chunk, `layer` that of one layer, `cache` the keys and values of
past frames, `ops` the tensor functions, `compile` compiled layers and recorded passes, `kernels` the choice among them.
"""

from .forward import Denoiser, PassOptions, Text, forward_chunk
from .kernels import Kernels, choose_kernels
from .layer import LayerCall, RunBlock, run_block
from .model import WAN_1_3B, WAN_14B, ModelSizes, WanConfig, WanModel

__all__ = [
    "WAN_1_3B",
    "WAN_14B",
    "Denoiser",
    "Kernels",
    "LayerCall",
    "ModelSizes",
    "PassOptions",
    "RunBlock",
    "Text",
    "WanConfig",
    "WanModel",
    "choose_kernels",
    "forward_chunk",
    "run_block",
]
