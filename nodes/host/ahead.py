"""Looks ahead, before the first step, at nodes that take what a node will make, and tells what they would refuse."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import server
from comfy_execution.utils import get_executing_context

import nodes

from ...histream_core.lab.judge.drift_meter import check_length
from ...histream_core.plan.sizes import pixel_frames
from ...histream_core.video.edit.ranges import range_at
from ...histream_core.video.formats import find_format
from ..settings import VideoChoice
from .decode import check_vae, images_shape, video_size
from .frames import check_name
from .graph import is_link
from .images import check_images
from .run_folders import check_inside

OTHER_VAES = ("pixel_space", "taesd", "taef")
"""Beginnings of the names that the host's VAELoader has for VAEs of other models without a file of their own."""


@dataclass(frozen=True)
class ComingLatent:
    """A LATENT that will be made."""

    shape: Sequence[int]


@dataclass(frozen=True)
class ComingVideo:
    """A VIDEO that will be made."""

    num_frames: int
    fps: float


@dataclass(frozen=True)
class ComingRange:
    """A range of a video."""


@dataclass(frozen=True)
class Missing:
    """An output that will be empty; what it is, why, and what to do."""

    words: str


NO_IMAGES = Missing("the images of Streaming VAE Decode, where images is off: turn images on, or disconnect them")

Outputs = Mapping[int, Any]
"""By number of an output: one of the classes above, or nothing for one that is not looked at."""


def check_sampler(hidden, latent: Mapping, choice: VideoChoice | None, vae) -> None:
    """Check the nodes behind the Anchor-Window Sampler. Raises ValueError that names the node."""
    shape = latent["samples"].shape
    if latent["samples"].is_nested or len(shape) != 5 or 0 in shape:
        return  # refused in the sampler's own words
    if vae is not None:
        check_vae(vae)
    where = "the Anchor-Window Sampler, which makes it with a Video Output alone: connect one to its output"
    outputs = {1: Missing(f"the VIDEO of {where}"), 2: Missing(f"the run of {where}")}
    if choice:
        outputs = {1: coming_video(choice, pixel_frames(shape[2]), choice.fps)}
    check_ahead(hidden, {0: ComingLatent(tuple(shape)), **outputs})


def coming_video(choice: VideoChoice, num_frames: int, fps: float) -> ComingVideo | Missing:
    """The VIDEO of a run; missing where its format is a folder of pictures."""
    if find_format(choice.format, choice.depth).is_sequence:
        return Missing(f"a VIDEO, and {choice.format} is a folder of pictures: choose a video format at Video Output")
    return ComingVideo(num_frames, fps)


def check_ahead(hidden, outputs: Outputs) -> None:
    """Check the nodes behind the running one, which will put out `outputs`. Raises ValueError that names the node."""
    graph = getattr(hidden, "prompt", None)
    if graph:
        _check(graph, _running(graph), hidden.unique_id, outputs)


def _check(graph: Mapping, running: set[str], source: str, outputs: Outputs) -> None:
    for taker, number in _takers(graph, running, source):
        coming, kind = outputs.get(number), graph[taker].get("class_type", "")
        if isinstance(coming, Missing):
            raise ValueError(f"{_title(graph, taker)} takes {coming.words}")
        if coming is None or kind not in CHECKS:
            continue
        try:
            made = CHECKS[kind](_with_loader(graph, _inputs(graph, taker)), coming)
        except ValueError as error:
            raise ValueError(f"{_title(graph, taker)}: {error}") from error
        _check(graph, running, taker, made)


def _takers(graph: Mapping, running: set[str], source: str) -> Iterator[tuple[str, int]]:
    """Yield the nodes that take an output of `source`, and its number."""
    for taker in running:
        for value in _inputs(graph, taker).values():
            if is_link(value) and value[0] == source:
                yield taker, value[1]


def _inputs(graph: Mapping, node: str) -> Mapping[str, Any]:
    return graph.get(node, {}).get("inputs", {})


def _with_loader(graph: Mapping, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inputs of a node, and vae_name of the host's loader where its VAE comes from that."""
    link = inputs.get("vae")
    loader = graph.get(link[0], {}) if link and is_link(link) else {}
    name = loader.get("inputs", {}).get("vae_name") if loader.get("class_type") == "VAELoader" else None
    return {**inputs, "vae_name": name if isinstance(name, str) else ""}


def _title(graph: Mapping, node: str) -> str:
    """The name of a node, as the artist sees it."""
    kind = graph[node].get("class_type", node)
    return graph[node].get("_meta", {}).get("title") or nodes.NODE_DISPLAY_NAME_MAPPINGS.get(kind) or kind


def _running(graph: Mapping) -> set[str]:
    """The nodes that run in this prompt: all, or those alone that its outputs need."""
    context, instance = get_executing_context(), getattr(server.PromptServer, "instance", None)
    items = instance.prompt_queue.get_current_queue()[0] if context and instance else []
    waiting = next((list(item[4]) for item in items if item[1] == context.prompt_id), list(graph))
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node in graph and node not in found:
            found.add(node)
            waiting += [value[0] for value in _inputs(graph, node).values() if is_link(value)]
    return found


def _number(inputs: Mapping[str, Any], name: str, usual: float) -> Any:
    """The number at a widget; `usual` for one that is linked or left out."""
    value = inputs.get(name, usual)
    return value if isinstance(value, int | float) else usual


def _decode(inputs: Mapping[str, Any], latent: ComingLatent) -> Outputs:
    if inputs.get("vae_name", "").startswith(OTHER_VAES):
        raise ValueError(f"{inputs['vae_name']} is not a Wan 2.1 VAE: load wan_2.1_vae.safetensors, or taew2_1")
    size = video_size(latent.shape, crop=inputs.get("crop_1088") is not False)
    if inputs.get("images") is True:
        check_images(images_shape(latent.shape, size), _number(inputs, "image_limit_gib", 8.0))
    found = {1: NO_IMAGES} if inputs.get("images", False) is False else {}
    if is_link(inputs.get("output")):
        return found
    if isinstance(prefix := inputs.get("filename_prefix"), str):
        check_inside(prefix)
    return {0: ComingVideo(pixel_frames(latent.shape[2]), _number(inputs, "fps", 16)), **found}


def _drift(inputs: Mapping[str, Any], video: ComingVideo) -> Outputs:
    check_length(video.num_frames, video.fps)
    if isinstance(prefix := inputs.get("filename_prefix"), str):
        check_inside(prefix)
    return {}


def _frames(inputs: Mapping[str, Any], video: ComingVideo) -> Outputs:
    index, size, overlap = (
        _number(inputs, name, usual) for name, usual in (("range_index", 0), ("range_frames", 81), ("overlap", 0))
    )
    range_at(index, num_frames=video.num_frames, size=size, overlap=overlap, fps=video.fps, source="")
    return {1: ComingRange()}


def _ranges(inputs: Mapping[str, Any], _: ComingRange) -> Outputs:
    if isinstance(name := inputs.get("name"), str):
        check_name(name, inputs.get("format", "h264-mp4"))
    return {}


CHECKS: dict[str, Callable[[Mapping[str, Any], Any], Outputs]] = {
    "HiStreamStreamingVAEDecode": _decode,
    "HiStreamDriftMeter": _drift,
    "HiStreamVideoFrames": _frames,
    "HiStreamRangesToVideo": _ranges,
}
"""By class of a node: refuses, by its inputs, what it could not take; returns what it will put out."""
