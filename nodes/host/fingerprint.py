"""Hashes of a MODEL and a VAE of the host, to be compared when a run continues later."""

from collections.abc import Iterator

import comfy.quant_ops
from torch import Tensor

from ...histream_core.runs import fingerprint_weights, hash_tensor
from ...histream_core.runs.store.values import digest


def fingerprints(model, vae) -> dict[str, str]:
    """Hashes of the weights of MODEL and VAE, and of everything that other nodes put on the MODEL."""
    return {
        "model": fingerprint_model(model),
        "vae": fingerprint_weights(_plain_weights(vae.patcher)),
        "vae precision": str(vae.vae_dtype),
    }


def fingerprint_model(model) -> str:
    """A hash of a MODEL's own weights, of its LoRAs with their strengths, and of other replaced parts."""
    own = fingerprint_weights(_plain_weights(model))
    patches = {key: _content(value) for key, value in model.patches.items()}
    replaced = {key: type(value).__qualname__ for key, value in model.object_patches.items()}
    return digest([own, patches, replaced]) if patches or replaced else own


def _plain_weights(patcher) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights as they were loaded, also while a LoRA is merged into them."""
    for key, entries in patcher.get_key_patches().items():
        weight = entries[0][0]
        if isinstance(weight, comfy.quant_ops.QuantizedTensor):
            weight = weight.dequantize()
        yield key, weight.detach().as_subclass(Tensor)


def _content(value: object) -> object:
    """A patch as plain values: tensors as hashes, adapters as their class and tensors."""
    if isinstance(value, Tensor):
        return hash_tensor(value)
    if isinstance(value, (tuple, list)):
        return [_content(item) for item in value]
    if isinstance(value, (int, float, str, type(None))):
        return value
    return [type(value).__qualname__, _content(getattr(value, "weights", None))]
