"""State dicts with bare key names, out of weight files in any container and naming, and what model they are.

A file is recognised by its content, never by its extension. Nothing in it is ever executed. Tensors are mapped, not
read, wherever the format allows, so opening a file is cheap and weights exist once. Every problem is a CheckpointError.
"""

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..files.reading import parse_json
from ..network.model import WanConfig, WanModel
from ..vae import upsampler
from ..vae.model import WanVAE
from ..vae.taehv import SIZE_KEYS, TAEHV, decoder_weights
from .containers import Tensors, open_weights
from .errors import CheckpointError, first_five
from .key_names import SECOND, published_name
from .parts import ADVICE, KINDS, find_part

SCALE_KEY = re.compile(
    r"(^|\.)(scaled_fp8|scale_weight|scale_input|weight_scale(_2|_inv)?|input_scale|comfy_quant|pre_quant_scale|weight_s_\w+)$"
)
"""Keys that ComfyUI stores beside quantised weights."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights with bare key names, and what is known about them. Tensors may be mapped from the file."""

    path: Path
    kind: str
    """A key of KINDS; "wan", "wan-vae", "taehv", "upsampler" and "umt5" can be loaded."""
    container: str
    """The format, and the dictionary in it that was chosen: "safetensors", "torch: generator_ema"."""
    prefix: str
    """The prefix that was removed from the key names."""
    state_dict: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    """The metadata of a safetensors header."""
    dtype: torch.dtype | None
    """The dtype of most values; None where there are none."""
    config: WanConfig | None = None
    """Sizes of a Wan transformer."""
    quantised: bool = False
    """Weights are fp8 or int8 with scales beside them, as ComfyUI stores them."""
    missing: tuple[str, ...] = field(default=(), repr=False)
    left_over: tuple[str, ...] = field(default=(), repr=False)
    """Keys that the model has no place for and that are no part of it: they are not in `state_dict`."""
    foreign: tuple[str, ...] = field(default=(), repr=False)
    """Keys of weights that belong to a part which the model does not have, so that it is another model."""
    wrong_size: tuple[str, ...] = field(default=(), repr=False)
    beside: tuple[str, ...] = ()
    """The rest of the file: beginnings of key names with a number of tensors each, and useless metadata."""

    @property
    def second(self) -> bool:
        """Whether a Wan transformer has a second set of weights, for its cache passes."""
        return any(key.startswith(SECOND) for key in self.state_dict)

    @property
    def num_params(self) -> int:
        """Number of parameters, without scales."""
        return sum(x.numel() for key, x in self.state_dict.items() if not is_scale(key))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors as stored."""
        return sum(x.numel() * x.element_size() for x in self.state_dict.values())


def read_checkpoint(path: str | Path, *, kind: str | tuple[str, ...] = ()) -> Checkpoint:
    """Open a weight file of any known format; with `kind`, require a complete model of that kind, or of one of them.

    Of several models in a file, that of the kind is taken. Raises CheckpointError for a file that is missing, damaged,
    no weights, contains code, or is no complete `kind`.
    """
    path, kinds = Path(path), (kind,) if isinstance(kind, str) else kind
    tensors, stored, container = open_weights(path)
    try:
        part = find_part(tensors, kinds)
    except ValueError as error:
        raise CheckpointError(f"{path} {error}") from error
    metadata = {key: text for key, text in stored.items() if key not in PARSED or _is_read(key, text)}
    checkpoint = Checkpoint(
        path=path,
        kind=part.kind,
        container=container + ", diffusers names" if part.renamed else container,
        prefix=part.prefix,
        state_dict=part.tensors,
        metadata=metadata,
        dtype=_main_dtype(part.tensors),
        quantised=any(is_scale(key) for key in part.tensors),
        beside=(*part.beside, *(f'metadata "{key}" (no JSON of ComfyUI)' for key in stored if key not in metadata)),
    )
    checkpoint = _compare(checkpoint)
    if not kinds:
        return checkpoint
    return check(checkpoint, checkpoint.kind if checkpoint.kind in kinds else kinds[0])


def check(checkpoint: Checkpoint, kind: str) -> Checkpoint:
    """Check that a checkpoint is a complete model of that kind. Raises CheckpointError that names five odd keys."""
    if checkpoint.kind != kind:
        advice = ADVICE.get(checkpoint.kind, "give another file")
        raise CheckpointError(f"{checkpoint.path} holds {KINDS[checkpoint.kind]}, not {KINDS[kind]}: {advice}")
    faults = {
        "missing": checkpoint.missing,
        "of the wrong size": checkpoint.wrong_size,
        "left over": checkpoint.foreign,
    }
    if any(faults.values()):
        faults["left over"] = (*checkpoint.foreign, *checkpoint.left_over)
        said = [f"{len(keys)} {fault} ({first_five(keys)})" for fault, keys in faults.items() if keys]
        raise CheckpointError(f"{checkpoint.path} is not {KINDS[kind]} as we know it: of its tensors {'; '.join(said)}")
    return checkpoint


PARSED = ("config", "_quantization_metadata")
"""Metadata that ComfyUI reads as JSON objects."""


def _is_read(key: str, text: str) -> bool:
    """Whether metadata of `PARSED` are what they have to be, so that they can be handed on."""
    found = parse_object(text)
    return found is not None and (key != "config" or isinstance(found.get("transformer", {}), dict))


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
    "upsampler": upsampler.SIZE_KEYS,
}
"""Keys of the tensors whose shapes are the sizes of a model of each kind."""

_MOST_LAYERS, _WIDEST_VAE = 1000, 2**16
"""Far beyond every model: the tensors that a model must have are counted from these numbers."""


def _compare(checkpoint: Checkpoint) -> Checkpoint:
    """Compare the keys and shapes of a checkpoint with those of its kind: missing, left over, of the wrong size.

    The odd ones are told by the names that they have, or would have, in the user's file.
    """
    if checkpoint.kind not in _SIZES:
        return checkpoint
    found = {key: x for key, x in checkpoint.state_dict.items() if not is_scale(key)}
    absent = tuple(key for key in _SIZES[checkpoint.kind] if key not in found or found[key].ndim < 2)
    if absent:
        return replace(checkpoint, missing=absent)
    if checkpoint.kind == "taehv":
        found = decoder_weights(found)  # an encoder may be there, or not
    expect = {"wan": _expect_wan, "upsampler": _expect_upsampler}.get(checkpoint.kind, _expect_vae)
    config, expected = expect(found, checkpoint)
    wrong = [
        f"{published_name(key)} {list(found[key].shape)} instead of {list(shape)}"
        for key, shape in expected.items()
        if key in found and found[key].shape != shape and not _packed(checkpoint, found[key])
    ]
    wrong += [
        f"{published_name(key)} as {dtype_name(found[key].dtype)}"
        for key in expected
        if key in found and not found[key].is_floating_point() and not _packed(checkpoint, found[key])
    ]
    extra = [key for key in found if key not in expected]
    foreign = [key for key in extra if _computes(key, found[key], config)]
    left_over = {key for key in extra if key not in foreign}
    return replace(
        checkpoint,
        state_dict={key: x for key, x in checkpoint.state_dict.items() if key not in left_over},
        config=config,
        missing=tuple(published_name(key) for key in expected if key not in found),
        left_over=tuple(published_name(key) for key in extra if key in left_over),
        foreign=tuple(map(published_name, foreign)),
        wrong_size=tuple(wrong),
    )


_BUFFER = re.compile(r"(^|\.)(freqs\w*|inv_freq|rope\w*|num_batches_tracked|_extra_state)(\.|$)")
"""Keys of what is computed anew from sizes, or counted in training."""

_LAYER = re.compile(r"(second\.)?blocks\.\d+\.|(en|de)coder\.|(pre_shuffle|skip_up)\.")
"""Beginnings of keys of the layers of a model."""


def _computes(key: str, x: Tensor, config: WanConfig | None) -> bool:
    """Whether a tensor that the model has no place for looks like a weight that its results depend on."""
    if _BUFFER.search(key) or not (x.is_floating_point() or x.dtype in (torch.uint8, torch.int8)):
        return False
    return bool(_LAYER.match(key)) or (config is not None and x.ndim > 1 and config.dim in x.shape)


def _expect_wan(found: Tensors, checkpoint: Checkpoint) -> tuple[WanConfig, dict[str, torch.Size]]:
    """Sizes, keys and shapes of the Wan model of these tensors; one layer is built and repeated."""
    layers = {match[1] for key in found if (match := re.match(r"blocks\.(\d+)\.", key))}
    if len(layers) > _MOST_LAYERS:
        raise CheckpointError(f"{checkpoint.path} has {len(layers)} layers, and at most {_MOST_LAYERS} are read")
    known = {key: x for key, x in found.items() if not key.startswith("blocks.") or re.match(r"blocks\.\d+\.", key)}
    try:
        config = WanConfig.from_state_dict(known, checkpoint.metadata)
    except (ValueError, LookupError) as error:
        raise CheckpointError(f"{checkpoint.path} has sizes that no Wan model has: {error}") from error
    with torch.device("meta"):
        one = WanModel(replace(config, num_layers=1)).state_dict()
    expected = {key: x.shape for key, x in one.items() if not key.startswith("blocks.")}
    block = {key.removeprefix("blocks.0."): x.shape for key, x in one.items() if key.startswith("blocks.")}
    expected |= {f"blocks.{layer}.{key}": shape for layer in range(len(layers)) for key, shape in block.items()}
    if any(key.startswith(SECOND) for key in found):
        expected |= {SECOND + key: shape for key, shape in expected.items()}
    return config, expected


def _expect_vae(found: Tensors, checkpoint: Checkpoint) -> tuple[None, dict[str, torch.Size]]:
    sizes = [found[key] for key in _SIZES[checkpoint.kind]]
    if not all(0 < length <= _WIDEST_VAE for x in sizes for length in x.shape):
        raise CheckpointError(f"{checkpoint.path} has sizes that no VAE has: {[list(x.shape) for x in sizes]}")
    with torch.device("meta"):
        if checkpoint.kind == "taehv":
            vae = TAEHV(widths=tuple(x.shape[0] for x in sizes))
        else:
            width, latent, image = sizes
            vae = WanVAE(dim=width.shape[0], z_dim=latent.shape[0], image_channels=image.shape[1])
    return None, {key: x.shape for key, x in vae.state_dict().items()}


def _expect_upsampler(found: Tensors, checkpoint: Checkpoint) -> tuple[None, dict[str, torch.Size]]:
    try:
        network = upsampler.LatentUpsampler.of_sizes(found)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path} has sizes that no upsampler has: {error}") from error
    return None, {key: x.shape for key, x in network.state_dict().items()}


def _packed(checkpoint: Checkpoint, x: Tensor) -> bool:
    """Whether a tensor may hold two values in a byte, so that its shape says nothing."""
    return checkpoint.quantised and x.dtype in (torch.uint8, torch.int8)


def _main_dtype(tensors: Tensors) -> torch.dtype | None:
    counts: Counter[torch.dtype] = Counter()
    for x in tensors.values():
        counts[x.dtype] += x.numel()
    return counts.most_common(1)[0][0] if counts else None


def is_scale(key: str) -> bool:
    """Whether a key belongs to a scale of quantised weights, not to a weight."""
    return bool(SCALE_KEY.search(key))


def dtype_name(dtype: torch.dtype | None) -> str:
    """The name of a dtype without the prefix: "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def json_object(text: object) -> dict:
    """A JSON object in metadata, as text or parsed; empty for anything else."""
    return parse_object(text) or {}


def parse_object(text: object) -> dict | None:
    """A JSON object in metadata, as text or parsed; None for anything else."""
    if isinstance(text, str):
        with suppress(ValueError):
            text = parse_json(text)
    return text if isinstance(text, dict) else None
