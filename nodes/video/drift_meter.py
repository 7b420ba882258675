"""Node: drift of a video over time."""

from ..host import drift as host_drift
from ..host import log as host_log
from ..host.api import CATEGORY, io, ui


class DriftMeter(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamDriftMeter",
            display_name="Drift Meter",
            category=CATEGORY,
            description="Shows how colour, brightness and sharpness of a video change over time, against its first "
            "second: as curves in the node, as a PNG file and as text. A long video should stay as it began, but for "
            "what happens in it.",
            search_aliases=["HiStream", "color drift", "quality", "oversaturation", "blur", "plot"],
            is_output_node=True,
            inputs=[
                io.Video.Input(
                    "video",
                    tooltip="From the Anchor-Window Sampler, Streaming VAE Decode or Load Video; 2 seconds or more. A "
                    "trim is honoured. One frame at a time is in memory.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="drift/HiStream",
                    tooltip="Folder and start of the PNG file's name, under ComfyUI's output folder.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="plot", tooltip="The curves as a picture."),
                io.String.Output(display_name="text", tooltip="The last second, and the one that is off most."),
            ],
        )

    @classmethod
    def execute(cls, video, filename_prefix="drift/HiStream"):
        plot, text = host_drift.measure_drift(video)
        path, subfolder = host_drift.write_plot(plot, filename_prefix)
        host_log.tell(text)
        shown = ui.SavedImages([ui.SavedResult(path.name, subfolder, io.FolderType.output)])
        return io.NodeOutput(host_drift.to_image(plot), text, ui=shown)
