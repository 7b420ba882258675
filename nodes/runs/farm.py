"""Nodes: a list of shots made one after the other or by several GPUs, and their videos."""

import time

from ...histream_core import demo
from .. import kept_video
from ..host import farm as host_farm
from ..host import load as host_load
from ..host import log as host_log
from ..host.api import CATEGORY, io, ui
from ..settings import MAX_SEED, ShotChoice

DEMO, NONE = "demo", "none"
REFUSE, LEAVE_OUT = "refuse", "leave out"


class FarmSubmit(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamFarmSubmit",
            display_name="Farm Submit",
            category=CATEGORY,
            description="Makes a list of videos, such as a night of shots: one after the other, or one on each GPU. "
            "What is finished is never made again: after Cancel or a crash press Run, and it goes on.",
            search_aliases=["HiStream", "farm", "batch", "queue", "night", "shots", "list of prompts", "Ray", "render"],
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "shots",
                    multiline=True,
                    default="",
                    tooltip="A prompt in each line. A line of JSON is a shot with a name and options of its own; the "
                    "help page has examples. Or the name of a list (.jsonl, .txt) or of a folder in ComfyUI's input "
                    "folder.",
                ),
                io.Combo.Input(
                    "model",
                    options=[DEMO, *host_load.model_names()],
                    default=DEMO,
                    tooltip="A file in models/diffusion_models, or the demo model, which needs no other file.",
                ),
                *_video_inputs(),
                *_farm_inputs(),
                *_other_weights(),
            ],
            outputs=[
                io.String.Output(display_name="farm", tooltip="The folder of the shots, for Farm Collect."),
                io.String.Output(
                    display_name="summary",
                    tooltip="A line for each shot: finished, or failed and why. For Preview as Text.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        return time.time()  # whether all is finished is seen in the files alone

    @classmethod
    def execute(cls, shots, model, width, height, frames, fps, seed, workers, name, vae=NONE, text_encoder=NONE):
        choice = ShotChoice(
            model=DEMO if model == DEMO else host_load.model_path(model),
            vae=None if vae == NONE else host_load.model_path(vae, "vae"),
            text_encoder=None if text_encoder == NONE else host_load.model_path(text_encoder, "text_encoders"),
            frames=frames,
            size=(width, height),
            fps=fps,
            seed=seed,
        )
        farm, table = host_farm.make_shots(host_farm.shots_of(shots, choice), name, workers)
        return io.NodeOutput(farm, table, ui=ui.PreviewText(table))


def _video_inputs():
    """Options of all videos of the list, which fit the demo model."""
    return [
        io.Int.Input(
            "width",
            default=demo.WIDTH,
            min=16,
            max=8192,
            step=16,
            tooltip="Width of the videos in pixels: 256 for the demo model, for example 832 for Wan.",
        ),
        io.Int.Input(
            "height",
            default=demo.HEIGHT,
            min=16,
            max=8192,
            step=16,
            tooltip="Height of the videos in pixels: 256 for the demo model, for example 480 for Wan.",
        ),
        io.Int.Input("frames", default=33, min=1, max=1000000, step=4, tooltip="Length of each video: 4n + 1 frames."),
        io.Float.Input("fps", default=16.0, min=1.0, max=240.0, step=0.01, tooltip="Frames per second of the videos."),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=MAX_SEED,
            control_after_generate=False,  # another seed would be another list, and nothing would go on
            tooltip="Seed of the first shot. The next have the numbers after it, where a line names none.",
        ),
    ]


def _farm_inputs():
    return [
        io.Int.Input(
            "workers",
            default=0,
            min=0,
            max=64,
            tooltip='Shots at a time. 0: one for each GPU. More than 1 needs Ray (pip install "ray>=2.48,<3").',
        ),
        io.String.Input(
            "name",
            default="histream/night",
            tooltip="The folder of the shots, under ComfyUI's output folder. With the same name Run makes only what is "
            "not finished; with a new name it makes all shots anew.",
        ),
    ]


def _other_weights():
    return [
        io.Combo.Input(
            "vae",
            options=[NONE, *host_load.model_names("vae")],
            default=NONE,
            optional=True,
            tooltip="The Wan 2.1 VAE, in models/vae. The demo model needs none.",
        ),
        io.Combo.Input(
            "text_encoder",
            options=[NONE, *host_load.model_names("text_encoders")],
            default=NONE,
            optional=True,
            tooltip="The umt5_xxl file, in models/text_encoders. The demo model needs none.",
        ),
    ]


class FarmCollect(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamFarmCollect",
            display_name="Farm Collect",
            category=CATEGORY,
            description="Gives the videos that Farm Submit has made, after every file was checked, and says which are "
            "missing.",
            search_aliases=["HiStream", "farm", "batch", "night", "shots", "videos", "list"],
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "farm",
                    default="histream/night",
                    tooltip="The folder of the shots under ComfyUI's output folder: connect Farm Submit, or write it.",
                ),
                io.Combo.Input(
                    "missing",
                    options=[REFUSE, LEAVE_OUT],
                    default=REFUSE,
                    tooltip="Where a shot is not finished. refuse: stop and say which. leave out: the others alone.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    is_output_list=True, tooltip="The videos in the order of the list; the next node gets each in turn."
                ),
                io.String.Output(
                    display_name="names",
                    is_output_list=True,
                    tooltip="The names of their shots, in the same order, such as for the file names of Save Video.",
                ),
                io.String.Output(
                    display_name="summary",
                    tooltip="The files, and which shots are missing and why: for Preview as Text.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        return time.time()  # videos come while the graph stays the same

    @classmethod
    def execute(cls, farm, missing=REFUSE):
        found = host_farm.videos_of(farm, leave_out=missing == LEAVE_OUT)
        host_log.tell(found.summary.splitlines()[-1])
        videos = [kept_video.video_socket(video.path, video.format) for video in found.videos]
        return io.NodeOutput(videos, found.names, found.summary, ui=kept_video.player(found.videos))
