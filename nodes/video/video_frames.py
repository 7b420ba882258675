"""Node: one range of a video as pictures, for nodes that take an IMAGE."""

from .. import kept_video
from ..host import frames as host_frames
from ..host import log as host_log
from ..host.ahead import ComingRange, check_ahead
from ..host.api import CATEGORY, Range, io


class VideoFrames(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamVideoFrames",
            display_name="Frames of a Video",
            category=CATEGORY,
            description="Reads one range of a video's frames, so that an upscaler or any other node can work through a "
            "long video in parts that fit into memory. Only that range is in memory. Each run takes the next range; "
            "Ranges to Video puts them together again. The sound stays in the video that it is in.",
            search_aliases=["HiStream", "upscale video", "load frames", "split video", "batch"],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            inputs=[
                io.Video.Input("video", tooltip="From Load Video or another node. A trim is honoured."),
                io.Int.Input(
                    "range_index",
                    default=0,
                    min=0,
                    max=1_000_000,
                    control_after_generate=io.ControlAfterGenerate.increment,
                    tooltip="Which range; the first is 0. On increment every run takes the next one, so set the number "
                    "of runs to the number of ranges. Past the last it is refused.",
                ),
                io.Int.Input(
                    "range_frames",
                    default=81,
                    min=1,
                    max=100_000,
                    tooltip="Frames of a range; rounded down to 4n + 1 (77, 81, 85, ...), which video VAEs and video "
                    "upscalers need. A frame of 1080p takes 23.7 MiB of memory, and 16 times that after a 4x upscaler.",
                ),
                io.Int.Input(
                    "overlap",
                    default=0,
                    min=0,
                    max=100_000,
                    tooltip="Frames that a range has in common with the one before, so that a video upscaler sees "
                    "motion across the seam. The second copies are dropped in Ranges to Video. For upscalers of single "
                    "pictures: 0; for frame interpolators: 1 or more.",
                ),
                kept_video.image_limit_input(
                    "A range that would take more memory (in GiB) than this is refused before it is read."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames of this range."),
                Range.Output(display_name="range", tooltip="Which range it is, for Ranges to Video."),
                io.Int.Output(display_name="first_frame", tooltip="Number of the first of them in the video, from 0."),
                io.Int.Output(display_name="num_ranges", tooltip="How many ranges the video has: so many runs."),
                io.Int.Output(
                    display_name="new_from",
                    tooltip="How many frames at the beginning the range before has too; the last range may have more.",
                ),
                io.Float.Output(display_name="fps", tooltip="Frames per second."),
            ],
        )

    @classmethod
    def execute(cls, video, range_index, range_frames=81, overlap=0, image_limit_gib=8.0):
        check_ahead(cls.hidden, {1: ComingRange()})
        images, part = host_frames.read_range(
            video, range_index, size=range_frames, overlap=overlap, limit_gib=image_limit_gib
        )
        host_log.tell(
            f"range {part.index + 1} of {part.num_ranges}: "
            f"frames {part.frames.start} to {part.frames.stop - 1} of {part.num_frames}"
        )
        return io.NodeOutput(images, part, part.frames.start, part.num_ranges, part.new_from, part.fps)
