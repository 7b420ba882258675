"""Weight files to state dicts: whatever container, prefix or naming they come in, and back to one clean file.

A file is recognised by its content, never by its extension. Nothing in it is ever executed. Tensors are mapped, not
read, wherever the format allows, so looking at a file costs nothing and weights exist once.

Every problem is a CheckpointError, a ValueError of one sentence that says what to do.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from .presets import PRESETS
from .taehv import SIZE_KEYS, TAEHV, decoder_weights
from .wan_model import WanConfig, WanModel
from .wan_vae import WanVAE
from .weight_file import CONTAINERS, CheckpointError, Tensors, open_weights, write_safetensors

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What weights can be computed in, by the names that file names use."""

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)

FLOAT32_KEYS = ("patch_embedding.", "modulation")
"""Of a Wan model, kept in float32 whatever dtype is asked for.

The patch embedding because the forward (the host's too) computes it in float32; the modulations because they are added
to the time embedding that steers every token. Together they are 1.5 MB of the 2.8 GB of Wan 1.3B.
"""

WRAPPERS = re.compile(r"_fsdp_wrapped_module\.|_orig_mod\.|_checkpoint_wrapped_module\.")
"""What sharding, compilation and activation checkpointing leave in key names, at any depth."""

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "module.")

SCALE_KEY = re.compile(
    r"(^|\.)(scaled_fp8|scale_weight|scale_input|weight_scale(_2)?|input_scale|comfy_quant|pre_quant_scale|weight_s_\w+)$"
)
"""What ComfyUI stores beside quantised weights."""

SCALES = ("scale_weight", "weight_scale")


@dataclass(frozen=True)
class Checkpoint:
    """Weights with their bare key names, and what is known about them. Tensors may be mapped from the file."""

    path: Path
    kind: str
    """"wan", "wan-vae", "taehv", "umt5", or what else was recognised: "lora", "wan-i2v", "diffusers-vae", "unknown"."""
    container: str
    """Format, and the dictionary in it that was chosen: "safetensors", "torch: generator_ema"."""
    prefix: str
    """What stood before the key names."""
    state_dict: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    """The text of a safetensors header."""
    dtype: torch.dtype | None
    """The dtype of most values; None where there are none."""
    config: WanConfig | None = None
    """Sizes of a Wan transformer."""
    quantised: bool = False
    """Weights are fp8 or int8 with scales beside them, as ComfyUI stores them."""
    missing: tuple[str, ...] = field(default=(), repr=False)
    left_over: tuple[str, ...] = field(default=(), repr=False)
    wrong_size: tuple[str, ...] = field(default=(), repr=False)

    @property
    def num_params(self) -> int:
        return sum(x.numel() for key, x in self.state_dict.items() if not _is_scale(key))

    @property
    def nbytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in self.state_dict.values())


def read_checkpoint(path: str | Path, *, kind: str | None = None) -> Checkpoint:
    """Open a weight file of any known format; with `kind`, insist on a complete model of that kind.

    Raises CheckpointError: not there, not weights, damaged, with code in it, or not a complete `kind`.
    """
    path = Path(path)
    tensors, metadata, container = open_weights(path)
    tensors, prefix = _strip(tensors)
    if any(key.startswith("condition_embedder.") for key in tensors):
        tensors = {rename_diffusers(key): x for key, x in tensors.items()}
        container += ", diffusers names"
    checkpoint = Checkpoint(
        path=path,
        kind=_kind(tensors),
        container=container,
        prefix=prefix,
        state_dict=tensors,
        metadata=metadata,
        dtype=_main_dtype(tensors),
        quantised=any(_is_scale(key) for key in tensors),
    )
    checkpoint = _compare(checkpoint)
    return check(checkpoint, kind) if kind else checkpoint


