"""Node: removes the files of a run."""

from .. import kept_video
from ..host import cleaning as host_cleaning
from ..host import log as host_log
from ..host.api import CATEGORY, io, ui


class CleanRun(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamCleanRun",
            display_name="Clean Run",
            category=CATEGORY,
            description="Removes what a run keeps to go on, and leaves its video. It cannot be resumed, extended or "
            "branched after that. Nothing else in the folder is touched. It first shows what would be removed, and a "
            "code to confirm it with.",
            search_aliases=["HiStream", "delete", "free disk space"],
            is_output_node=True,
            hidden=kept_video.HIDDEN,
            inputs=[
                io.String.Input(
                    "run",
                    default="",
                    tooltip="The run's folder with its number, such as histream/run_00003. There is no default: "
                    "nothing is removed by accident.",
                ),
                io.Boolean.Input("video", default=False, tooltip="Remove the video and its cut list too, for good."),
                io.String.Input(
                    "confirm",
                    default="",
                    optional=True,
                    socketless=True,
                    tooltip="Leave it empty and press Run: the node shows what would be removed, and a code. Write "
                    "the code here and press Run again to remove it. The code is for this run and this choice, until "
                    "ComfyUI is closed, so no workflow can bring it along.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="text", tooltip="How much room is free again, or what would be removed.")
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        return float("nan")

    @classmethod
    def execute(cls, run, video=False, confirm=""):
        host_cleaning.check_written(cls.hidden, "confirm")
        done = host_cleaning.clean_run(run, video=video, confirm=confirm)
        host_log.tell(done.shown)
        return io.NodeOutput(done.text, ui=ui.PreviewText(done.shown))
