"""Node: a new run that shares its first chunks with another."""

from .. import kept_video
from ..host import graph as host_graph
from ..host import runs as host_runs
from ..host.api import CATEGORY, io
from ..host.run_folders import run_state
from ..settings import MAX_SEED

AS_IT_WAS = -1


class BranchRun(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamBranchRun",
            display_name="Branch or Retry Run",
            category=CATEGORY,
            description="A new run that is another one up to a chunk, and from there on has another seed (a retry), "
            "another prompt, another MODEL, or only another format. The first run stays as it is, and what both have "
            "in common is not made again.",
            search_aliases=["HiStream", "retry", "variation", "another seed", "convert"],
            is_output_node=True,
            hidden=kept_video.HIDDEN,
            inputs=[
                io.Model.Input("model", tooltip="The MODEL for the new chunks: the run's own, or another on purpose."),
                io.Vae.Input("vae", tooltip="The VAE that the run was made with."),
                kept_video.run_input("to branch from"),
                io.Int.Input(
                    "from_chunk",
                    default=AS_IT_WAS,
                    min=AS_IT_WAS,
                    max=100000,
                    tooltip="The first chunk that is made anew, counted from 0. With most weights a chunk is 12 frames "
                    "(0.75 s at 16 frames per second), the first one 9: second 10 is in chunk 13. -1: keep all that "
                    "is finished, for another format.",
                ),
                io.Int.Input(
                    "seed",
                    default=AS_IT_WAS,
                    min=AS_IT_WAS,
                    max=MAX_SEED,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Seed of the new chunks. -1: as it was.",
                ),
                io.Conditioning.Input(
                    "positive", optional=True, tooltip="The prompt of the new chunks. Without it: as before."
                ),
                kept_video.output_input(),
                kept_video.speed_input("as the run is"),
                kept_video.source_input(),
            ],
            outputs=kept_video.outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, run=None, **_):
        return run_state(run)

    @classmethod
    def execute(
        cls,
        model,
        vae,
        run,
        from_chunk=AS_IT_WAS,
        seed=AS_IT_WAS,
        positive=None,
        output=None,
        speed=None,
        source=None,
    ):
        inputs = host_runs.RunInputs(
            seed=None if seed == AS_IT_WAS else seed,
            positive=positive,
            words=host_graph.words_of(cls.hidden, "positive"),
            source=source,
            hidden=cls.hidden,
        )
        chunk = None if from_chunk == AS_IT_WAS else from_chunk
        opened = host_runs.branch_run(model, vae, run, output, inputs, chunk=chunk, speed=speed)
        return kept_video.finish_and_show(cls, opened, output)
