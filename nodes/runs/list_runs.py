"""Node: lists runs."""

from ..host import log as host_log
from ..host import run_folders
from ..host.api import CATEGORY, io

MORE_RUNS = ("run_2", "run_3", "run_4", "run_5")


class ListRuns(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamListRuns",
            display_name="List Runs",
            category=CATEGORY,
            description="Lists the runs in a folder: how far each is, how long, how large, and its prompts.",
            search_aliases=["HiStream", "history", "resume"],
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "folder", default="histream", tooltip="A folder under ComfyUI's output folder, with runs in it."
                ),
                io.String.Input(
                    "run",
                    optional=True,
                    force_input=True,
                    tooltip="Connect the run of another node to make the list after it.",
                ),
                *(
                    io.String.Input(
                        name, optional=True, force_input=True, tooltip="As run: the list is made after this node too."
                    )
                    for name in MORE_RUNS
                ),
            ],
            outputs=[io.String.Output(display_name="text", tooltip="A line for each run, for Preview as Text.")],
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        return float("nan")  # runs come and go while the graph stays the same

    @classmethod
    def execute(cls, folder, **_):
        text = run_folders.list_text(folder)
        runs = text.splitlines()
        host_log.tell(runs[0] if len(runs) < 2 else f"{len(runs)} runs, the last: {runs[-1]}")
        return io.NodeOutput(text)
