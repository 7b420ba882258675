"""Latents to videos on the host's disk, a few frames at a time.

B batch, C channels, T latent frames, H W latent grid, F pixel frames.
"""

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import comfy.ldm.wan.vae
import comfy.model_management
import comfy.taesd.taehv
import comfy.utils
import folder_paths
import latent_preview
import torch
from torch import Tensor

from ...histream_core.cost.pace import DecodePace
from ...histream_core.files.disk import NewName, nearest_existing, under_new_name
from ...histream_core.plan.sizes import PIXELS_PER_CELL, pixel_frames
from ...histream_core.plan.speed import DEFAULTS, Speed
from ...histream_core.runs.progress import timed_decode
from ...histream_core.vae.decode import begin_scene, stream_frames
from ...histream_core.vae.decoders import decoder_cache_bytes, strip_ranges, strip_size
from ...histream_core.vae.taehv import is_taehv
from ...histream_core.video.formats import Format, find_format
from ...histream_core.video.pictures import crop_picture
from ...histream_core.video.space import check_space
from ...histream_core.video.writers import open_writer
from ..settings import VideoChoice
from . import log as host_log
from . import vae as host_vae
from .checks import check_finite
from .display import told
from .images import empty_images
from .preview import as_preview
from .run_folders import new_file

STRIP_FRAMES = 3
"""Latent frames that a strip decodes while its memory is on the device."""


@dataclass(frozen=True)
class SavedVideo:
    """One video in the host's output folder."""

    path: Path
    """The file, or the folder of pictures."""
    subfolder: str
    format: Format


def check_vae(vae) -> None:
    """Refuse another VAE than that of Wan 2.1, and another TAEHV than one for it; raises ValueError."""
    module = vae.first_stage_model
    small = isinstance(module, comfy.taesd.taehv.TAEHV) and is_taehv(module)
    if not small and type(module) is not comfy.ldm.wan.vae.WanVAE:
        raise ValueError(
            f"the VAE is a {type(module).__name__}, not a Wan 2.1 VAE: load wan_2.1_vae.safetensors, or a TAEHV for it "
            "(taew2_1, lighttaew2_1)"
        )


def check_decode(vae, latents: Tensor) -> None:
    """Refuse what the Wan 2.1 VAE cannot decode; raises ValueError."""
    check_vae(vae)
    if latents.is_nested or latents.ndim != 5 or latents.shape[1] != 16 or 0 in latents.shape:
        raise ValueError(f"the LATENT has shape {list(latents.shape)}, not [batch, 16, frames, height, width]")
    check_finite(latents, "the LATENT")
    if not any(torch.count_nonzero(frame) for frame in latents.unbind(2)):
        raise ValueError("the LATENT is empty, as before a sampler: connect the one that the sampler puts out")


def decode_to_disk(
    vae,
    latents: Tensor,
    choice: VideoChoice,
    *,
    size: tuple[int, int],
    tags: Mapping[str, str],
    pace: DecodePace,
    images: Tensor | None = None,
    speed: Speed = DEFAULTS,
    scenes: Collection[int] = (),
) -> tuple[SavedVideo, ...]:
    """Decode every item of latents [B, C, T, H, W] (as they are between nodes) into a file of its own.

    The pictures are cropped to `size`. `tags` are stored in the files; `pace` counts the written frames. `images`
    [B, F, H, W, 3], if given, is filled with the pictures too. Only the VAE's choices of `speed` are used. `scenes` are
    the latent frames that begin scenes. Raises ValueError and OSError for inputs that cannot work, before anything is
    decoded.
    """
    check_decode(vae, latents)
    strip_ranges(max(latents.shape[-2:]), int(speed.vae_strips))
    format = find_format(choice.format, choice.depth)
    format.check_size(size)
    check_space(nearest_existing(_output_folder()), format, size, pixel_frames(latents.shape[2]) * latents.shape[0])
    progress = comfy.utils.ProgressBar(latents.shape[0] * latents.shape[2])
    videos = []
    for item in range(latents.shape[0]):
        folder, subfolder, names = output_names(choice.folder, size, format)
        sound = io.BytesIO(choice.sound) if choice.sound else None

        def open_new(path: Path, sound=sound):
            return path, open_writer(NewName(path), format, size=size, fps=choice.fps, metadata=tags, sound=sound)

        path, writer = under_new_name((folder / name for name in names), open_new)
        pictures = None if images is None else images[item]
        host_log.tell(pace.describe())
        frames = timed_decode(decode_latent(vae, latents[item : item + 1], speed, scenes), pace.times)
        with told(pace.where):
            _write_frames(frames, writer, pace, progress, pictures)
        videos.append(SavedVideo(path, subfolder, format))
    return tuple(videos)


