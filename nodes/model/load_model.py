"""Node: a checkpoint file of any known container as a MODEL."""

from ...histream_core.plan.presets import PRESETS
from ..host import load as host_load
from ..host.api import CATEGORY, io
from ..settings import AUTO


class LoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamLoadModel",
            display_name="Load Model (HiStream)",
            category=CATEGORY,
            description="Loads causal Wan weights as they are published (.safetensors, .pt; Self-Forcing, "
            "Causal-Forcing, SGF, SGF+, CausVid, LongLive, plain Wan) and finds out how they want to be sampled. "
            "Nothing in a file is ever executed.",
            search_aliases=[
                "HiStream",
                "load Wan model",
                "Self-Forcing",
                "CausVid",
                "LongLive",
                "checkpoint",
                "unet",
            ],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=host_load.model_names(),
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
        path, chosen = host_load.model_path(model_name), None if preset == AUTO else preset
        return io.NodeOutput(host_load.load_model(path, preset=chosen, weight_dtype=weight_dtype))
