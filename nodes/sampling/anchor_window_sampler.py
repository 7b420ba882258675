"""Nodes: the sampler. One for artists, and its twin for graphs of custom samplers."""

from collections.abc import Sequence

from ...histream_core.plan.make import window_of
from ...histream_core.plan.speed import DEFAULTS, Speed
from .. import kept_video
from ..host import ahead as host_ahead
from ..host import graph as host_graph
from ..host import runs as host_runs
from ..host import sampler as host
from ..host import summary as host_summary
from ..host.api import CATEGORY, FirstFrame, Schedule, VideoOutput, blocked, io
from ..host.backend import sample_latent
from ..settings import MAX_SEED, StepChoice, WindowChoice, generated_size

FROM_PRESET = -1


def window_inputs():
    """The three numbers of the Anchor-Guided Sliding Window, and how far chunks are matched to the first one."""
    return [
        io.Int.Input(
            "chunk_frames",
            default=FROM_PRESET,
            min=FROM_PRESET,
            max=32,
            optional=True,
            advanced=True,
            tooltip="Latent frames made together (one is 4 video frames). Must be what the weights were trained "
            "with: 3 for most, 1 for framewise ones. -1: from the preset.",
        ),
        io.Int.Input(
            "anchor_frames",
            default=FROM_PRESET,
            min=FROM_PRESET,
            max=32,
            optional=True,
            advanced=True,
            tooltip="First latent frames, always remembered; they hold look and subject together. 0: drifts. "
            "-1: from the preset (1 for most).",
        ),
        io.Int.Input(
            "local_frames",
            default=FROM_PRESET,
            min=FROM_PRESET,
            max=1024,
            optional=True,
            advanced=True,
            tooltip="Latent frames just before a chunk that it remembers. More: steadier motion, more memory and "
            "time. -1: from the preset (2 for most).",
        ),
        io.Float.Input(
            "anchor_match",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="Pulls colour and contrast of every chunk to those of its prompt's first one, against slow drift "
            "in long videos. 0: not at all. 1: all the way, which helped most where the demo model drifts; what should "
            "change, such as the light, is held back too.",
        ),
    ]


def first_frame_input():
    return FirstFrame.Input(
        "first_frame",
        optional=True,
        tooltip="From First Frame (I2V): the video begins with that picture, or goes on from those pictures. They must "
        "be as large as the LATENT. Without it: from noise.",
    )


def chunk_sampler(
    model,
    schedule: StepChoice | None,
    window: Sequence[int],
    anchor_match: float,
    speed: Speed | None,
    first_frame=None,
) -> host.ChunkSampler:
    """The sampler of both nodes; `window` has the values of `window_inputs`, FROM_PRESET for the preset's."""
    chunk, anchor, local = (None if frames == FROM_PRESET else frames for frames in window)
    choice = WindowChoice(chunk, anchor, local, anchor_match)
    settings, steps = host.model_settings(model), schedule or StepChoice()
    if first_frame is not None:
        preset, _ = steps.resolve(settings)
        size = generated_size(settings, steps, first_frame.size)
        first_frame = first_frame.within(window_of(preset, steps.mode, choice.window(preset)), size)
    return host.ChunkSampler(settings, steps, choice, speed=speed or DEFAULTS, first_frame=first_frame)


class AnchorWindowSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamAnchorWindowSampler",
            display_name="Anchor-Window Sampler",
            category=CATEGORY,
            description="Makes a video of any length, chunk by chunk, with a causal Wan model. Each chunk sees the "
            "first frame and its neighbours, so memory does not grow with length. Every finished chunk shows as a "
            "preview.",
            search_aliases=[
                *("HiStream", "KSampler", "Wan sampler", "Wan text to video", "video sampler", "AGSW", "Self-Forcing"),
                *("long video", "1080p video"),
            ],
            is_output_node=True,
            hidden=kept_video.HIDDEN,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A causal few-step Wan 2.1 text-to-video model, from Load Model or Load Diffusion Model; "
                    "LoRA is fine.",
                ),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The prompt, or several from Prompt Timeline. A negative one: Dual-Resolution Cache.",
                ),
                io.Latent.Input(
                    "latent",
                    tooltip="An empty video latent; it sets size and length. Sides that are no multiples of 32 pixels "
                    "are made at the next one (736 for 720) and cropped when the video is decoded; the length is "
                    "4n + 1 frames. A batch makes several videos.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Same seed, same video; in a batch each video has its own noise.",
                ),
                Schedule.Input(
                    "schedule", optional=True, tooltip="From Step Schedule. Without it: HiStream, 2 + 2 steps."
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Shows every finished chunk in true colours while the next one is made. Without it: by a "
                    "TAEHV (taew2_1, lighttaew2_1) in models/vae_approx, else as a guess.",
                ),
                *window_inputs(),
                VideoOutput.Input(
                    "output",
                    optional=True,
                    tooltip="From Video Output: the video is written while it is made, and a run that was stopped "
                    "goes on where it was. Needs the VAE.",
                ),
                kept_video.speed_input("exact"),
                first_frame_input(),
            ],
            outputs=kept_video.outputs(),
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        latent,
        seed,
        schedule=None,
        vae=None,
        chunk_frames=FROM_PRESET,
        anchor_frames=FROM_PRESET,
        local_frames=FROM_PRESET,
        anchor_match=0.0,
        output=None,
        speed=None,
        first_frame=None,
    ):
        host_ahead.check_sampler(cls.hidden, latent, vae, kept=output is not None)
        window = chunk_frames, anchor_frames, local_frames
        sampler = chunk_sampler(model, schedule, window, anchor_match, speed, first_frame)
        if output is None:
            missing = blocked("connect a Video Output to the Anchor-Window Sampler to get its VIDEO and its run")
            made = sample_latent(model, positive, latent, sampler, seed, vae=vae)
            summary = host_summary.summary_of_latent(sampler, made, seed)
            return io.NodeOutput(made.latent, missing, missing, summary)
        if vae is None:
            raise ValueError("a Video Output is connected but no VAE: connect the VAE to the Anchor-Window Sampler too")
        words = host_graph.words_of(cls.hidden, "positive")
        inputs = host_runs.RunInputs(seed, positive, words, hidden=cls.hidden)
        backend = host_runs.open_backend(model, vae, sampler.speed)
        run = host_runs.begin_run(backend, latent, sampler, output, inputs)
        return kept_video.finish_and_show(cls, run, output)


class AnchorWindowSamplerSelect(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamAnchorWindowSamplerSelect",
            display_name="Anchor-Window Sampler (SAMPLER)",
            category=CATEGORY,
            description="The Anchor-Window Sampler as a SAMPLER for SamplerCustomAdvanced. Of NOISE only the seed is "
            "used, and SIGMAS must come from Step Schedule.",
            search_aliases=["HiStream", "Wan custom sampler", "KSamplerSelect", "long video"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model that the guider has too: its settings are read here. Pass it through "
                    "Dual-Resolution Cache, so that room is made for one chunk and not for the whole video.",
                ),
                Schedule.Input("schedule", optional=True, tooltip="From Step Schedule, as its SIGMAS."),
                *window_inputs(),
                kept_video.speed_input("exact"),
                first_frame_input(),
            ],
            outputs=[io.Sampler.Output(tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls,
        model,
        schedule=None,
        chunk_frames=FROM_PRESET,
        anchor_frames=FROM_PRESET,
        local_frames=FROM_PRESET,
        anchor_match=0.0,
        speed=None,
        first_frame=None,
    ):
        window = chunk_frames, anchor_frames, local_frames
        sampler = chunk_sampler(model, schedule, window, anchor_match, speed, first_frame)
        return io.NodeOutput(host.as_sampler(sampler))
