"""Looks ahead, before the first step, at nodes that take what a node will make, and tells what they would refuse."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import server
from comfy_execution.utils import get_executing_context

import nodes

from ...histream_core.lab.judge.drift_meter import check_length
from ...histream_core.plan.chunks import Plan
from ...histream_core.plan.schedule import Scale
from ...histream_core.plan.sizes import generated_size, pixel_frames
from ...histream_core.runs import Settings, longer_by
from ...histream_core.video.edit.ranges import range_at
from ...histream_core.video.formats import NAMES, find_format
from .decode import check_vae, images_shape
from .frames import check_name
from .graph import is_link, shown_id
from .images import check_images
from .run_folders import check_inside
from .sizes import latent_size, video_size

OTHER_VAES = ("pixel_space", "taesd", "taef")
"""Beginnings of the names that the host's VAELoader has for VAEs of other models without a file of their own."""

HOST_SAMPLERS = ("SamplerCustom", "SamplerCustomAdvanced")
"""Classes of the host's nodes that take a SAMPLER and put out two LATENTs of the size of theirs."""


@dataclass(frozen=True)
class ComingLatent:
    """A LATENT that will be made."""

    shape: Sequence[int]
    size: tuple[int, int] | None = None
    """Width and height that were asked for of its video; None: as large as the LATENT."""


@dataclass(frozen=True)
class ComingVideo:
    """A VIDEO that will be made."""

    num_frames: int | None
    """None: nobody knows yet."""
    fps: float


@dataclass(frozen=True)
class ComingImages:
    """Pictures that will be made."""


@dataclass(frozen=True)
class ComingRun:
    """A kept run that will be made."""

    plan: Plan
    fps: float
    format: str
    """A name of a format; "" where nobody knows yet."""
    size: tuple[int, int]
    """Width and height that were asked for."""


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


def check_sampler(hidden, latent: Mapping, vae, *, kept: bool) -> None:
    """Check the VAE at the Anchor-Window Sampler and, unless the run is kept, the nodes behind it.

    Raises ValueError that names the node.
    """
    shape = latent["samples"].shape
    if latent["samples"].is_nested or len(shape) != 5 or 0 in shape:
        return  # refused in the sampler's own words
    if vae is not None:
        check_vae(vae)
    if kept:
        return  # its plan comes first: check_run
    where = "the Anchor-Window Sampler, which makes it with a Video Output alone: connect one to its output"
    lacks = {1: Missing(f"the VIDEO of {where}"), 2: Missing(f"the run of {where}")}
    check_ahead(hidden, {0: ComingLatent(tuple(shape)), **lacks})


def check_run(hidden, plan: Plan, settings: Settings) -> None:
    """Check the nodes behind the running one, which will make that run. Raises ValueError that names the node."""
    check_ahead(hidden, _outputs_of(ComingRun(plan, settings.fps, settings.format, generated_size(*settings.size))))


def check_host_sampler(shape: Sequence[int]) -> None:
    """Check the nodes behind the host's sampler that is running, which will put out LATENTs of `shape`.

    Raises ValueError that names the node.
    """
    context, item = get_executing_context(), _current()
    graph, node = (item[2], shown_id(context.node_id)) if context and item else ({}, "")
    if graph.get(node, {}).get("class_type") in HOST_SAMPLERS:
        latent = ComingLatent(tuple(shape))
        _check(graph, _running(graph), node, {0: latent, 1: latent})


def check_ahead(hidden, outputs: Outputs) -> None:
    """Check the nodes behind the running one, which will put out `outputs`. Raises ValueError that names the node."""
    graph = getattr(hidden, "prompt", None)
    if graph:
        _check(graph, _running(graph), shown_id(hidden.unique_id), outputs)


