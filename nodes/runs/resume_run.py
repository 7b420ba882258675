"""Node: resumes a stopped run."""

from .. import kept_video
from ..host import runs as host_runs
from ..host.api import CATEGORY, io
from ..host.run_folders import run_state
from ..settings import VideoChoice


class ResumeRun(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamResumeRun",
            display_name="Resume Run",
            category=CATEGORY,
            description="Goes on with a run that was cancelled, crashed or cut off, exactly as if it had not been: "
            "nothing that is finished is made again, and the frames are the same. Prompt, size and steps are the "
            "run's own.",
            search_aliases=["HiStream", "continue", "crash", "recover"],
            is_output_node=True,
            hidden=kept_video.HIDDEN,
            inputs=[
                io.Model.Input("model", tooltip="The MODEL that the run was begun with, LoRAs included."),
                io.Vae.Input("vae", tooltip="The VAE that it was begun with."),
                kept_video.run_input("to go on with", default="histream/run"),
                kept_video.snapshots_input(
                    "Keep the caches on disk every so many chunks and on Cancel, as in Video Output. 0: never."
                ),
                kept_video.speed_input("as the run is"),
                kept_video.source_input(),
            ],
            outputs=kept_video.outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, run=None, **_):
        return run_state(run)

    @classmethod
    def execute(cls, model, vae, run, snapshots=0, speed=None, source=None):
        opened = host_runs.resume_run(model, vae, run, speed, source=source, hidden=cls.hidden)
        return kept_video.finish_and_show(cls, opened, VideoChoice(snapshots=snapshots))