def check(checkpoint: Checkpoint, kind: str) -> Checkpoint:
    """Return `checkpoint` if it is a complete model of that kind; CheckpointError names the first five bad keys."""
    if checkpoint.kind != kind:
        raise CheckpointError(f"{checkpoint.path} holds {KINDS[checkpoint.kind]}, not {KINDS[kind]}: give another file")
    faults = {
        "missing": checkpoint.missing,
        "left over": checkpoint.left_over,
        "of the wrong size": checkpoint.wrong_size,
    }
    said = [
        f"{len(keys)} {fault} ({', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''})"
        for fault, keys in faults.items()
        if keys
    ]
    if said:
        shard = " this is one part of several, which must be merged first;" if _is_shard(checkpoint.path) else ""
        raise CheckpointError(
            f"{checkpoint.path} is not {KINDS[kind]} as we know it:{shard} of its tensors {'; '.join(said)}"
        )
    return checkpoint


def inspect(path: str | Path) -> dict:
    """What a file is, as plain values for printing; nothing of its tensors is read where the format allows."""
    checkpoint = read_checkpoint(path)
    config = checkpoint.config
    sizes = {} if config is None else {
        "dim": config.dim,
        "layers": config.num_layers,
        "heads": config.num_heads,
        "ffn": config.ffn_dim,
        "in": config.in_dim,
        "out": config.out_dim,
        "text": config.text_dim,
    }  # fmt: skip
    return {
        "file": str(checkpoint.path),
        "kind": checkpoint.kind,
        "container": checkpoint.container,
        "prefix": checkpoint.prefix,
        "tensors": len(checkpoint.state_dict),
        "params": checkpoint.num_params,
        "bytes": checkpoint.nbytes,
        "dtypes": dict(Counter(_name(x.dtype) for x in checkpoint.state_dict.values()).most_common()),
        "quantised": checkpoint.quantised,
        "sizes": sizes,
        "preset": guess_preset(checkpoint) if checkpoint.kind == "wan" else None,
        "metadata": dict(checkpoint.metadata),
        "num_missing": len(checkpoint.missing),
        "missing": list(checkpoint.missing[:5]),
        "num_left_over": len(checkpoint.left_over),
        "left_over": list(checkpoint.left_over[:5]),
        "wrong_size": list(checkpoint.wrong_size[:5]),
    }


