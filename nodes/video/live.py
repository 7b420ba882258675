"""Node: a camera or a clip in another look while it plays."""

from dataclasses import replace

from ...histream_core.live.budget import BUDGET
from ...histream_core.live.intake import EVEN, POLICIES
from ...histream_core.live.stage import PAGE, LiveSettings
from ...histream_core.plan.chunks import ENDLESS
from ...histream_core.plan.sizes import PIXELS_PER_CELL
from ...histream_core.runs.restyle import size_for
from ...histream_core.vae.encode import check_encoder
from .. import kept_video
from ..host import graph as host_graph
from ..host import live as host_live
from ..host import runs as host_runs
from ..host import summary as host_summary
from ..host import timeline as host_timeline
from ..host.ahead import ComingVideo, check_ahead
from ..host.api import CATEGORY, Schedule, blocked, io
from ..host.source import live_source
from ..sampling.anchor_window_sampler import FROM_PRESET, chunk_sampler, window_inputs
from ..settings import MAX_SEED
from .video_to_video import restyle_inputs, restyle_of, strength_input

FROM_SOURCE = 0
MAX_SIDE = 4096
POLICY_WORDS = "\n".join(f"{name}: {what}." for name, what in POLICIES.items())


class Live(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamLive",
            display_name="Live",
            category=CATEGORY,
            description="A camera, an address or a clip in another look, while it plays. While it runs it serves one "
            "page, for this computer alone: its address is under the node and in the log, and a click opens it. There "
            "you see the picture, write prompts, press cues and stop. The queue waits until then; Cancel stops it too.",
            search_aliases=["HiStream", "webcam", "camera", "stream", "real time", "realtime", "v2v", "performance"],
            is_output_node=True,
            hidden=kept_video.HIDDEN,
            inputs=[*_weight_inputs(), *_stream_inputs(), *_look_inputs(), *window_inputs(), *_time_inputs()],
            outputs=[
                io.Video.Output(
                    tooltip="The recording, a file in ComfyUI's output folder, for Save Video and other nodes."
                ),
                io.String.Output(
                    display_name="summary",
                    tooltip="Frames per second, delays, what was late or left out, and what was recorded: for Preview "
                    "as Text.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        """The fingerprint of a stream, never equal to itself, so that Run always plays."""
        return float("nan")

    @classmethod
    def execute(
        cls,
        model,
        positive,
        vae,
        source,
        seed,
        strength=0.8,
        fps=FROM_SOURCE,
        width=FROM_SOURCE,
        height=FROM_SOURCE,
        seconds=0.0,
        record=True,
        video=None,
        clip=None,
        schedule=None,
        motion=FROM_PRESET,
        told=FROM_PRESET,
        chunk_frames=FROM_PRESET,
        anchor_frames=FROM_PRESET,
        local_frames=FROM_PRESET,
        anchor_match=0.0,
        budget=BUDGET,
        policy=EVEN,
        speed=None,
    ):
        check_ahead(cls.hidden, {0: ComingVideo(None, fps)})
        size = _size_of(width, height)
        device = live_source(source, video, fps=fps or None, size=size, again=seconds > 0)
        sampler = chunk_sampler(model, schedule, (chunk_frames, anchor_frames, local_frames), anchor_match, speed)
        preset, _ = sampler.steps.resolve(sampler.settings)
        sampler = replace(sampler, steps=replace(sampler.steps, restyle=restyle_of(preset, strength, told, motion)))
        backend = host_runs.open_backend(model, vae, sampler.speed)
        check_encoder(vae.first_stage_model)
        columns, rows = (side // PIXELS_PER_CELL for side in size_for(*device.size))
        plan = sampler.plan((1, 16, ENDLESS, rows, columns))
        host_timeline.say_limits(sampler.settings, plan, positive)
        words = host_graph.words_of(cls.hidden, "positive")
        prompt, cues = host_live.prompt_and_cues(positive, backend.text_width, words)
        settings = LiveSettings(plan, device, prompt, seed, budget, policy, seconds or None, cues)
        files = host_live.LiveFiles(device, host_graph.tags_of(cls.hidden))
        speak = host_live.speak_of(clip, backend.text_width)
        played = host_live.Live(backend, settings, speak, files, record).play()
        summary = host_summary.summary_of_live(preset.name, settings, played, files)
        saved = files.saved[:1]
        video = (
            kept_video.video_socket(saved[0].path, saved[0].format)
            if saved
            else blocked(played.report["recording_error"] or _none(record))
        )
        return io.NodeOutput(video, summary, ui=kept_video.player(saved))


def _size_of(width: int, height: int) -> tuple[int, int] | None:
    """The size that was chosen; None for that of the source. Raises ValueError for one side alone."""
    if bool(width) != bool(height):
        raise ValueError("width and height go together: set both, or both to 0 for those of the source")
    return (width, height) if width else None


def _none(record: bool) -> str | None:
    """The sentence for a node that wants a recording that is not there; None where none was asked for."""
    return "the stream ended before its first picture, so there is no recording" if record else None


def _weight_inputs():
    return [
        io.Model.Input("model", tooltip="A causal Wan model, as for the Anchor-Window Sampler."),
        io.Conditioning.Input(
            "positive",
            tooltip="What it becomes: a prompt. The lines of a Prompt Timeline become the cue buttons of the page; "
            "their times do not count.",
        ),
        io.Vae.Input("vae", tooltip="The Wan 2.1 VAE: it encodes the source and decodes the result."),
    ]


def _stream_inputs():
    return [
        io.String.Input(
            "source",
            default=PAGE,
            tooltip="page: the camera of the browser that opens the page, or a file that is dropped on it. camera:0: a "
            "camera of this computer. An address, such as rtsp://HOST/NAME. Or the name of a file in ComfyUI's input "
            "folder. A connected video goes before it.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=MAX_SEED,
            control_after_generate=io.ControlAfterGenerate.fixed,
            tooltip="Another seed, another look.",
        ),
        strength_input(),
        io.Float.Input(
            "fps",
            default=FROM_SOURCE,
            min=FROM_SOURCE,
            max=60,
            step=0.001,
            tooltip="Frames per second. 0: those of the source, 16 for a page.",
        ),
        io.Int.Input(
            "width",
            default=FROM_SOURCE,
            min=FROM_SOURCE,
            max=MAX_SIDE,
            tooltip="The source is scaled and cropped to it. 0: that of the source, 512 for a page.",
        ),
        io.Int.Input(
            "height",
            default=FROM_SOURCE,
            min=FROM_SOURCE,
            max=MAX_SIDE,
            tooltip="As width. 0: that of the source, 512 for a page.",
        ),
        io.Float.Input(
            "seconds",
            default=0.0,
            min=0.0,
            max=360000,
            step=0.5,
            tooltip="It ends after so long; a file is repeated until then. 0: when it is stopped, or a file has ended.",
        ),
        io.Boolean.Input(
            "record",
            default=True,
            tooltip="Record from the beginning, into histream/live_00001_.mp4 in ComfyUI's output folder. Off: when "
            "Record is pressed on the page.",
        ),
    ]


def _look_inputs():
    return [
        io.Video.Input(
            "video",
            optional=True,
            tooltip="A whole file as the source, from Load Video or another node: it plays as a camera would.",
        ),
        io.Clip.Input(
            "clip",
            optional=True,
            tooltip="For prompts that are written on the page while it runs; they are encoded on the CPU, beside the "
            "stream. Without it: cues alone.",
        ),
        Schedule.Input("schedule", optional=True, tooltip="From Step Schedule. Without it: HiStream, 2 + 2 steps."),
        *restyle_inputs(),
    ]


def _time_inputs():
    return [
        io.Float.Input(
            "budget",
            default=BUDGET,
            min=0.05,
            max=60,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="Seconds from the last picture of a chunk until the chunk must be made. A later one is shown all "
            "the same, and counted as late.",
        ),
        io.Combo.Input(
            "policy",
            options=list(POLICIES),
            default=EVEN,
            optional=True,
            advanced=True,
            tooltip=f"Which pictures are used where computing takes longer than the source.\n{POLICY_WORDS}",
        ),
        kept_video.speed_input("exact"),
    ]
