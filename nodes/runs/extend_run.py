"""Node: a longer run that begins as another."""

from .. import kept_video
from ..host import graph as host_graph
from ..host import runs as host_runs
from ..host.api import CATEGORY, io
from ..host.run_folders import run_state


class ExtendRun(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamExtendRun",
            display_name="Extend Run",
            category=CATEGORY,
            description="Makes a run longer, with a new prompt from its end on if there is one. The longer run has a "
            "folder of its own and shares what is finished, so nothing is made twice and the first run stays as it "
            "is. Chain several for a story.",
            search_aliases=["HiStream", "longer", "long video", "continue", "next prompt"],
            is_output_node=True,
            hidden=kept_video.HIDDEN,
            inputs=[
                io.Model.Input("model", tooltip="The MODEL that the run was made with, LoRAs included."),
                io.Vae.Input("vae", tooltip="The VAE that it was made with."),
                kept_video.run_input("to make longer"),
                io.Float.Input(
                    "seconds",
                    default=5,
                    min=0.05,
                    max=36000,
                    step=0.05,
                    tooltip="How much longer, at the run's frames per second; rounded up to what the VAE can make. "
                    "A chunk is 0.75 s at 16 frames per second.",
                ),
                io.Conditioning.Input(
                    "positive", optional=True, tooltip="The prompt from there on. Without it: as before."
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
    def execute(cls, model, vae, run, seconds, positive=None, output=None, speed=None, source=None):
        words = host_graph.words_of(cls.hidden, "positive")
        inputs = host_runs.RunInputs(positive=positive, words=words, source=source, hidden=cls.hidden)
        opened = host_runs.extend_run(model, vae, run, output, inputs, seconds=seconds, speed=speed)
        return kept_video.finish_and_show(cls, opened, output)
