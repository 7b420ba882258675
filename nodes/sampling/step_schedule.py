"""Node: the denoising steps of every chunk."""

from ...histream_core.plan.presets import MODES, PRESETS
from ..host import sampler as host
from ..host.api import CATEGORY, Schedule, io
from ..settings import AUTO, ModelSettings, StepChoice

CUSTOM = "custom"
EXAMPLE = "1000L 750L 500H 250H | 1000L 500H"


class StepSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamStepSchedule",
            display_name="Step Schedule",
            category=CATEGORY,
            description="Which denoising steps a chunk takes, and at which resolution. HiStream: 2 steps at half "
            "resolution, 2 at full. HiStream+: the same for the first chunk, later chunks 1 + 1: about "
            "two thirds of the operations.",
            search_aliases=["HiStream", "HiStream+", "sigmas", "timesteps"],
            inputs=[
                io.Combo.Input(
                    "mode",
                    options=[*MODES, CUSTOM],
                    default="histream",
                    tooltip="\n".join(f"{name}: {what}." for name, what in MODES.items())
                    + f"\n{CUSTOM}: the steps written below.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Connect it where SIGMAS are used, so that they are those of this model's preset.",
                ),
                io.Combo.Input(
                    "preset",
                    options=[AUTO, *PRESETS],
                    default=AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="Whose timesteps to take. auto: those of the model.",
                ),
                io.String.Input(
                    "steps",
                    default=EXAMPLE,
                    multiline=True,
                    optional=True,
                    advanced=True,
                    tooltip="Only in mode custom. Timesteps from 1000 (all noise) downwards, each with L (half "
                    "resolution) or H (full); a | ends the first chunk, what follows serves the next one, the last "
                    "list all later chunks. More steps: better and slower. The last step of a chunk must be H.",
                ),
                io.Float.Input(
                    "shift_low",
                    default=0.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    optional=True,
                    advanced=True,
                    tooltip="Time shift of the L steps: higher spends more effort on layout and motion. 1: none. "
                    "0: as the preset says (5 for most).",
                ),
                io.Float.Input(
                    "shift_high",
                    default=0.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    optional=True,
                    advanced=True,
                    tooltip="Time shift of the H steps. HiStream's value for 1080p is 7. 0: as the preset says.",
                ),
            ],
            outputs=[
                Schedule.Output(display_name="schedule", tooltip="For the Anchor-Window Sampler."),
                io.Sigmas.Output(tooltip="Of the first chunk, for SamplerCustomAdvanced."),
            ],
        )

    @classmethod
    def execute(
        cls,
        mode,
        model=None,
        preset=AUTO,
        steps="",
        shift_low=0.0,
        shift_high=0.0,
    ):
        if mode == CUSTOM and not steps.strip():
            raise ValueError(f"mode is {CUSTOM} and steps is empty: write some, such as {EXAMPLE}")
        choice = StepChoice(
            mode="histream" if mode == CUSTOM else mode,
            preset=None if preset == AUTO else preset,
            table=steps if mode == CUSTOM else "",
            shift_low=shift_low or None,
            shift_high=shift_high or None,
        )
        settings = host.model_settings(model) if model else ModelSettings()
        return io.NodeOutput(choice, host.first_chunk_sigmas(choice.resolve(settings)[1][0]))
