"""Conversion of a weight file in any known format to a safetensors file for ComfyUI."""

import json
from pathlib import Path

import torch

from ..files.disk import check_new
from .checkpoint import Checkpoint, check, json_object, read_checkpoint
from .containers import write_safetensors
from .errors import CheckpointError
from .inspection import guess_preset
from .key_names import lora_name, published_name
from .loading import cast_tensor, check_dtype, dtype_for, plain_keys
from .parts import KINDS
from .shards import files_of


def convert(
    source: str | Path,
    target: str | Path,
    *,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Checkpoint:
    """Write a safetensors file for ComfyUI, with bare key names and metadata about the weights; return the source.

    `dtype` None keeps the stored values, quantised ones included. Where the guessed preset is causal, the metadata have
    {"transformer": {"causal_ar": true}}, so that ComfyUI loads a causal model. The file is written atomically. Raises
    CheckpointError, also for a full disk.
    """
    source, target = Path(source), Path(target)
    checkpoint = read_checkpoint(source)
    if checkpoint.kind not in ("wan", "wan-vae", "lora", "upsampler"):
        raise CheckpointError(
            f"{source} holds {KINDS[checkpoint.kind]}: only Wan models, LoRAs, VAEs and upsamplers can be converted"
        )
    check(checkpoint, checkpoint.kind)
    _check_target(source, target, overwrite)
    metadata = dict(checkpoint.metadata)
    if checkpoint.kind == "wan":
        metadata |= _describe(checkpoint, guess_preset(checkpoint))
    if "_quantization_metadata" in metadata:
        metadata["_quantization_metadata"] = metadata["_quantization_metadata"].replace(f'"{checkpoint.prefix}', '"')
    name_of = lora_name if checkpoint.kind == "lora" else published_name
    named = {name_of(key): key for key in checkpoint.state_dict}
    if len(named) < len(checkpoint.state_dict):
        raise CheckpointError(f"{source} holds several LoRAs for the same layers: save the one that is meant by itself")
    if dtype is None:
        stored = {name: (x.dtype, x.shape) for name, key in named.items() for x in [checkpoint.state_dict[key]]}
        write_safetensors(
            target, stored, lambda name: checkpoint.state_dict[named[name]], metadata, overwrite=overwrite
        )
        return checkpoint
    check_dtype(dtype)
    metadata.pop("_quantization_metadata", None)
    stored = {
        name_of(key): (dtype_for(checkpoint, key, dtype), checkpoint.state_dict[key].shape)
        for key in plain_keys(checkpoint)
    }
    write_safetensors(
        target, stored, lambda name: cast_tensor(checkpoint, named[name], dtype), metadata, overwrite=overwrite
    )
    return checkpoint


def _describe(checkpoint: Checkpoint, preset: str) -> dict[str, str]:
    """Metadata of the new file: ComfyUI's `config`, with that of the source, and the preset of a file without it."""
    config = json_object(checkpoint.metadata.get("config"))
    told = json_object(config.get("transformer"))
    told.pop("causal_ar", None)
    transformer = told | ({} if preset in ("wan", "demo") else {"causal_ar": True})
    described = {"histream_preset": preset}
    if transformer or config:
        try:
            described["config"] = json.dumps(config | {"transformer": transformer})
        except RecursionError as error:
            raise CheckpointError(
                f'{checkpoint.path} has a "config" that is nested too deep: take another file'
            ) from error
    return described


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    if target.suffix != ".safetensors":
        raise CheckpointError(f'the converted file is named "{target.name}": its name must end in .safetensors')
    if not target.parent.is_dir():
        raise CheckpointError(f"the folder {target.parent} does not exist: make it first")
    if target.is_dir():
        raise CheckpointError(f"{target} is a folder: give a file name")
    if target.exists() and any(target.samefile(file) for file in (source, *files_of(source))):
        raise CheckpointError(f"{target} is the file to convert: give another name")
    try:
        check_new(target, overwrite=overwrite)
    except FileExistsError as error:
        raise CheckpointError(str(error)) from error
