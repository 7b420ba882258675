"""Node: a video in another look (StreamDiffusionV2, arXiv 2511.07399)."""

from dataclasses import replace

from ...histream_core.plan.entry import Restyle
from ...histream_core.plan.presets import Preset
from ...histream_core.video.formats import find_format
from .. import kept_video
from ..host import graph as host_graph
from ..host import runs as host_runs
from ..host.api import CATEGORY, Schedule, VideoOutput, io
from ..host.source import sound_of_source, source_video
from ..sampling.anchor_window_sampler import FROM_PRESET, chunk_sampler, window_inputs
from ..settings import MAX_SEED, VideoChoice

FOLDER = "histream/restyled"


def strength_input():
    return io.Float.Input(
        "strength",
        default=0.8,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip="The share of noise that it begins with. 0.5: most of the picture stays. 0.9: little more than the "
        "layout. 1: nothing. 0: the source, through the VAE.",
    )


def restyle_inputs():
    """How noise depends on the source's motion, and what the model is told of it."""
    return [
        io.Float.Input(
            "motion",
            default=FROM_PRESET,
            min=FROM_PRESET,
            max=1.0,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip="Less noise where the source moves, by so much at most, against tearing. 0: the same everywhere. "
            "-1: from the preset (0.1 for StreamDiffusionV2's weights, else 0).",
        ),
        io.Float.Input(
            "told",
            default=FROM_PRESET,
            min=FROM_PRESET,
            max=1.0,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip="Tells the model so much less noise than there is. 0: as much as there is. -1: from the preset "
            "(0.1 for StreamDiffusionV2's weights, else 0).",
        ),
    ]


def restyle_of(preset: Preset, strength: float, told: float, motion: float) -> Restyle:
    """How chunks begin with a source, by the values of the inputs."""
    offset, span = (None if value < 0 else value for value in (told, motion))
    return preset.restyled(strength, offset, span)


class VideoToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamVideoToVideo",
            display_name="Video to Video",
            category=CATEGORY,
            description="Restyles a video: every chunk begins from the source mixed with noise, so layout and motion "
            "stay and the prompt decides the look. Every frame, the rate, the size and the sound are the source's. "
            "Any length; the video is written while it is made, and a run that was stopped goes on where it was.",
            search_aliases=[
                "HiStream",
                "Wan video to video",
                "v2v",
                "restyle",
                "StreamDiffusionV2",
                "vid2vid",
                "style transfer",
            ],
            is_output_node=True,
            hidden=kept_video.HIDDEN,
            inputs=[
                io.Model.Input("model", tooltip="A causal Wan model, as for the Anchor-Window Sampler."),
                io.Conditioning.Input("positive", tooltip="What it becomes: a prompt, or a Prompt Timeline."),
                io.Vae.Input("vae", tooltip="The Wan 2.1 VAE: it encodes the source and decodes the result."),
                io.Video.Input("video", tooltip="The video to restyle, from Load Video: a whole file, in SDR."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Another seed, another look.",
                ),
                strength_input(),
                Schedule.Input(
                    "schedule", optional=True, tooltip="From Step Schedule. Without it: HiStream, 2 + 2 steps."
                ),
                *restyle_inputs(),
                *window_inputs(),
                VideoOutput.Input(
                    "output",
                    optional=True,
                    tooltip="From Video Output, for another folder or format; its rate and crop are the source's. "
                    f"Without it: H.264 in {FOLDER}.",
                ),
                io.Boolean.Input(
                    "sound",
                    default=True,
                    optional=True,
                    tooltip="Copy the sound of the source as it is. That of a Video Output goes before it.",
                ),
                kept_video.speed_input("exact"),
            ],
            outputs=kept_video.outputs(),
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        vae,
        video,
        seed,
        strength=0.8,
        schedule=None,
        motion=FROM_PRESET,
        told=FROM_PRESET,
        chunk_frames=FROM_PRESET,
        anchor_frames=FROM_PRESET,
        local_frames=FROM_PRESET,
        anchor_match=0.0,
        output=None,
        sound=True,
        speed=None,
    ):
        source = source_video(video)
        choice = output or VideoChoice(folder=FOLDER)
        if sound and choice.sound is None:
            choice = replace(choice, sound=sound_of_source(source, find_format(choice.format, choice.depth)))
        sampler = chunk_sampler(model, schedule, (chunk_frames, anchor_frames, local_frames), anchor_match, speed)
        preset, _ = sampler.steps.resolve(sampler.settings)
        steps = replace(sampler.steps, restyle=restyle_of(preset, strength, told, motion))
        sampler = replace(sampler, steps=steps)
        words = host_graph.words_of(cls.hidden, "positive")
        inputs = host_runs.RunInputs(seed, positive, words, hidden=cls.hidden)
        backend = host_runs.open_backend(model, vae, sampler.speed)
        run = host_runs.begin_restyled(backend, source, sampler, choice, inputs)
        return kept_video.finish_and_show(cls, run, choice)
