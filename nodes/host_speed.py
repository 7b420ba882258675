"""What was chosen for speed, on a MODEL of the host: its own attention is one of the choices.

B batch, L tokens, N heads, D head dim.
"""

import comfy.ldm.modules.attention as host_attention
from torch import Tensor

from ..histream_core.attention import Attention, is_hopper
from ..histream_core.kernels import Kernels, choose_kernels
from ..histream_core.speed import Speed


def kernels_for(speed: Speed, model, attend: Attention) -> Kernels:
    """What a MODEL is computed with; `attend` is its own attention. Raises ValueError for what cannot be had."""
    override = "optimized_attention_override" in model.model_options.get("transformer_options", {})
    if override and speed.attention not in ("auto", "host"):
        raise ValueError(
            f"another node on this MODEL chooses its attention, and HiStream Speed wants {speed.attention}: "
            "remove that node, or set attention to host"
        )
    chosen = host_attention.optimized_attention
    name = "another node's" if override else chosen.__name__.removeprefix("attention_")
    host = attend, f"host ({name})"
    plain = chosen is host_attention.attention_pytorch and not override
    if speed.attention == "auto" and plain and is_hopper(model.load_device):
        host = None  # the host would use the same kernels, in another order
    return choose_kernels(speed, model.load_device, model.model.get_dtype_inference(), host=host)


def in_use(speed: Speed, model) -> dict[str, str]:
    """What `kernels_for` chooses, in words."""
    return dict(kernels_for(speed, model, _nothing).in_use)


def _nothing(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    raise NotImplementedError
