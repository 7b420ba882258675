"""Loading of weights from a file into their module, in one dtype."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..network.model import WanModel
from ..plan import storage
from ..vae.model import WanVAE
from ..vae.taehv import TAEHV
from ..vae.upsampler import LatentUpsampler
from .checkpoint import Checkpoint, dtype_name, is_scale, read_checkpoint
from .containers import Tensors
from .errors import CheckpointError
from .inspection import takes_raw_latents

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, torch_name) for name, torch_name in storage.DTYPES.items()}
"""Dtypes to compute in, by the names that file names use."""

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)

SCALES = ("scale_weight", "weight_scale")
"""ComfyUI's names of the factor of an fp8 weight."""

OTHER_SCALES = ("weight_scale_2", "weight_scale_inv", "pre_quant_scale")
"""Names of factors that stand for a block of a weight, or are applied to what it is multiplied with."""

FLOAT32_KEYS = ("patch_embedding.", "modulation")
"""Parts of the keys of a Wan model that are kept in float32 in any dtype.

The patch embedding because the forward (the host's too) computes it in float32; the modulations because they are added
to the time embedding that steers every token. Together they are 1.5 MB of the 2.6 GB of Wan 1.3B.
"""


def load_wan(
    path: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> tuple[WanModel, Checkpoint]:
    """Load a Wan transformer; return it with the checkpoint that it was loaded from.

    `dtype` None: as stored (bfloat16 for fp8 files). The patch embedding and the modulations are float32 in any case.
    """
    checkpoint = read_checkpoint(path, kind="wan")
    dtype = dtype or _compute_dtype(checkpoint)
    weights = cast(checkpoint, dtype, device=device)
    assert checkpoint.config is not None  # `read_checkpoint` has checked that the model is complete
    with torch.device("meta"):
        model = WanModel(checkpoint.config)
        model.second = WanModel(checkpoint.config) if checkpoint.second else None
    model.load_state_dict(weights, strict=True, assign=True)
    loaded = replace(checkpoint, state_dict=weights, dtype=dtype, quantised=False)
    return model.requires_grad_(False).eval(), loaded


def read_vae(path: str | Path) -> Checkpoint:
    """Open the file of a Wan VAE or a TAEHV without loading it. Raises CheckpointError for anything else."""
    return read_checkpoint(path, kind=("wan-vae", "taehv"))


def load_vae(
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    raw_latents: bool | None = None,
) -> WanVAE | TAEHV:
    """Load a Wan VAE or a TAEHV. `dtype` None: as stored. bfloat16 is enough to decode; encode in float32.

    `raw_latents`: whether a TAEHV takes raw latents; None: as `takes_raw_latents` finds.
    """
    checkpoint = read_vae(path)
    if checkpoint.kind == "taehv":
        weights = cast(checkpoint, dtype or _compute_dtype(checkpoint), device=device)
        raw = takes_raw_latents(checkpoint)[0] if raw_latents is None else raw_latents
        return TAEHV.from_state_dict(weights, raw_latents=raw)
    return WanVAE.from_state_dict(cast(checkpoint, dtype or _compute_dtype(checkpoint), device=device))


LATENT_CHANNELS = 16
"""Channels of the latents of Wan 2.1."""


def read_upsampler(path: str | Path) -> Checkpoint:
    """Open the file of a latent upsampler without loading it. Raises CheckpointError for any other, and a pickle."""
    path = Path(path)
    checkpoint = read_checkpoint(path, kind="upsampler")
    if not checkpoint.container.startswith("safetensors"):
        target = path.with_suffix(".safetensors").name
        raise CheckpointError(f"{path} is a pickle: make it a safetensors file first, histream convert {path} {target}")
    channels = checkpoint.state_dict["final.weight"].shape[0]
    if channels != LATENT_CHANNELS:
        raise CheckpointError(f"{path} enlarges latents of {channels} channels: take one for {LATENT_CHANNELS}")
    return checkpoint


def load_upsampler(path: str | Path, *, dtype: torch.dtype, device: torch.device | str = "cpu") -> LatentUpsampler:
    """Load a latent upsampler. Raises CheckpointError as `read_upsampler` does."""
    weights = cast(read_upsampler(path), dtype, device=device)
    network = LatentUpsampler.of_sizes(weights)
    network.load_state_dict(weights, strict=True, assign=True)
    return network.requires_grad_(False).eval()


def cast(checkpoint: Checkpoint, dtype: torch.dtype, *, device: torch.device | str | None = None) -> Tensors:
    """The weights in `dtype` (FLOAT32_KEYS of a Wan model in float32), with the scales of fp8 multiplied in.

    Raises CheckpointError for values that overflow float16 and for quantised formats that are not fp8 with one scale.
    """
    check_dtype(dtype)
    return {key: cast_tensor(checkpoint, key, dtype, device=device) for key in plain_keys(checkpoint)}


def cast_tensor(
    checkpoint: Checkpoint, key: str, dtype: torch.dtype, *, device: torch.device | str | None = None
) -> Tensor:
    """One tensor of `cast`."""
    x, to = checkpoint.state_dict[key], dtype_for(checkpoint, key, dtype)
    scale = _scale_of(checkpoint, key) if checkpoint.quantised else None
    y = (x if scale is None else x.float() * scale).detach().to(device, to)
    if to == torch.float16 and x.dtype not in (torch.float16, *FLOAT8) and not torch.isfinite(y).all():
        raise CheckpointError(f"{checkpoint.path} overflows float16 in {key}: use bf16 or fp32")
    return y


def check_dtype(dtype: torch.dtype) -> None:
    """Check that weights can be computed in a dtype. Raises CheckpointError."""
    if dtype not in DTYPES.values():
        raise CheckpointError(f"weights cannot be computed in {dtype_name(dtype)}: use {', '.join(DTYPES)}")


def plain_keys(checkpoint: Checkpoint) -> list[str]:
    """The keys of the weights, without those of scales."""
    return [key for key in checkpoint.state_dict if not is_scale(key)]


def dtype_for(checkpoint: Checkpoint, key: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype of one tensor of a model in `dtype`."""
    return wan_dtype(key, dtype) if checkpoint.kind == "wan" else dtype


def wan_dtype(key: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype of one tensor of a Wan model in `dtype`: FLOAT32_KEYS stay in float32."""
    return torch.float32 if any(part in key for part in FLOAT32_KEYS) else dtype


def cast_model(model: WanModel, dtype: torch.dtype) -> WanModel:
    """Cast a model in place to the dtypes that `load_wan` gives its weights in `dtype`; return it."""
    for key, weight in model.named_parameters():
        weight.data = weight.data.to(wan_dtype(key, dtype))
    return model


def _scale_of(checkpoint: Checkpoint, key: str) -> Tensor | None:
    """The factor of one quantised weight, in a shape to multiply it with; None where the weight has none."""
    x, layer = checkpoint.state_dict[key], key.removesuffix("weight")
    scale = next((s for name in SCALES if (s := checkpoint.state_dict.get(layer + name)) is not None), None)
    others = [name for name in OTHER_SCALES if layer + name in checkpoint.state_dict]
    if x.dtype in FLOAT8 and not others and (scale is None or scale.numel() in (1, x.shape[0])):
        return None if scale is None else scale.float().reshape(-1, *(1,) * (x.ndim - 1))
    if scale is None and not others and x.is_floating_point():
        return None
    raise CheckpointError(
        f"{checkpoint.path} is quantised in a way that only ComfyUI can run ({key} is {dtype_name(x.dtype)}): "
        "load it there, or take an fp16, bf16 or fp8 file"
    )


def _compute_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """The dtype of the stored weights where they can be computed in it, else bfloat16."""
    stored = checkpoint.dtype
    return stored if stored is not None and stored in DTYPES.values() else torch.bfloat16
