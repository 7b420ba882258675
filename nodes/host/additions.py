"""Everything that other nodes put on a MODEL: what works, what is refused, and what does nothing.

It is decided by what is on the MODEL, not by the names of nodes; docs/other-nodes.md lists nodes by it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

from . import log as host_log
from .naming import SOMEONE, codes_of, keys_in, names_of, node_of, plain_function
from .second import second_of

WRAPPER_KEY = "histream"
"""The key of our own wrappers."""

PER_CALL = (WrappersMP.PREDICT_NOISE, WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)
"""Kinds of wrappers around every call of the network."""

CALLED_PARTS = re.compile(
    r"diffusion_model\.(patch_embedding|(text|time)_embedding|time_projection|head\.(head|norm|modulation)"
    r"|blocks\.\d+\.(norm[123]|ffn|modulation|(self|cross)_attn\.(q|k|v|o|norm_[qk])))(\..+)?$"
)
"""Parts of the Wan module that the engine calls itself: where one of them is replaced, its replacement computes."""

GUIDANCE = "mixes prompt and negative prompt in a way of its own, and HiStream has plain CFG and NAG"
AGAIN = "asks the network more than once for a step (as PAG and SLG do), and the caches follow one call"
OWN_WINDOW = "cuts a video into windows, and HiStream has a window of its own (chunk, anchor and local frames)"
EVERY_STEP = "skips steps, and few-step sampling needs every step"
WHOLE_CALLS = (
    "wraps every call of the network, for whole clips and their steps in a row, and HiStream calls it for chunks at "
    "two resolutions"
)
OWN_STEPS = "noise, steps and time shift are those of HiStream (Step Schedule)"
OWN_KEYS = (
    "thins attention where queries and keys are the same tokens, which in HiStream is the first chunk alone (sparse "
    "keys of a window are in HiStream Speed: seen_keys sparse)"
)
SPLIT = "spreads prompts over several GPUs, and HiStream has one prompt"

READ_BY_HOST = {"optimized_attention_override", "wrappers", "callbacks", "sample_sigmas"}
"""Options of the transformer that work."""


@dataclass(frozen=True)
class Kind:
    """A kind of thing on a MODEL, found by `find`, and what it does that cannot work or does nothing."""

    find: Callable[[Any], list]
    """All of that kind on a MODEL; empty where there is none."""
    said: str
    """Completes a sentence that begins with the node's name."""
    usual: str = SOMEONE
    """The node's name where its code does not tell."""

    def node(self, found: list) -> str:
        """The node or nodes that put `found` on a MODEL."""
        named = names_of(found)
        return self.usual if named == SOMEONE else named


def _option(name: str) -> Callable[[Any], list]:
    """A function that lists the values at that name of a MODEL's options."""
    return lambda model: _listed(model.model_options.get(name))


def _transformer_option(name: str) -> Callable[[Any], list]:
    return lambda model: _listed(model.model_options.get("transformer_options", {}).get(name))


REFUSED = (
    Kind(_transformer_option("easycache"), EVERY_STEP),
    Kind(_option("context_handler"), OWN_WINDOW, "a Context Windows node"),
    Kind(_option("model_function_wrapper"), WHOLE_CALLS),
    Kind(_option("sampler_cfg_function"), GUIDANCE),
    Kind(_option("sampler_pre_cfg_function"), GUIDANCE),
    Kind(_option("sampler_calc_cond_batch_function"), GUIDANCE),
    Kind(lambda model: [known for known in after_steps(model) if speaks_of(known, ASKING)], AGAIN),
    Kind(lambda model: [known for known in after_steps(model) if speaks_of(known, NEGATIVE)], GUIDANCE),
    Kind(lambda model: _listed(model.additional_models.get("multigpu")), SPLIT, "a MultiGPU node"),
    Kind(lambda model: _sparse_overrides(model), OWN_KEYS, "Model Sparse Attention"),
)
DOES_NOTHING = (
    Kind(lambda model: _other_sampling(model), OWN_STEPS, "a node like ModelSamplingSD3"),
    Kind(_option("denoise_mask_function"), "there is no noise mask"),
    Kind(lambda model: wrappers_of(model, WrappersMP.SAMPLER_SAMPLE), OWN_STEPS),
)
ASKING = frozenset({"calc_cond_batch", "calc_cond_uncond_batch", "sampling_function", "apply_model"})
"""Names in a function that calls the network."""
NEGATIVE = frozenset({"uncond_denoised", "uncond"})
"""Names in a function that needs the answer to a negative prompt."""


def check_additions(model) -> None:
    """Refuse, in a sentence that names the node, what the engine would not honour of what is on a MODEL."""
    for kind in REFUSED:
        if found := kind.find(model):
            raise ValueError(f"{kind.node(found)} on this MODEL {kind.said}: remove that node")
    check_transformer_options(model.model_options.get("transformer_options", {}))
    for key, value in model.object_patches.items():
        if key.startswith("diffusion_model.") and not CALLED_PARTS.match(key):
            raise ValueError(f"{node_of(value)} replaced {key}, which HiStream does not call: remove that node")
    _check_sampling(model)


def check_transformer_options(options: Mapping) -> None:
    """Refuse options of other nodes that the causal forward would silently ignore."""
    wanted = {
        "block patches": _functions_in(options.get("patches_replace")),
        "attention patches": _functions_in(options.get("patches")),
        "position (RoPE) options": _listed(options.get("rope_options")),
    }
    for what, found in wanted.items():
        if found:
            raise ValueError(
                f"{names_of(found)} on this MODEL uses {what}, which HiStream cannot follow: remove that node"
            )


