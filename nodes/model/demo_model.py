"""Node: the bundled demo model; works with no download, on any computer."""

from ...histream_core import demo
from ...histream_core.demo.trained import world
from ..host import load as host_load
from ..host.api import CATEGORY, io


class DemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamDemoModel",
            display_name="Demo Model",
            category=CATEGORY,
            description="A tiny model that comes with HiStream and makes real videos in seconds, without a graphics "
            "card: animals and other things that move over painted places, such as "
            f'"{demo.PROMPT}", and coloured shapes. Made for {demo.WIDTH}x{demo.HEIGHT} at {demo.FPS} frames per '
            "second, any length.",
            search_aliases=["HiStream", "test", "example", "no download"],
            inputs=[],
            outputs=[
                io.Model.Output(tooltip="For the Anchor-Window Sampler."),
                io.Clip.Output(tooltip=f"For CLIP Text Encode. Trained on {world()}."),
                io.Vae.Output(tooltip="For Streaming VAE Decode; only for videos of this demo model."),
            ],
        )

    @classmethod
    def execute(cls):
        return io.NodeOutput(*host_load.load_demo_model())
