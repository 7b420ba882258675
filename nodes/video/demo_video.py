"""Node: a painted clip of the demo model's world, as a source for Video to Video without a file of one's own."""

from ...histream_core.demo.sentence import EXAMPLE, combination_of
from ..host import demo_video as host_demo_video
from ..host.api import CATEGORY, io, ui
from ..kept_video import video_socket


class DemoVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamDemoVideo",
            display_name="Demo Video",
            category=CATEGORY,
            description="A painted clip of the demo model's world, 256x256: a coloured shape moves over a plain "
            "background, as the sentence says. A source to try Video to Video with, without a file of your own. "
            "Drawn, not generated.",
            search_aliases=["HiStream", "test video", "example video", "source video", "no download"],
            inputs=[
                io.String.Input(
                    "text",
                    default=EXAMPLE,
                    tooltip="What moves, where to and on what, in the demo model's words. The object's colour stands "
                    "before its shape.",
                ),
                io.Float.Input(
                    "seconds", default=3.0, min=0.1, max=600, step=0.1, tooltip="Length of the clip in seconds."
                ),
                io.Float.Input(
                    "fps",
                    default=16,
                    min=1,
                    max=120,
                    step=0.001,
                    optional=True,
                    advanced=True,
                    tooltip="Frames per second. The object is as fast at any rate: 4 seconds for the width of the "
                    "picture. The demo model was trained at 16.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    tooltip="The clip, without sound, as a file in ComfyUI's temp folder, which ComfyUI empties when "
                    "it starts; Save Video keeps it."
                )
            ],
        )

    @classmethod
    def execute(cls, text, seconds, fps=16):
        clip = host_demo_video.write_demo_video(combination_of(text), seconds, fps)
        shown = ui.PreviewVideo([ui.SavedResult(clip.path.name, clip.subfolder, io.FolderType.temp)])
        return io.NodeOutput(video_socket(clip.path, clip.format), ui=shown)