def load_wan(
    path: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> tuple[WanModel, Checkpoint]:
    """A Wan transformer ready to run, and what its file was.

    `dtype` None: as stored (bfloat16 for fp8 files). The patch embedding and the modulations are float32 in any case.
    """
    checkpoint = read_checkpoint(path, kind="wan")
    dtype = dtype or _compute_dtype(checkpoint)
    weights = cast(checkpoint, dtype, device=device)
    with torch.device("meta"):
        model = WanModel(checkpoint.config)
    model.load_state_dict(weights, strict=True, assign=True)
    loaded = replace(checkpoint, state_dict=weights, dtype=dtype, quantised=False)
    return model.requires_grad_(False).eval(), loaded


def read_vae(path: str | Path) -> Checkpoint:
    """Look at the file of a Wan VAE or a TAEHV. Raises CheckpointError for anything else."""
    checkpoint = read_checkpoint(path)
    return check(checkpoint, "taehv" if checkpoint.kind == "taehv" else "wan-vae")


def load_vae(
    path: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> WanVAE | TAEHV:
    """A Wan VAE or a TAEHV ready to run. `dtype` None: as stored. Decode in bfloat16; encode in float32.

    A TAEHV in float16 takes latents as they are sampled (taew2_1), in another type raw ones (lighttaew2_1): nothing
    else tells the two files apart, and ComfyUI does the same.
    """
    checkpoint = read_vae(path)
    if checkpoint.kind == "taehv":
        weights = cast(checkpoint, dtype or _compute_dtype(checkpoint), device=device)
        return TAEHV.from_state_dict(weights, raw_latents=checkpoint.dtype != torch.float16)
    return WanVAE.from_state_dict(cast(checkpoint, dtype or _compute_dtype(checkpoint), device=device))


def cast(checkpoint: Checkpoint, dtype: torch.dtype, *, device: torch.device | str | None = None) -> Tensors:
    """The plain weights in `dtype`, FLOAT32_KEYS of a Wan model in float32; fp8 with scales is multiplied out.

    Raises CheckpointError for values that overflow float16 and for quantised formats that are not fp8 with one scale.
    """
    _check_dtype(dtype)
    return {key: cast_tensor(checkpoint, key, dtype, device=device) for key in _plain_keys(checkpoint)}


def cast_tensor(
    checkpoint: Checkpoint, key: str, dtype: torch.dtype, *, device: torch.device | str | None = None
) -> Tensor:
    """One of the tensors of `cast`."""
    x, to = checkpoint.state_dict[key], _dtype_for(checkpoint, key, dtype)
    scale = _scale_of(checkpoint, key) if checkpoint.quantised else None
    y = (x if scale is None else x.float() * scale).detach().to(device, to)
    if to == torch.float16 and x.dtype not in (torch.float16, *FLOAT8) and not torch.isfinite(y).all():
        raise CheckpointError(f"{checkpoint.path} overflows float16 in {key}: use bf16 or fp32")
    return y


def _check_dtype(dtype: torch.dtype) -> None:
    if dtype not in DTYPES.values():
        raise CheckpointError(f"weights cannot be computed in {_name(dtype)}: use {', '.join(DTYPES)}")


def _plain_keys(checkpoint: Checkpoint) -> list[str]:
    return [key for key in checkpoint.state_dict if not _is_scale(key)]


def _dtype_for(checkpoint: Checkpoint, key: str, dtype: torch.dtype) -> torch.dtype:
    keep = checkpoint.kind == "wan" and any(part in key for part in FLOAT32_KEYS)
    return torch.float32 if keep else dtype


def convert(
    source: str | Path,
    target: str | Path,
    *,
    dtype: torch.dtype | None = None,
    causal: bool | None = None,
    overwrite: bool = False,
) -> Checkpoint:
    """Write a ComfyUI-ready safetensors file: bare key names, and metadata that tells what the weights are.

    `dtype` None keeps the stored values, quantised ones included. `causal` puts {"transformer": {"causal_ar": true}}
    into the metadata, so that ComfyUI loads a causal model; None: where the guessed preset is one. The file appears
    whole or not at all. Returns the source. Raises CheckpointError, also for a full disk.
    """
    source, target = Path(source), Path(target)
    checkpoint = read_checkpoint(source)
    if checkpoint.kind not in ("wan", "wan-vae"):
        raise CheckpointError(f"{source} holds {KINDS[checkpoint.kind]}: only Wan models and VAEs can be converted")
    check(checkpoint, checkpoint.kind)
    _check_target(source, target, overwrite)
    metadata = dict(checkpoint.metadata)
    if checkpoint.kind == "wan":
        preset = guess_preset(checkpoint)
        metadata |= _describe(checkpoint, preset, preset not in ("wan", "demo") if causal is None else causal)
    if "_quantization_metadata" in metadata:
        metadata["_quantization_metadata"] = metadata["_quantization_metadata"].replace(f'"{checkpoint.prefix}', '"')
    if dtype is None:
        stored = {key: (x.dtype, x.shape) for key, x in checkpoint.state_dict.items()}
        write_safetensors(target, stored, checkpoint.state_dict.__getitem__, metadata)
        return checkpoint
    _check_dtype(dtype)
    metadata.pop("_quantization_metadata", None)
    stored = {
        key: (_dtype_for(checkpoint, key, dtype), checkpoint.state_dict[key].shape) for key in _plain_keys(checkpoint)
    }
    write_safetensors(target, stored, lambda key: cast_tensor(checkpoint, key, dtype), metadata)
    return checkpoint


def _describe(checkpoint: Checkpoint, preset: str, causal: bool) -> dict[str, str]:
    """Safetensors metadata: ComfyUI's `config`, with what the file had, and our preset for a file that is renamed."""
    config = _json_object(checkpoint.metadata.get("config"))
    told = _json_object(config.get("transformer"))
    told.pop("causal_ar", None)
    transformer = told | ({"causal_ar": True} if causal else {})
    described = {"histream_preset": preset}
    if transformer or config:
        described["config"] = json.dumps(config | {"transformer": transformer})
    return described


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    if target.suffix != ".safetensors":
        raise CheckpointError(f'the converted file is named "{target.name}": its name must end in .safetensors')
    if not target.parent.is_dir():
        raise CheckpointError(f"the folder {target.parent} does not exist: make it first")
    if target.is_dir():
        raise CheckpointError(f"{target} is a folder: give a file name")
    if target.exists():
        if target.samefile(source):
            raise CheckpointError(f"{target} is the file to convert: give another name")
        if not overwrite:
            raise CheckpointError(f"{target} exists: give another name, or ask to overwrite it")


# --- what it is -----------------------------------------------------------------------------------------------------

KINDS = {
    "wan": "a Wan text-to-video model",
    "wan-i2v": "a Wan image-to-video model, whose extra inputs are not supported",
    "wan-vae": "a Wan VAE",
    "taehv": "a TAEHV for Wan 2.1",
    "umt5": "a umt5 text encoder",
    "umt5-original": "a umt5 text encoder under Wan's own names (take ComfyUI's umt5_xxl file)",
    "diffusers-vae": "a VAE under diffusers names (take wan_2.1_vae.safetensors)",
    "lora": "a LoRA (it needs the model that it changes)",
    "unknown": "tensors of a model that is not known",
}

_SIGNS = (
    ("wan-i2v", "img_emb.proj.0.weight"),
    ("wan", "head.modulation"),
    ("wan-vae", "decoder.middle.0.residual.0.gamma"),
    ("taehv", "decoder.3.conv.0.weight"),
    ("diffusers-vae", "decoder.mid_block.resnets.0.conv1.weight"),
    ("umt5", "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"),
    ("umt5-original", "blocks.0.pos_embedding.embedding.weight"),
)
_LORA = re.compile(r"\.(lora_(down|up|A|B)(\.\w+)?|hada_w\d_\w|lokr_w\d|diff_b?)(\.weight)?$")


def _kind(tensors: Tensors) -> str:
    if any(_LORA.search(key) for key in tensors):
        return "lora"
    for kind, sign in _SIGNS:
        if sign in tensors:
            return kind
    if any(re.match(r"blocks\.\d+\.(self_attn|cross_attn|ffn|modulation)\b", key) for key in tensors):
        return "wan"
    return "unknown"


_NAMES = (
    (r"causal.?forcing|framewise|chunkwise", (
        (r"1.?step", "causal-forcing-1step"),
        (r"2.?step", "causal-forcing-2step"),
        (r"framewise|frame.wise", "causal-forcing-framewise"),
        (r"", "causal-forcing"),
    )),
    (r"hi.?stream", ((r"", "histream"),)),
    (r"caus.?vid|autoregressive_checkpoint", ((r"", "causvid"),)),
    (r"long.?live", ((r"", "longlive"),)),
    (r"self.?forcing", ((r"", "self-forcing"),)),
)  # fmt: skip

_SMALLEST_PUBLISHED = 1024
"""Channels; narrower Wan models are toys such as the bundled demo."""


def guess_preset(checkpoint: Checkpoint) -> str:
    """The preset that fits a Wan checkpoint: told by its metadata, else by its name, container and width.

    A guess, to be overridden: training checkpoints without a telling name count as Self-Forcing, other files as plain
    Wan. The names of the two folders above the file are looked at too (chunkwise/causal_forcing.pt).
    """
    told = checkpoint.metadata.get("histream_preset")
    if told in PRESETS:
        return told
    if checkpoint.config and checkpoint.config.dim < _SMALLEST_PUBLISHED:
        return "demo"
    *folders, file = checkpoint.path.absolute().parts[-3:]
    # A folder called after this project says nothing about the weights in it.
    name = "/".join([*(folder for folder in folders if folder.lower() != "histream"), file]).lower()
    for family, variants in _NAMES:
        if re.search(family, name):
            return next(preset for variant, preset in variants if re.search(variant, name))
    config = _json_object(checkpoint.metadata.get("config"))
    causal = _json_object(config.get("transformer")).get("causal_ar") or "generator" in checkpoint.container
    return "self-forcing" if causal else "wan"


_SIZES = {
    "wan": (
        "patch_embedding.weight",
        "text_embedding.0.weight",
        "time_embedding.0.weight",
        "blocks.0.ffn.0.weight",
        "head.head.weight",
        "head.modulation",
    ),
    "wan-vae": ("decoder.head.0.gamma", "conv2.weight", "encoder.conv1.weight"),
    "taehv": SIZE_KEYS,
}
"""Tensors that a model's sizes are read off; without them nothing more can be said about it."""


def _compare(checkpoint: Checkpoint) -> Checkpoint:
    """Hold a checkpoint against the key set of its kind: what is missing, left over, of another size."""
    if checkpoint.kind not in _SIZES:
        return checkpoint
    found = {key: x for key, x in checkpoint.state_dict.items() if not _is_scale(key)}
    absent = tuple(key for key in _SIZES[checkpoint.kind] if key not in found or found[key].ndim < 2)
    if absent:
        return replace(checkpoint, missing=absent)
    if checkpoint.kind == "taehv":
        found = decoder_weights(found)  # an encoder may be there, or not
    config, expected = (
        _expect_wan(found, checkpoint) if checkpoint.kind == "wan" else _expect_vae(checkpoint.kind, found)
    )
    wrong = [
        f"{key} {list(found[key].shape)} instead of {list(shape)}"
        for key, shape in expected.items()
        if key in found and found[key].shape != shape and not _packed(checkpoint, found[key])
    ]
    return replace(
        checkpoint,
        config=config,
        missing=tuple(key for key in expected if key not in found),
        left_over=tuple(key for key in found if key not in expected),
        wrong_size=tuple(wrong),
    )


def _expect_wan(found: Tensors, checkpoint: Checkpoint) -> tuple[WanConfig, dict[str, torch.Size]]:
    """Sizes and key set of the Wan model that these tensors belong to; one layer is built and counted often."""
    layers = {match[1] for key in found if (match := re.match(r"blocks\.(\d+)\.", key))}
    known = {key: x for key, x in found.items() if not key.startswith("blocks.") or re.match(r"blocks\.\d+\.", key)}
    try:
        config = WanConfig.from_state_dict(known, checkpoint.metadata)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{checkpoint.path} has sizes that no Wan model has: {error}") from error
    with torch.device("meta"):
        one = WanModel(replace(config, num_layers=1)).state_dict()
    expected = {key: x.shape for key, x in one.items() if not key.startswith("blocks.")}
    block = {key.removeprefix("blocks.0."): x.shape for key, x in one.items() if key.startswith("blocks.")}
    expected |= {f"blocks.{layer}.{key}": shape for layer in range(len(layers)) for key, shape in block.items()}
    return config, expected


def _expect_vae(kind: str, found: Tensors) -> tuple[None, dict[str, torch.Size]]:
    sizes = [found[key] for key in _SIZES[kind]]
    with torch.device("meta"):
        if kind == "taehv":
            vae = TAEHV(widths=tuple(x.shape[0] for x in sizes))
        else:
            width, latent, image = sizes
            vae = WanVAE(dim=width.shape[0], z_dim=latent.shape[0], image_channels=image.shape[1])
    return None, {key: x.shape for key, x in vae.state_dict().items()}


def _packed(checkpoint: Checkpoint, x: Tensor) -> bool:
    """Some quantised formats hold two values in a byte."""
    return checkpoint.quantised and x.dtype in (torch.uint8, torch.int8)


def _is_scale(key: str) -> bool:
    return bool(SCALE_KEY.search(key))


def _scale_of(checkpoint: Checkpoint, key: str) -> Tensor | None:
    """The factor of one quantised weight, shaped to multiply it; None where the weight has none."""
    x, layer = checkpoint.state_dict[key], key.removesuffix("weight")
    scale = next((s for name in SCALES if (s := checkpoint.state_dict.get(layer + name)) is not None), None)
    if x.dtype in FLOAT8 and (scale is None or scale.numel() in (1, x.shape[0])):
        return None if scale is None else scale.float().reshape(-1, *(1,) * (x.ndim - 1))
    if scale is None and x.is_floating_point():
        return None
    raise CheckpointError(
        f"{checkpoint.path} is quantised in a way that only ComfyUI can run ({key} is {_name(x.dtype)}): "
        "load it there, or take an fp16, bf16 or fp8 file"
    )


def _main_dtype(tensors: Tensors) -> torch.dtype | None:
    counts: Counter[torch.dtype] = Counter()
    for x in tensors.values():
        counts[x.dtype] += x.numel()
    return counts.most_common(1)[0][0] if counts else None


def _compute_dtype(checkpoint: Checkpoint) -> torch.dtype:
    return checkpoint.dtype if checkpoint.dtype in DTYPES.values() else torch.bfloat16


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _is_shard(path: Path) -> bool:
    return bool(re.search(r"-\d{5}-of-\d{5}\.", path.name))


# --- names ----------------------------------------------------------------------------------------------------------

_DIFFUSERS = (
    (r"^condition_embedder\.(text|time)_embedder\.linear_1\.", r"\1_embedding.0."),
    (r"^condition_embedder\.(text|time)_embedder\.linear_2\.", r"\1_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^proj_out\.", "head.head."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"\.scale_shift_table$", ".modulation"),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"_attn\.to_([qkv])\.", r"_attn.\1."),
    (r"_attn\.to_out\.0\.", "_attn.o."),
    (r"_attn\.add_([kv])_proj\.", r"_attn.\1_img."),
    (r"_attn\.norm_added_k\.", "_attn.norm_k_img."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
    # Diffusers counts norms in the order of use, Wan in that of its code.
    (r"\.norm([23])\.", lambda match: f".norm{5 - int(match[1])}."),
)


def rename_diffusers(key: str) -> str:
    """The Wan name of a tensor of a diffusers WanTransformer3DModel."""
    for pattern, name in _DIFFUSERS:
        key = re.sub(pattern, name, key)
    return key


def _strip(tensors: Tensors) -> tuple[Tensors, str]:
    """Take wrappers out of all key names, and off whatever stands before every one of them."""
    stripped = {WRAPPERS.sub("", key): x for key, x in tensors.items()}
    taken = ""
    for container in CONTAINERS[:2]:
        inner = {key.removeprefix(f"{container}."): x for key, x in stripped.items() if key.startswith(f"{container}.")}
        if inner:
            stripped, taken = inner, f"{container}."
            break
    while prefix := next((p for p in PREFIXES if stripped and all(key.startswith(p) for key in stripped)), None):
        stripped = {key.removeprefix(prefix): x for key, x in stripped.items()}
        taken += prefix
    wrappers = dict.fromkeys(name for key in tensors for name in WRAPPERS.findall(key))
    return stripped, taken + "".join(wrappers)


def _json_object(text: object) -> dict:
    """A JSON object in metadata, as text or already read; empty where there is none."""
    if isinstance(text, str):
        with suppress(json.JSONDecodeError):
            text = json.loads(text)
    return text if isinstance(text, dict) else {}
