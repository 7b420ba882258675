"""Node: a checkpoint file of any known container as a MODEL."""

import folder_paths

from ...histream_core.plan.presets import PRESETS
from ..api import CATEGORY, io
from ..host import load as host_load
from ..settings import AUTO

FOLDER = "diffusion_models"


class LoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamLoadModel",
            display_name="Load Model (HiStream)",
            category=CATEGORY,
            description="Loads causal Wan weights as they are published (.safetensors, .pt; Self-Forcing, "
            "Causal-Forcing, CausVid, LongLive, plain Wan) and finds out how they want to be sampled. Nothing in a "
            "file is ever executed.",
            search_aliases=["HiStream", "Wan", "Self-Forcing", "CausVid", "LongLive", "checkpoint", "unet"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip="A file in models/diffusion_models.",
                ),
                io.Combo.Input(
                    "preset",
                    options=[AUTO, *PRESETS],
                    default=AUTO,
                    tooltip="Which family of weights this is: it sets steps, time shift, window and positions. "
                    "auto: from the file's metadata and name. Wrong family: blurred or broken motion.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(host_load.WEIGHT_DTYPES),
                    default="default",
                    optional=True,
                    advanced=True,
                    tooltip="default: as ComfyUI sees fit for this computer. fp8_e4m3fn: half the memory for weights, "
                    "slightly less detail. fp8_e5m2: the same memory, rounded more.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="For LoRA, Dual-Resolution Cache and the samplers.")],
        )

    @classmethod
    def execute(cls, model_name, preset=AUTO, weight_dtype="default"):
        path = folder_paths.get_full_path_or_raise(FOLDER, model_name)
        preset = None if preset == AUTO else preset
        return io.NodeOutput(host_load.load_model(path, preset=preset, weight_dtype=weight_dtype))