def _check(graph: Mapping, running: set[str], source: str, outputs: Outputs) -> None:
    for taker, number in _takers(graph, running, source):
        coming, kind = outputs.get(number), graph[taker].get("class_type", "")
        if isinstance(coming, Missing):
            raise ValueError(f"{_title(graph, taker)} takes {coming.words}")
        takes, check = CHECKS.get(kind, ((), _save))
        if not isinstance(coming, takes):
            continue
        try:
            made = check(_with_sources(graph, _inputs(graph, taker)), coming)
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


def _with_sources(graph: Mapping, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inputs of a node, and what is chosen at the nodes of its VAE and of its Video Output.

    `vae_name`: that of the host's loader; `chosen`: the inputs of the Video Output. Both are empty where they are not
    known.
    """
    loader, output = _source(graph, inputs.get("vae")), _source(graph, inputs.get("output"))
    name = _inputs_of(loader, "VAELoader").get("vae_name")
    video = _inputs_of(output, "HiStreamVideoOutput")
    return {**inputs, "vae_name": name if isinstance(name, str) else "", "chosen": video}


def _source(graph: Mapping, link: object) -> Mapping:
    """The node that a link comes from."""
    return graph.get(link[0], {}) if isinstance(link, list) and is_link(link) else {}


def _inputs_of(node: Mapping, kind: str) -> Mapping[str, Any]:
    """The inputs of a node of that class; none of any other."""
    return node.get("inputs", {}) if node.get("class_type") == kind else {}


def _title(graph: Mapping, node: str) -> str:
    """The name of a node, as the artist sees it."""
    kind = graph[node].get("class_type", node)
    return graph[node].get("_meta", {}).get("title") or nodes.NODE_DISPLAY_NAME_MAPPINGS.get(kind) or kind


def _running(graph: Mapping) -> set[str]:
    """The nodes that run in this prompt: all, or those alone that its outputs need."""
    item = _current()
    waiting = list(item[4] if item else graph)
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node in graph and node not in found:
            found.add(node)
            waiting += [value[0] for value in _inputs(graph, node).values() if is_link(value)]
    return found


def _current() -> tuple | None:
    """The running prompt, as the host's queue has it; None outside of a server."""
    context, instance = get_executing_context(), getattr(server.PromptServer, "instance", None)
    items = instance.prompt_queue.get_current_queue()[0] if context and instance else []
    return next((item for item in items if item[1] == context.prompt_id), None)


def _number(inputs: Mapping[str, Any], name: str, usual: float) -> Any:
    """The number at a widget; `usual` for one that is linked or left out."""
    value = inputs.get(name, usual)
    return value if isinstance(value, int | float) else usual


def _outputs_of(run: ComingRun) -> Outputs:
    """The outputs of a node that makes a run; no VIDEO where its format is a folder of pictures."""
    plan = run.plan
    shape = (1, 16, plan.num_latent_frames, *plan.grids[Scale.HIGH])
    return {0: ComingLatent(shape, run.size), 1: _video(run.format, plan.num_pixel_frames, run.fps), 2: run}


def _video(format: str, num_frames: int, fps: float) -> ComingVideo | Missing | None:
    """A VIDEO in that format; None where the format is not known."""
    if format not in NAMES:
        return None
    if find_format(format).is_sequence:
        return Missing(
            f"a VIDEO, and {format} is a folder of pictures: choose a video format at Video Output (Branch or "
            "Retry Run takes one too)"
        )
    return ComingVideo(num_frames, fps)


def _decode(inputs: Mapping[str, Any], latent: ComingLatent) -> Outputs:
    if inputs.get("vae_name", "").startswith(OTHER_VAES):
        raise ValueError(f"{inputs['vae_name']} is not a Wan 2.1 VAE: load wan_2.1_vae.safetensors, or taew2_1")
    kept, num_frames = is_link(inputs.get("output")), pixel_frames(latent.shape[2])
    crop = (inputs["chosen"] if kept else inputs).get("crop_1088") is not False
    size = video_size(latent.size or latent_size(latent.shape), crop=crop)
    images = inputs.get("images", False)
    if images is True:
        check_images(images_shape(latent.shape, size), _number(inputs, "image_limit_gib", 8.0))
    found = {1: ComingImages() if images else NO_IMAGES}
    if kept:
        return {
            0: _video(inputs["chosen"].get("format", ""), num_frames, _number(inputs["chosen"], "fps", 16)),
            **found,
        }
    _check_prefix(inputs)
    return {0: ComingVideo(num_frames, _number(inputs, "fps", 16)), **found}


def _resume(_: Mapping[str, Any], run: ComingRun) -> Outputs:
    return _outputs_of(run)


def _extend(inputs: Mapping[str, Any], run: ComingRun) -> Outputs:
    seconds = inputs.get("seconds")
    if not isinstance(seconds, int | float):
        return {}
    return _outputs_of(_chosen(inputs, replace(run, plan=longer_by(run.plan, seconds, run.fps))))


def _branch(inputs: Mapping[str, Any], run: ComingRun) -> Outputs:
    chunk, last = _number(inputs, "from_chunk", 0), run.plan.num_chunks
    if chunk > last:
        raise ValueError(f"the run will have {last} chunks: branch from 0 to {last}")
    return _outputs_of(_chosen(inputs, run))


def _chosen(inputs: Mapping[str, Any], run: ComingRun) -> ComingRun:
    """The run in the format of the Video Output at a node, if there is one."""
    if not is_link(inputs.get("output")):
        return run
    return replace(run, fps=_number(inputs["chosen"], "fps", run.fps), format=inputs["chosen"].get("format", ""))


def _drift(inputs: Mapping[str, Any], video: ComingVideo) -> Outputs:
    if video.num_frames is not None:
        check_length(video.num_frames, video.fps)
    _check_prefix(inputs)
    return {}


def _frames(inputs: Mapping[str, Any], video: ComingVideo) -> Outputs:
    index, size, overlap = (
        _number(inputs, name, usual) for name, usual in (("range_index", 0), ("range_frames", 81), ("overlap", 0))
    )
    if video.num_frames is not None:
        range_at(index, num_frames=video.num_frames, size=size, overlap=overlap, fps=video.fps, source="")
    return {0: ComingImages(), 1: ComingRange()}


def _ranges(inputs: Mapping[str, Any], _: ComingRange) -> Outputs:
    if isinstance(name := inputs.get("name"), str):
        check_name(name, inputs.get("format", "h264-mp4"))
    return {}


def _create(inputs: Mapping[str, Any], _: ComingImages) -> Outputs:
    return {0: ComingVideo(None, _number(inputs, "fps", 30))}


def _save(inputs: Mapping[str, Any], _: ComingVideo | ComingImages) -> Outputs:
    _check_prefix(inputs, portable=False)
    return {}


def _check_prefix(inputs: Mapping[str, Any], *, portable: bool = True) -> None:
    """Check the name of a file that a node will write. `portable`: as our own nodes have it."""
    if isinstance(prefix := inputs.get("filename_prefix"), str):
        check_inside(prefix, portable=portable)


CHECKS: dict[str, tuple[type | tuple[type, ...], Callable[[Mapping[str, Any], Any], Outputs]]] = {
    "HiStreamStreamingVAEDecode": (ComingLatent, _decode),
    "HiStreamDriftMeter": (ComingVideo, _drift),
    "HiStreamVideoFrames": (ComingVideo, _frames),
    "HiStreamRangesToVideo": (ComingRange, _ranges),
    "HiStreamResumeRun": (ComingRun, _resume),
    "HiStreamExtendRun": (ComingRun, _extend),
    "HiStreamBranchRun": (ComingRun, _branch),
    "CreateVideo": (ComingImages, _create),
    **dict.fromkeys(("SaveVideo", "SaveWEBM"), ((ComingVideo, ComingImages), _save)),
    **dict.fromkeys(("SaveImage", "SaveAnimatedWEBP", "SaveAnimatedPNG"), (ComingImages, _save)),
}
"""By class of a node: what it is given, and a function that refuses, by its inputs, what it could not take.

The function returns what the node will put out.
"""
