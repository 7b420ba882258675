"""Kernels for a MODEL of the host by the speed choices, with the host's own attention among them.

B batch, L tokens, N heads, D head dim.
"""

from collections.abc import Mapping
from dataclasses import replace

import comfy.ldm.modules.attention as host_attention
from comfy_api.torch_helpers.torch_compile import TORCH_COMPILE_KWARGS
from torch import Tensor

from ...histream_core.network.kernels import Kernels, choose_kernels
from ...histream_core.network.ops.attention import Attention, is_hopper
from ...histream_core.plan.speed import Speed
from . import log as host_log
from .caches import dtype_of
from .ranks import model_settings


def attend_by_host(q: Tensor, k: Tensor, v: Tensor, *, transformer_options: Mapping | None = None) -> Tensor:
    """The host's own attention, or the one another node set in its options: [B, L, N, D] as in the engine."""
    heads = q.shape[2]
    q, k, v = (x.flatten(2) for x in (q, k, v))
    y = host_attention.optimized_attention(q, k, v, heads=heads, transformer_options=transformer_options or {})
    return y.unflatten(2, (heads, -1))


def kernels_for(speed: Speed, model, own: Attention = attend_by_host) -> Kernels:
    """The kernels for a MODEL; `own` is the host's attention. Raises ValueError for one that is not available."""
    override = "optimized_attention_override" in model.model_options.get("transformer_options", {})
    if override and speed.attention not in ("auto", "host"):
        raise ValueError(
            f"another node on this MODEL chooses its attention, and HiStream Speed wants {speed.attention}: "
            "remove that node, or set attention to host"
        )
    chosen = host_attention.optimized_attention
    name = "another node's" if override else chosen.__name__.removeprefix("attention_")
    host = own, f"host ({name})"
    plain = chosen is host_attention.attention_pytorch and not override
    if speed.attention == "auto" and plain and is_hopper(model.load_device):
        host = None  # the host would use the same kernels, in another order
    if model_settings(model).engine:
        host = None  # other processes have no host: on any number of devices it is then the same attention
        if override or speed.attention == "host":
            raise ValueError(
                f"attention {name} is ComfyUI's own, which the processes of HiStream Engine lack: leave that node out, "
                "or set attention to auto"
            )
    kernels = choose_kernels(speed, model.load_device, dtype_of(model), host=host)
    if override and kernels.graphs:
        in_use = {**kernels.in_use, "graphs": "off, since another node's attention may be another one in each step"}
        kernels = replace(kernels, graphs=False, in_use=in_use)
    return compiled_as_asked(kernels, model)


def compiled_as_asked(kernels: Kernels, model) -> Kernels:
    """The kernels, with layers compiled as a TorchCompileModel node (or one like it) on the MODEL asks."""
    asked = model.model_options.get(TORCH_COMPILE_KWARGS)
    if not asked:
        return kernels
    if (engine := model_settings(model).engine) and engine.gpus > 1:
        raise ValueError("several GPUs compute without compiled layers: remove TorchCompileModel, or HiStream Engine")
    compiler = {name: asked[name] for name in ("backend", "mode", "options") if asked.get(name)}
    in_use = {**kernels.in_use, "compile": f"{asked['backend']}, as a node on the MODEL says"}
    return replace(kernels, compiler=compiler, in_use=in_use)


def say_kernels(kernels: Kernels) -> None:
    """Log the kernels of a run in the host's log, once per run."""
    chosen = ", ".join(f"{name} {words}" for name, words in kernels.in_use.items())
    host_log.say(f"computing with {chosen}")
