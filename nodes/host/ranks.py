"""The MODEL of the host for the ranks of an engine: what cannot be shared, and the weights that are sent."""

from dataclasses import fields

import comfy.model_management
import torch
from torch import nn

from ...histream_core.cost.cost import Cost
from ...histream_core.network.model import WanConfig
from ...histream_core.parallel.engine import ALONE, Network, chosen
from ...histream_core.plan.chunks import Plan
from ...histream_core.plan.sharing import SEQUENCE, Sharing, why_not
from ...histream_core.plan.speed import Speed
from ..settings import PRESET_KEY, ModelSettings
from .caches import dtype_of
from .fingerprint import fingerprint_model

PLAIN = (torch.float32, torch.float16, torch.bfloat16)
"""The dtypes in which weights can be sent."""


def model_settings(model) -> ModelSettings:
    """The `ModelSettings` on a MODEL; the defaults for a MODEL of another loader."""
    return model.get_attachment(PRESET_KEY) or ModelSettings()


def wan_config(module: nn.Module) -> WanConfig:
    """Read the sizes of a Wan module of the host."""
    return WanConfig(**{size.name: getattr(module, size.name) for size in fields(WanConfig)})


def count_devices() -> int:
    """How many GPUs this computer has; 1 where it has none."""
    return len(comfy.model_management.get_all_torch_devices())


def sharing_of(model, plan: Plan, speed: Speed, kv: str) -> Sharing:
    """How the devices of a run share it. Raises ValueError for what they cannot make together."""
    engine = model_settings(model).engine
    if engine is None:
        return ALONE
    cost = Cost(wan_config(model.model.diffusion_model), plan)
    sharing = chosen(engine, cost, speed, kv, model.load_device)
    if sharing.split == SEQUENCE and sharing.vae_apart:  # the VAE's device is the host's choice
        ranks = sharing.gpus if not why_not(plan, SEQUENCE, sharing.gpus, cost.config.num_heads, 1) else sharing.ranks
        sharing = Sharing(SEQUENCE, ranks)
    if sharing.ranks > 1:
        check_shareable(model)
    return sharing


def check_shareable(model) -> None:
    """Refuse a MODEL that only this process can compute. Raises ValueError."""
    module = model.model.diffusion_model
    replaced = [name for name in model.object_patches if name.startswith("diffusion_model")]
    if model.injections or model.weight_wrapper_patches or replaced:
        raise ValueError(
            "another node computes beside the weights of this MODEL (a LoRA in bypass mode, or a replaced part), which "
            "other GPUs would not see: merge it, or leave out HiStream Engine"
        )
    odd = {str(x.dtype).removeprefix("torch.") for x in module.state_dict().values() if x.dtype not in PLAIN}
    if odd:
        raise ValueError(
            f"the weights of this MODEL are packed ({', '.join(sorted(odd))}), and several GPUs share plain ones: load "
            "it in bf16 or fp16, or leave out HiStream Engine"
        )


def network_of(guider) -> Network:
    """The transformer that a guider has loaded, with its LoRAs merged. Raises ValueError where it is loaded in part."""
    patcher, module = guider.model_patcher, guider.inner_model.diffusion_model
    waiting = [name for name in patcher.patches if name not in patcher.backup]
    if waiting:
        raise ValueError(
            f"{len(waiting)} weights of this MODEL get their LoRA only while they are used, as it does not fit into "
            "the GPU's memory: leave out HiStream Engine, or free memory"
        )
    return Network(module, wan_config(module), dtype_of(patcher), patcher.load_device, fingerprint_model(patcher))
