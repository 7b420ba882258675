"""Node: where and how a video is written while it is made."""

from ...histream_core.video.formats import FORMATS, NAMES, find_format
from .. import kept_video
from ..host.api import CATEGORY, VideoOutput, io
from ..host.sound import sound_of
from ..settings import AUTO, VideoChoice

DEPTHS = [AUTO, "8", "10", "16"]
ABOUT = "\n".join(f"{name}: {next(known.about for known in FORMATS if known.name == name)}" for name in NAMES)


class VideoOutputNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamVideoOutput",
            display_name="Video Output",
            category=CATEGORY,
            description="Connected to the Anchor-Window Sampler, it writes the video while it is made: every finished "
            "chunk is decoded and on the disk at once, memory does not grow with length, and a run that was stopped, "
            "crashed or cut off goes on where it was, with the same frames.",
            search_aliases=["HiStream", "save video", "ProRes", "EXR", "resume", "long video"],
            inputs=[
                io.String.Input(
                    "folder",
                    default="histream/run",
                    tooltip="Name of the run, under ComfyUI's output folder; each run gets a number: "
                    "histream/run_00001. It holds the video, its cut list, and what it takes to go on.",
                ),
                io.Combo.Input("format", options=list(NAMES), default="h264-mp4", tooltip=ABOUT),
                io.Combo.Input(
                    "bit_depth",
                    options=DEPTHS,
                    default=AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="Bits for each colour. auto: what the format usually has.",
                ),
                io.Float.Input(
                    "fps",
                    default=16,
                    min=1,
                    max=120,
                    step=0.001,
                    tooltip="Frames per second of the file. Wan makes 16; other values play slower or faster. 23.976 "
                    "is 24000/1001.",
                ),
                kept_video.crop_input(),
                io.Boolean.Input(
                    "section_files",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Also a file for every section (a stretch of one prompt and one seed), cut without "
                    "encoding again. Takes as much disk once more.",
                ),
                io.Boolean.Input(
                    "resume",
                    default=True,
                    optional=True,
                    tooltip="Go on with a run of this name that is the same in model, prompt, seed and settings, "
                    "instead of beginning it again; set the seed to fixed for that. Off: always a new run.",
                ),
                io.Boolean.Input(
                    "discard_on_cancel",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Remove the run when it is cancelled, also what earlier attempts made of it. Off: what is "
                    "finished stays, and Run with the same seed goes on.",
                ),
                kept_video.snapshots_input(
                    "Keep the caches on disk every so many chunks and on Cancel, to go on faster; as large as they are "
                    "in memory (10.5 GiB at 1080p). 0: never; going on then takes one pass for each finished chunk and "
                    "resolution.",
                ),
                io.Video.Input(
                    "sound",
                    optional=True,
                    tooltip="From Load Video: its sound is copied into the file as it is, from the first picture on "
                    "and as far as the pictures go. A trim is honoured. Not for folders of pictures.",
                ),
            ],
            outputs=[VideoOutput.Output(display_name="output", tooltip="For the Anchor-Window Sampler.")],
        )

    @classmethod
    def execute(
        cls,
        folder,
        format="h264-mp4",
        bit_depth=AUTO,
        fps=16,
        crop_1088=True,
        section_files=False,
        resume=True,
        discard_on_cancel=False,
        snapshots=0,
        sound=None,
    ):
        depth = None if bit_depth == AUTO else int(bit_depth)
        known = find_format(format, depth)
        choice = VideoChoice(
            folder=folder,
            format=format,
            depth=depth,
            fps=float(fps),
            crop=crop_1088,
            section_files=section_files,
            snapshots=snapshots,
            resume=resume,
            discard=discard_on_cancel,
            sound=None if sound is None else sound_of(sound, known),
        )
        return io.NodeOutput(choice)