def say_what_does_nothing(model) -> None:
    """Warn of everything on a MODEL that is left out, wholly or in part, and why; once per run."""
    if second_of(model) and model.patches:
        host_log.warn(
            "a LoRA on this MODEL changes the first of its two sets of weights (SGF+): passes over finished frames go "
            "without it"
        )
    for kind in DOES_NOTHING:
        if found := kind.find(model):
            host_log.warn(f"{kind.node(found)} on this MODEL does nothing here: {kind.said}")
    unread = unread_options(model)
    if unread:
        host_log.warn(f"{SOMEONE} set {', '.join(unread)} on this MODEL, which does nothing here: nothing reads it")


def unread_options(model) -> list[str]:
    """Options of the transformer that neither the host nor the engine nor a function on the MODEL can read."""
    options = model.model_options.get("transformer_options", {})
    if list(functions_on(model)) or options.get("optimized_attention_override"):
        return []
    return [name for name, value in options.items() if name not in READ_BY_HOST and value is not None]


def after_steps(model) -> list[Callable]:
    """Functions on a MODEL that are given the network's answer after each step."""
    return _listed(model.model_options.get("sampler_post_cfg_function"))


def wrappers_of(model, kind: str) -> list[Callable]:
    """Wrappers of a kind on a MODEL, without our own and those that compile."""
    in_options = model.model_options.get("transformer_options", {}).get("wrappers", {})
    found = (by_kind.get(kind, {}) for by_kind in (model.wrappers, in_options))
    return [
        known
        for by_key in found
        for key, values in by_key.items()
        if key not in (WRAPPER_KEY, COMPILE_KEY)
        for known in values
    ]


def between_calls(model) -> list[Callable]:
    """Functions of other nodes that can change what a call of the network is asked or answers."""
    return [*after_steps(model), *(known for kind in PER_CALL for known in wrappers_of(model, kind))]


def functions_on(model) -> Iterator[Callable]:
    """Yield every function that other nodes put on a MODEL, and that the host or the engine calls."""
    yield from between_calls(model)
    for kind in (WrappersMP.OUTER_SAMPLE, WrappersMP.PREPARE_SAMPLING, WrappersMP.SAMPLER_SAMPLE):
        yield from wrappers_of(model, kind)
    yield from (value for value in model.object_patches.values() if plain_function(value))
    yield from _listed(model.model_options.get("transformer_options", {}).get("optimized_attention_override"))


def blamed_for(error: BaseException, model) -> str:
    """The node whose function on a MODEL an error came out of; "" where it is the engine's or the host's."""
    ours = str(Path(__file__).parents[2])
    named = [(plain_function(known), known) for known in functions_on(model)]
    files = {function.__code__.co_filename: known for function, known in named if function}
    trace, last = error.__traceback__, ""
    while trace:
        file = trace.tb_frame.f_code.co_filename
        last = "" if file.startswith(ours) and file not in files else file if file in files else last
        trace = trace.tb_next
    return node_of(files[last]) if last else ""


def speaks_of(value: Callable, names: frozenset[str]) -> bool:
    """Whether one of `names` stands in the code of a function, as a name or as a key."""
    function = plain_function(value)
    return any(names & {*code.co_names, *keys_in(code)} for code in (codes_of(function) if function else ()))


SPARSE_FILE = "nodes_sparse_attention"
"""The module of the host's Block Sparse Attention, which is called Model Sparse Attention since."""


def _sparse_overrides(model) -> list:
    """Functions of the host's sparse attention on a MODEL: in the place of attention, or put there at each step."""
    options = model.model_options.get("transformer_options", {})
    called = [known for by_key in model.callbacks.values() for listed in by_key.values() for known in listed]
    found = [*_listed(options.get("optimized_attention_override")), *called]
    return [known for known in found if _module_of(known) == SPARSE_FILE]


def _module_of(value: Any) -> str:
    """The name of the file in which a function was written, without its folders, which the host may give as a path."""
    function = plain_function(value)
    return re.split(r"[\\/.]", function.__module__)[-1] if function else ""


def _other_sampling(model) -> list:
    """A model_sampling that another node put on a MODEL."""
    return _listed(model.object_patches.get("model_sampling"))


def _check_sampling(model) -> None:
    """Refuse a model_sampling that asks the network otherwise, or reads its answer otherwise, than the weights' own."""
    for other in _other_sampling(model):
        own = model.object_patches_backup.get("model_sampling", model.model.model_sampling)
        if any(not torch.allclose(a, b) for a, b in zip(_answers(own), _answers(other), strict=True)):
            raise ValueError(
                f"{node_of(other)} on this MODEL changes what the network is asked or how its answer is read "
                "(model_sampling), not only the time shift: remove that node"
            )


def _answers(sampling) -> Iterator[torch.Tensor]:
    """Yield the results of a model_sampling for a few noise levels, inputs and outputs."""
    x, out = torch.full((1, 1, 1, 1, 1), 0.7), torch.full((1, 1, 1, 1, 1), -0.4)
    for level in (1.0, 0.625, 0.1):
        sigma = torch.tensor([level])
        yield sampling.timestep(sigma).float()
        yield sampling.calculate_input(sigma, x)
        yield sampling.calculate_denoised(sigma, out, x)


def _functions_in(options: object) -> list:
    """Everything within nested dictionaries and lists."""
    if isinstance(options, Mapping):
        return [known for value in options.values() for known in _functions_in(value)]
    if isinstance(options, (list, tuple)):
        return [known for value in options for known in _functions_in(value)]
    return [] if options is None else [options]


def _listed(value: object) -> list:
    """One thing or several as a list; empty for none."""
    if isinstance(value, (list, tuple)):
        return list(value)
    return [value] if value else []
