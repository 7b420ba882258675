"""Node: removes the files of a run."""

from ...histream_core.runs import clean
from ..host import log as host_log
from ..host import run_folders
from ..host.api import CATEGORY, io


class CleanRun(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamCleanRun",
            display_name="Clean Run",
            category=CATEGORY,
            description="Removes what a run keeps to go on, and leaves its video. It cannot be resumed, extended or "
            "branched after that. Nothing else in the folder is touched.",
            search_aliases=["HiStream", "delete", "free disk space"],
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "run",
                    default="",
                    tooltip="The run's folder with its number, such as histream/run_00003. There is no default: "
                    "nothing is removed by accident.",
                ),
                io.Boolean.Input("video", default=False, tooltip="Remove the video and its cut list too, for good."),
            ],
            outputs=[io.String.Output(display_name="text", tooltip="How much room is free again.")],
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        return float("nan")

    @classmethod
    def execute(cls, run, video=False):
        freed = clean(run_folders.exact_run(run), video=video)
        text = f"{run}: {freed / 1e6:.1f} MB are free again"
        host_log.tell(text)
        return io.NodeOutput(text)
