"""Nodes: several GPUs for one video, and their release."""

import time
from dataclasses import replace

from ...histream_core.parallel.engine import Engine
from ...histream_core.parallel.workers import NO_RAY, ray_is_there, release_gang
from ..host import log as host_log
from ..host import sampler as host
from ..host.api import CATEGORY, io, ui
from ..host.checks import check_model
from ..host.ranks import count_devices

SPLITS = ("auto", "sequence", "decode")
"""The splits for the plans that nodes make, which compute chunk by chunk."""


class EngineNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamEngine",
            display_name="HiStream Engine",
            category=CATEGORY,
            description="Lets several GPUs of this computer make one video. The frames are the same on any number of "
            "them. Leave it out for one GPU.",
            search_aliases=["HiStream", "multi GPU", "several GPUs", "Ray", "parallel", "Ulysses", "workers"],
            inputs=[
                io.Model.Input("model", tooltip="A Wan 2.1 text-to-video model (causal, few-step)."),
                io.Int.Input(
                    "gpus",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="How many GPUs, the first one included. 0: all that there are. Without a GPU: as many "
                    "processes on the CPU, to try it.",
                ),
                io.Combo.Input(
                    "split",
                    options=list(SPLITS),
                    default="auto",
                    tooltip='sequence: all GPUs compute each step together; needs Ray (pip install "ray>=2.48,<3"). '
                    "decode: a chunk is decoded while the next one is sampled, on the first GPU too. auto: the one "
                    "that is predicted to be faster; without Ray decode.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The same model, for the HiStream samplers.")],
        )

    @classmethod
    def execute(cls, model, gpus=0, split="auto"):
        check_model(model)
        engine = Engine(gpus or count_devices(), split)
        if engine.gpus > 1 and split == "auto" and not ray_is_there():
            host_log.tell(f"Ray is not installed, so one GPU samples: {NO_RAY} for several")
        return io.NodeOutput(host.attach(model, replace(host.model_settings(model), engine=engine)))


class ReleaseWorkers(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamReleaseWorkers",
            display_name="Release Workers",
            category=CATEGORY,
            description="Ends the processes of HiStream Engine now, and frees the memory of their GPUs. They end by "
            "themselves after ten minutes without work, and with ComfyUI.",
            search_aliases=["HiStream", "multi GPU", "Ray", "free memory", "unload"],
            is_output_node=True,
            inputs=[
                io.AnyType.Input(
                    "after",
                    optional=True,
                    tooltip="Anything of the node that is to be finished before, such as its run.",
                )
            ],
            outputs=[io.String.Output(display_name="summary", tooltip="What was ended, for Preview as Text.")],
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        return time.time()

    @classmethod
    def execute(cls, after=None):  # noqa: ARG003 - it only waits for it
        ended = release_gang()
        line = f"{ended} process{'es' * (ended > 1)} ended" if ended else "there was no process to end"
        return io.NodeOutput(line, ui=ui.PreviewText(line))
