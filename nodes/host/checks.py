"""Checks of a node's inputs: each refuses, in one sentence with the fix, what would fail or be silently ignored.

B batch, C channels, T latent frames, H W latent grid.
"""

from collections.abc import Mapping, Sequence

import comfy.ldm.wan.ar_model
import comfy.ldm.wan.model
import comfy.sample
import torch
from torch import Tensor

from .additions import check_additions, check_transformer_options

WAN_CLASSES = (comfy.ldm.wan.model.WanModel, comfy.ldm.wan.ar_model.CausalWanModel)

UNUSED_CONDITIONS = {
    "area": "an area",
    "clip_vision_output": "a CLIP vision image",
    "concat_latent_image": "an image to start from",
    "control": "a ControlNet",
    "end_percent": "a range of steps",
    "gligen": "GLIGEN",
    "hooks": "hooks that change the MODEL (put the LoRA on the MODEL itself)",
    "mask": "a mask",
    "reference_latents": "reference latents",
    "start_percent": "a range of steps",
    "vace_frames": "VACE frames",
}


def check_latent(latent: Mapping, model=None) -> Tensor:
    """The samples of an empty LATENT, [B, 16, T, H, W]; raises ValueError for one that would be ignored."""
    samples = latent["samples"]
    if samples.is_nested:
        raise ValueError("the LATENT holds several tensors (video with audio): use an empty video latent of Wan 2.1")
    if model is not None:
        ratios = (latent.get("downscale_ratio_spacial"), latent.get("downscale_ratio_temporal"))
        samples = comfy.sample.fix_empty_latent_channels(model, samples, *ratios)
    if 0 in samples.shape:
        raise ValueError(f"the LATENT of shape {list(samples.shape)} is empty of frames: ask for at least 1 frame")
    check_finite(samples, "the LATENT")
    check_empty(samples)
    if latent.get("noise_mask") is not None:
        raise ValueError("the LATENT has a noise mask, which this sampler cannot follow: remove it")
    return samples


def check_empty(samples: Tensor) -> None:
    if any(torch.count_nonzero(frame) for frame in samples.unbind(2)):
        raise ValueError(
            "the LATENT is not empty, and this sampler starts from noise alone: use EmptyHunyuanLatentVideo"
        )


def check_finite(latent: Tensor, name: str) -> None:
    if not all(torch.isfinite(frame).all() for frame in latent.unbind(2)):  # a long one may lie on the disk
        raise ValueError(
            f"{name} contains NaN or infinity: load the MODEL with another weight dtype, or make the LATENT anew"
        )


def check_model(model) -> None:
    """Refuse a MODEL whose weights, or what other nodes put on it, the causal forward would not honour."""
    if "diffusion_model" in model.object_patches:
        raise ValueError(
            "another node replaced the MODEL's whole network (diffusion_model), as some that compile it do: use "
            "TorchCompileModel, or compile in HiStream Speed"
        )
    module = model.get_model_object("diffusion_model")
    name = type(module).__name__
    if type(module) not in WAN_CLASSES:
        raise ValueError(f"the MODEL is a {name}, not a Wan 2.1 text-to-video model: load one of those")
    if module.model_type != "t2v" or (module.in_dim, module.out_dim) != (16, 16):
        raise ValueError(
            f"the MODEL takes {module.in_dim} latent channels (an image-to-video or other variant), not 16: load the "
            "text-to-video weights, causal video is made from those"
        )
    check_additions(model)


def check_guider(extra_args: Mapping) -> None:
    """Refuse what the host hands to samplers and ours cannot follow."""
    if extra_args.get("denoise_mask") is not None:
        raise ValueError("the LATENT has a noise mask, which this sampler cannot follow: remove it")


def check_options(transformer_options: Mapping, clip_fea, time_dim_concat, kwargs: Mapping) -> None:
    """Refuse, on every call, options of other nodes that the causal forward would silently ignore."""
    check_transformer_options(transformer_options)
    inputs = {"clip_fea": clip_fea, "time_dim_concat": time_dim_concat} | dict(kwargs)
    asked = [name for name, value in inputs.items() if value is not None]
    if asked:
        raise ValueError(f"another node on this MODEL uses {asked[0]}, which HiStream cannot follow: remove that node")


NEGATIVE_PROMPT = "the negative prompt"


def check_conditioning(
    conds: Sequence[Mapping] | None, batch: int, width: int, *, which: str = "the CONDITIONING"
) -> Tensor:
    """The text [items, tokens, channels] of a CONDITIONING that is one plain prompt, which messages call `which`."""
    if not conds:
        raise ValueError("the guider has no positive conditioning: use BasicGuider")
    if len(conds) > 1:
        raise ValueError(f"{which} holds {len(conds)} prompts at once, HiStream takes one: do not combine them")
    cond = conds[0]
    unused = [what for key, what in UNUSED_CONDITIONS.items() if cond.get(key) is not None]
    if unused:
        raise ValueError(f"{which} carries {unused[0]}, which HiStream cannot follow: connect a plain prompt")
    text = cond.get("cross_attn")
    if text is None or text.ndim != 3:
        raise ValueError(f"{which} is no text for Wan: encode the prompt with a CLIP of type wan")
    if text.shape[2] != width:
        raise ValueError(
            f"the text of {which} has {text.shape[2]} channels but the model reads {width}: use the text encoder that "
            "belongs to it (umt5_xxl for Wan, the Demo Model's own for the demo)"
        )
    if text.shape[0] not in (1, batch):
        raise ValueError(f"{text.shape[0]} prompts of {which} do not fit {batch} videos: give 1, or {batch}")
    return text


def check_sigmas(sigmas: Tensor, wanted: Tensor) -> None:
    """Refuse SIGMAS of another schedule: the steps are the plan's, and a later chunk may take others."""
    if sigmas.shape != wanted.shape or not torch.allclose(sigmas.float().cpu(), wanted, atol=1e-4):
        listed = ", ".join(f"{sigma:.4g}" for sigma in wanted.tolist())
        raise ValueError(f"the SIGMAS are not those of the first chunk, {listed}: connect SIGMAS of Step Schedule")
