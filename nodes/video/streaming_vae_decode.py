"""Node: a LATENT becomes a video file, without the whole clip in memory."""

from ...histream_core.cost.pace import DecodePace
from ...histream_core.plan.speed import DEFAULTS, Speed
from .. import kept_video
from ..host import ahead as host_ahead
from ..host import decode as host_decode
from ..host import graph as host_graph
from ..host import sizes as host_sizes
from ..host import summary as host_summary
from ..host import timeline as host_timeline
from ..host.api import CATEGORY, VideoOutput, blocked, io
from ..host.api import Speed as SpeedSocket
from ..settings import VideoChoice

DEFAULT_FPS = 16


class StreamingVAEDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamStreamingVAEDecode",
            display_name="Streaming VAE Decode",
            category=CATEGORY,
            description="Decodes a Wan video a few frames at a time and writes each to disk at once: memory does not "
            "grow with length, there are no seams, and a run that is stopped leaves a file that plays.",
            search_aliases=["HiStream", "save video", "Wan VAE decode", "long video"],
            is_output_node=True,
            hidden=kept_video.HIDDEN,
            inputs=[
                io.Latent.Input(
                    "samples", lazy=True, tooltip="From the Anchor-Window Sampler, or any Wan 2.1 video latent."
                ),
                io.Vae.Input(
                    "vae",
                    tooltip="The Wan 2.1 VAE (wan_2.1_vae.safetensors), or for less memory and time a lighter one of "
                    "its kind, or a TAEHV (taew2_1, lighttaew2_1).",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="video/HiStream",
                    tooltip="Folder and start of the file name, under ComfyUI's output folder. A batch gives one file "
                    "for each video.",
                ),
                io.Float.Input(
                    "fps",
                    default=DEFAULT_FPS,
                    min=1,
                    max=120,
                    step=1,
                    tooltip="Frames per second of the file. Wan makes 16; other values play slower or faster.",
                ),
                io.Boolean.Input(
                    "images",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Also put out all frames as IMAGE. Takes 23.7 MiB of memory for each frame of 1080p.",
                ),
                kept_video.image_limit_input(
                    "Images that would take more memory (in GiB) than this are refused before decoding."
                ),
                kept_video.crop_input(),
                VideoOutput.Input(
                    "output",
                    optional=True,
                    tooltip="From Video Output: its folder, format, fps and crop then hold instead of those here. For "
                    "a video that is written while it is sampled, connect it to the sampler instead.",
                ),
                SpeedSocket.Input(
                    "speed",
                    optional=True,
                    tooltip="From HiStream Speed: its vae_strips, where memory is short, and its vae_layout hold.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    is_output_list=True, tooltip="The file on disk, one for each item of the batch; for Save Video."
                ),
                io.Image.Output(display_name="images", tooltip="All frames; only with images turned on."),
                io.String.Output(
                    display_name="summary", tooltip="What was written, and what it took: for Preview as Text."
                ),
            ],
        )

    @classmethod
    def check_lazy_status(cls, vae=None, **_):
        """Check the VAE, which is often there before the LATENT is sampled, and then ask for the LATENT."""
        host_decode.check_vae(vae)
        return ["samples"]

    @classmethod
    def execute(
        cls,
        samples,
        vae,
        filename_prefix,
        fps=DEFAULT_FPS,
        images=False,
        image_limit_gib=8.0,
        crop_1088=True,
        output=None,
        speed: Speed | None = None,
    ):
        latents = samples["samples"]
        host_decode.check_decode(vae, latents)
        host_ahead.check_ahead(cls.hidden, {} if images else {1: host_ahead.NO_IMAGES})
        choice = output or VideoChoice(folder=filename_prefix, fps=fps, crop=crop_1088)
        size = host_sizes.video_size(host_sizes.size_in(samples), crop=choice.crop)
        pictures = host_decode.images_of(latents, size, image_limit_gib) if images else None
        tags, pace = host_graph.tags_of(cls.hidden), DecodePace(latents.shape[0], latents.shape[2])
        saved = host_decode.decode_to_disk(
            vae,
            latents,
            choice,
            size=size,
            tags=tags,
            pace=pace,
            images=pictures,
            speed=speed or DEFAULTS,
            scenes=host_timeline.scenes_of(samples),
        )
        summary = host_summary.summary_of_decode([video.path.name for video in saved], size, choice, pace)
        return io.NodeOutput(
            [kept_video.video_socket(video.path, video.format) for video in saved],
            blocked("turn images on to get them") if pictures is None else pictures.flatten(0, 1),
            summary,
            ui=kept_video.player(saved),
        )
