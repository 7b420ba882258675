"""Node: the picture that a video begins with, or those of a video that it goes on from."""

from ...histream_core.video.pictures import CROP, FITS
from ..host import first_frame as host_first_frame
from ..host.api import CATEGORY, FirstFrame, io
from ..host.decode import check_vae


class FirstFrameNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamFirstFrame",
            display_name="First Frame (I2V)",
            category=CATEGORY,
            description="Image to video: the video begins with this picture and goes on from it. Works with causal "
            "text-to-video weights, which take the picture as if they had made it; image-to-video weights are not "
            "needed and do not work here. Several pictures are a video that goes on. Connect it to the "
            "Anchor-Window Sampler.",
            search_aliases=["HiStream", "Wan image to video", "I2V", "start image"],
            inputs=[
                io.Vae.Input("vae", tooltip="The Wan 2.1 VAE. A TAEHV cannot encode a first frame."),
                io.Image.Input(
                    "image",
                    tooltip="One picture. With a LATENT connected it may have any size; without, it must be as "
                    "large as the video: 832x480, 1280x704, 1920x1088 (1920x1080 is taken too). Or the frames of a "
                    "video of any origin: the new one goes on from the last of them, as many as the window holds "
                    "(21 for most).",
                ),
                io.Int.Input(
                    "hold",
                    default=1,
                    min=1,
                    max=32,
                    optional=True,
                    advanced=True,
                    tooltip="Latent frames that the picture stands for. 1: the video moves at once. 3 (a whole chunk, "
                    "9 frames or 0.6 s): for weights made in chunks of 3 that are restless behind a single frame.",
                ),
                io.Combo.Input(
                    "fit",
                    options=list(FITS),
                    default=CROP,
                    optional=True,
                    advanced=True,
                    tooltip="What to do with a picture of another size than the LATENT.\n"
                    + "\n".join(f"{name}: {what}." for name, what in FITS.items()),
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="The LATENT that goes to the sampler: the picture is fitted to its size.",
                ),
            ],
            outputs=[FirstFrame.Output(display_name="first_frame", tooltip="For the Anchor-Window Sampler.")],
        )

    @classmethod
    def execute(cls, vae, image, hold=1, fit=CROP, latent=None):
        check_vae(vae)
        return io.NodeOutput(host_first_frame.encode(vae, image, hold, fit, latent))
