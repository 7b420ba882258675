"""Node: ranges of pictures that come back from an upscaler become one video."""

from ...histream_core.video.edit.ranges import came_back
from ...histream_core.video.formats import FORMATS, find_format
from .. import kept_video
from ..host import frames as host_frames
from ..host import graph as host_graph
from ..host import log as host_log
from ..host.api import CATEGORY, Range, blocked, io, ui

FILE_FORMATS = tuple(dict.fromkeys(known.name for known in FORMATS if not known.is_sequence))


class RangesToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamRangesToVideo",
            display_name="Ranges to Video",
            category=CATEGORY,
            description="Takes the ranges of Frames of a Video back, one in each run, and makes one video of them when "
            "all are there. Each range is a file as soon as it comes, so a night of upscaling that breaks off goes on "
            "where it was; a range that is run again replaces its file. Every frame is in the video once. Pictures of "
            "a frame interpolator (RIFE, FILM, GIMM-VFI) are taken too: the rate follows, and the time stays.",
            search_aliases=["HiStream", "upscale video", "save video", "combine video", "join video", "RIFE"],
            is_output_node=True,
            hidden=kept_video.HIDDEN,
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="The frames of one range, in any size: as many as Frames of a Video gave, or 1.5, 2, 3 or "
                    "more times as many from a frame interpolator.",
                ),
                Range.Input("range", tooltip="From Frames of a Video: which range this is."),
                io.String.Input(
                    "name",
                    default="video/upscaled",
                    tooltip="Folder and name under ComfyUI's output folder. One name is one video: the ranges of "
                    "another one are refused, and no older file is replaced.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(FILE_FORMATS),
                    default=FILE_FORMATS[0],
                    tooltip="\n".join(f"{name}: {find_format(name).about}" for name in FILE_FORMATS),
                ),
            ],
            outputs=[
                io.Video.Output(
                    tooltip="The whole video, without sound. Until the last range is there, nodes behind are left out."
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        return float("nan")  # what it made may have been deleted since: it always runs

    @classmethod
    def execute(cls, images, range, name, format=FILE_FORMATS[0]):
        tags = host_graph.tags_of(cls.hidden)
        range = came_back(range, images)
        video, missing = host_frames.write_pictures(images, range, name, find_format(format), tags)
        text = host_frames.progress_of(range, video, missing)
        host_log.tell(text)
        shown = ui.PreviewText(text).as_dict()
        if missing:
            return io.NodeOutput(blocked(None), ui=shown)
        player = kept_video.player([video])
        return io.NodeOutput(
            kept_video.video_socket(video.path, video.format), ui=shown | (player.as_dict() if player else {})
        )
