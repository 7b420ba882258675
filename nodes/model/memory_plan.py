"""Node: memory and disk space of a video, and settings that fit, before anything is computed."""

from ...histream_core.plan.speed import DEFAULTS
from ..host import decode as host_decode
from ..host import log as host_log
from ..host import memory as host_memory
from ..host import runs as host_runs
from ..host.api import CATEGORY, Schedule, VideoOutput, io, ui
from ..host.api import Speed as SpeedSocket
from ..host.checks import check_latent, check_model
from ..host.sizes import latent_size
from ..sampling.anchor_window_sampler import FROM_PRESET, chunk_sampler, window_inputs

NUM_WINDOW_INPUTS = 3


class MemoryPlan(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamMemoryPlan",
            display_name="Memory Plan",
            category=CATEGORY,
            description="Says before the run what a video takes on the GPU, in main memory and on the disk, which "
            "settings make it on a card of 8, 12, 16 or 24 GB and on this computer, and what each of them costs. "
            "Nothing is sampled. Give it what the Anchor-Window Sampler gets.",
            search_aliases=["HiStream", "VRAM", "out of memory", "OOM", "disk space", "KV cache"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="A causal Wan 2.1 MODEL, with the settings of Dual-Resolution Cache."),
                io.Latent.Input("latent", tooltip="The empty video latent: size, length, and videos in a batch."),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The VAE that will decode. Without it: that of Wan 2.1, wan_2.1_vae.safetensors.",
                ),
                Schedule.Input("schedule", optional=True, tooltip="From Step Schedule. Without it: HiStream."),
                VideoOutput.Input(
                    "output",
                    optional=True,
                    tooltip="From Video Output: then every chunk is decoded at once, and the plan counts the disk too.",
                ),
                SpeedSocket.Input(
                    "speed",
                    optional=True,
                    tooltip="From HiStream Speed: its vae_strips and what it approximates count.",
                ),
                *window_inputs()[:NUM_WINDOW_INPUTS],
            ],
            outputs=[
                io.String.Output(
                    display_name="text", tooltip="The plan, as it stands in the node: the verdict in its first line."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        latent,
        vae=None,
        schedule=None,
        output=None,
        speed=None,
        chunk_frames=FROM_PRESET,
        anchor_frames=FROM_PRESET,
        local_frames=FROM_PRESET,
    ):
        check_model(model)
        if vae is not None:
            host_decode.check_vae(vae)
        sampler = chunk_sampler(model, schedule, (chunk_frames, anchor_frames, local_frames), 0.0, speed)
        samples = check_latent(latent, model)
        plan = sampler.plan(samples.shape)
        cost = host_memory.cost_of(model, vae, plan, batch=samples.shape[0], speed=speed or DEFAULTS)
        settings = output and host_runs.run_settings(output, latent_size(samples.shape), preset="", mode="")
        text = host_memory.plan_text(model, cost, settings)
        host_log.tell(text.splitlines()[0])
        return io.NodeOutput(text, ui=ui.PreviewText(text))