def _write_frames(made: Iterator[Tensor], writer, pace: DecodePace, progress, images: Tensor | None) -> None:
    writer.keep_on = (comfy.model_management.InterruptProcessingException,)
    with writer:
        for frames in made:
            frames = crop_picture(frames, writer.size)
            if images is not None:
                images[writer.num_frames : writer.num_frames + len(frames)] = frames
            with pace.times.count("write"):
                writer.write(frames)
            pace.add(len(frames))
            picture = latent_preview.preview_to_image(frames[-1], do_scale=False)
            progress.update_absolute(pace.latents, preview=as_preview(picture))
            host_log.tell(pace.describe())


def images_of(latents: Tensor, size: tuple[int, int], limit_gib: float) -> Tensor:
    """Memory for the pictures of latents [B, C, T, H, W]. Raises ValueError above the limit, with the number."""
    return empty_images(images_shape(latents.shape, size), limit_gib, "turn images off and use the VIDEO")


def images_shape(shape: Sequence[int], size: tuple[int, int]) -> tuple[int, ...]:
    """The shape of all pictures of `size` of latents of `shape`."""
    return (shape[0], pixel_frames(shape[2]), size[1], size[0], 3)


def decode_latent(vae, latents: Tensor, speed: Speed = DEFAULTS, scenes: Collection[int] = ()) -> Iterator[Tensor]:
    """Yield frames [F, H, W, 3] in [0, 1] of latents [1, C, T, H, W], a few latent frames' at a time."""
    vae.prepare_decode(latents.shape, memory_required=decode_bytes(vae, latents.shape, speed))
    decoder = host_vae.open_host_decoder(vae, speed, normalised=False)
    together = 1 if speed.vae_strips == "1" else STRIP_FRAMES

    def frames() -> Iterator[Tensor]:
        for index, scene in enumerate(latents.tensor_split(sorted({*scenes} - {0}), dim=2)):
            if index:
                begin_scene(decoder, scene[:, :, :1].to(vae.device))
            for frame in scene.split(together, dim=2):
                comfy.model_management.throw_exception_if_processing_interrupted()
                yield frame.to(vae.device)

    return stream_frames(decoder, frames())


def decode_bytes(vae, shape: Sequence[int], speed: Speed = DEFAULTS) -> int:
    """Memory that decoding latents of `shape` takes, a latent frame at a time, besides the VAE's weights."""
    height, width = (cells * PIXELS_PER_CELL for cells in shape[-2:])
    strips = int(speed.vae_strips)
    grid = strip_size(height, width, strips=strips)
    working = vae.memory_used_decode((*shape[:2], 1, *(side // PIXELS_PER_CELL for side in grid)), vae.vae_dtype)
    return working + decoder_cache_bytes(vae.first_stage_model, height, width, dtype=vae.vae_dtype, strips=strips)


def output_names(prefix: str, size: tuple[int, int], format: Format) -> tuple[Path, str, Iterator[str]]:
    """The folder of new files (or of folders of pictures), its place in the host's output folder, and their names."""
    folder, name, counter, subfolder = new_file(prefix, size)
    suffix = "" if format.is_sequence else format.suffix
    return folder, subfolder, (f"{name}_{number:05}_{suffix}" for number in count(counter))


def _output_folder() -> Path:
    return Path(folder_paths.get_output_directory())
