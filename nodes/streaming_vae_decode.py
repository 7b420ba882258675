"""Node: a LATENT becomes a video file, without the whole clip in memory."""

from . import host_decode
from .api import CATEGORY, InputImpl, blocked, io, ui

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
            search_aliases=["HiStream", "save video", "VAE decode", "long video"],
            is_output_node=True,
            inputs=[
                io.Latent.Input("samples", tooltip="From the Anchor-Window Sampler, or any Wan 2.1 video latent."),
                io.Vae.Input("vae", tooltip="The Wan 2.1 VAE (wan_2.1_vae.safetensors)."),
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
                io.Float.Input(
                    "image_limit_gib",
                    default=8.0,
                    min=0.1,
                    max=1024,
                    step=0.1,
                    optional=True,
                    advanced=True,
                    tooltip="Images that would take more memory (in GiB) than this are refused before decoding.",
                ),
                io.Boolean.Input(
                    "crop_1088",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="1080 is no multiple of 32, so 1088 rows are generated: cut 4 off at the top and bottom. "
                    "Other sizes are left alone.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    is_output_list=True, tooltip="The file on disk, one for each item of the batch; for Save Video."
                ),
                io.Image.Output(display_name="images", tooltip="All frames; only with images turned on."),
            ],
        )

    @classmethod
    def execute(cls, samples, vae, filename_prefix, fps=DEFAULT_FPS, images=False, image_limit_gib=8.0, crop_1088=True):
        latents = samples["samples"]
        host_decode.check_decode(vae, latents)
        size = host_decode.video_size(latents.shape, crop=crop_1088)
        pictures = host_decode.images_of(latents, size, image_limit_gib) if images else None
        videos = host_decode.decode_to_disk(vae, latents, filename_prefix, fps=fps, crop=crop_1088, images=pictures)
        saved = [ui.SavedResult(video.path.name, video.subfolder, io.FolderType.output) for video in videos]
        return io.NodeOutput(
            [InputImpl.VideoFromFile(str(video.path)) for video in videos],
            blocked("turn images on to get them") if pictures is None else pictures.flatten(0, 1),
            ui=ui.PreviewVideo(saved),
        )
