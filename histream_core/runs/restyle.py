"""The source of a restyled video: the frames of a file, encoded chunk by chunk for the steps that begin with them.

B batch, C channels, T latent frames, F pixel frames; H W in pixels here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..plan.chunks import Chunk, Plan
from ..plan.entry import Entry
from ..plan.schedule import Scale
from ..plan.sizes import PIXELS_PER_CELL, latent_frames, pixel_frames, whole_length
from ..stream.inputs import Source
from ..stream.motion import Motion
from ..vae.encode import StreamingEncoder, check_encoder, float_vae, to_pixels
from ..video.formats import Format
from ..video.pictures import extend_picture
from ..video.reading import VideoIndex, frames_of, index_video
from ..video.sound import check_sound, has_sound
from .backend import Backend
from .store.manifest import Manifest, whole_chunks

SOURCE_VIDEO = "source video"
"""Key in a fingerprint for the digest of the video that is restyled."""

MULTIPLE = 32
"""A side of a video in two resolutions is a multiple of so many pixels."""


def size_for(width: int, height: int) -> tuple[int, int]:
    """The size to generate for a source of any size: the next multiples; its edges are drawn out, and cropped again."""
    return -(-width // MULTIPLE) * MULTIPLE, -(-height // MULTIPLE) * MULTIPLE


def length_for(num_frames: int) -> tuple[int, int]:
    """The latent frames of a source of any number of frames, and the pixel frames to crop from their end."""
    whole = whole_length(num_frames)
    return latent_frames(whole), whole - num_frames


@dataclass(frozen=True)
class SourceVideo:
    """A video file that is restyled."""

    path: Path
    index: VideoIndex
    size: tuple[int, int]
    """Width and height of the upright picture."""

    @classmethod
    def at(cls, path: Path) -> SourceVideo:
        """Look at a file. Raises ValueError or OSError for one that is no video of an even rate in SDR."""
        height, width = next(frames_of(path, 0, 1)).shape[:2]
        return cls(path, index_video(path), (width, height))

    @property
    def fps(self) -> float:
        return float(self.index.rate)

    @property
    def generated_size(self) -> tuple[int, int]:
        """Width and height to generate."""
        return size_for(*self.size)

    @property
    def num_latent_frames(self) -> int:
        """Latent frames to generate."""
        return length_for(self.index.num_frames)[0]

    def frames(self) -> Iterator[Tensor]:
        """Yield the frames [H, W, 3] in [0, 1]. Raises ValueError where the file lists more than can be decoded."""
        found = 0
        for frame in frames_of(self.path):
            found += 1
            yield frame
        if found < self.index.num_frames:
            raise ValueError(
                f"{self.path} is damaged or incomplete: it lists {self.index.num_frames} frames, and {found} can be "
                "decoded; convert it, or choose another file"
            )

    def cropped(self, plan: Plan) -> Plan:
        """A plan of `generated_size` and `num_latent_frames`, cropped at its end to the frames of this video."""
        return replace(plan, cropped_frames=length_for(self.index.num_frames)[1])

    def notes(self, plan: Plan) -> list[str]:
        """A line that says where a plan goes on behind the end of this video, if it does."""
        count = self.index.num_frames
        if plan.num_pixel_frames <= count:
            return []
        return [f"{self.path} ends after {count} frames: the last one is held for the rest"]

    def sound(self, format: Format) -> tuple[Path | None, list[str]]:
        """The file whose sound a video of `format` takes over, and a note where there is one that it cannot hold."""
        if not has_sound(self.path):
            return None, []
        if format.is_sequence:
            return None, [f"{format.name} is a folder of pictures and holds no sound: that of {self.path} is left out"]
        try:
            check_sound(self.path, format)
        except ValueError as error:
            return None, [f"{error}; the sound is left out"]
        return self.path, []


def video_of_run(manifest: Manifest, path: Path | None, *, how: str = "give it as --source") -> SourceVideo | None:
    """The video at `path` that a run restyles; None for any other run. `how` says how the user names the video.

    Raises ValueError or OSError where it is not the same video.
    """
    if manifest.plan.restyle is None:
        return None
    if path is None:
        raise ValueError(f"the run restyles a video, and nobody says where it is: {how}")
    video = SourceVideo.at(path)
    if video.index.digest != manifest.fingerprint.get(SOURCE_VIDEO):
        raise ValueError(f"{path} is not the video that the run restyles: {how}")
    return video


def reopen(backend: Backend, manifest: Manifest, video: SourceVideo | None) -> Source | None:
    """The source of a run that restyles `video`, opened again; None without a video."""
    return video and backend.open_source(video.frames(), whole_chunks(manifest.plan))


class _Encoded(NamedTuple):
    """The first frames of a chunk that is not whole yet."""

    pixels: Tensor
    """[1, 3, F, H, W] in [-1, 1]."""
    latents: dict[Scale, Tensor]


class EncodedSource:
    """A `Source` over the frames of a video. The last frame is repeated where a chunk reaches past the end.

    Chunks that the stream does not ask for, because they are finished, are encoded too: VAE and motion remember them.
    So a run goes on as if it had never been stopped.
    """

    def __init__(self, frames: Iterator[Tensor], plan: Plan, vae: nn.Module, *, normalised: bool) -> None:
        """`frames` are [H, W, 3] in [0, 1]. Raises ValueError for a VAE that cannot encode."""
        if plan.restyle is None:
            raise ValueError("the plan restyles nothing: give PlanOptions a `restyle`")
        check_encoder(vae)
        vae = float_vae(vae)
        self.plan, self.restyle, self._frames = plan, plan.restyle, frames
        self._weight = next(vae.parameters())
        self._new_encoder = partial(StreamingEncoder, vae, normalised=normalised)
        self._encoders = {scale: self._new_encoder() for scale in plan.restyle.scales(plan.schedule)}
        self._motion = Motion(plan.restyle)
        self._ahead: list[_Encoded] = []
        self._next = 0
        self._last: Tensor | None = None
        self.entries: list[Entry] = []
        """How each chunk began, from the first on: the curve of the source's motion."""

    def __call__(self, chunk: Chunk) -> tuple[Entry, Tensor]:
        """The entry of a chunk, and its source's latent [1, C, T, H, W] on the grid of its first step."""
        if chunk.index < self._next:
            raise ValueError(f"chunk {chunk.index} of the source is past: open the source again")
        for index in range(self._next, chunk.index):
            self._encode(self.plan.chunks[index])
        entry, latents = self._encode(chunk)
        return entry, latents[chunk.steps[0].scale if chunk.steps else Scale.HIGH]

    def begin_again(self, frames: Iterator[Tensor]) -> None:
        """Go on with other frames from chunk 0 on, as a fresh source over them would."""
        self._frames, self._next, self._last, self._ahead = frames, 0, None, []
        self._motion = Motion(self.restyle)
        for encoder in self._encoders.values():
            encoder.reset()
        self.entries.clear()

    def encode_ahead(self, count: int) -> torch.device:
        """Encode the next `count` frames of the next chunk, whole latent frames, before its others are there.

        Returns the device that does it.
        """
        pixels = self._pixels(count)
        latents = {scale: encoder.encode(self._shrink(pixels, scale)) for scale, encoder in self._encoders.items()}
        self._ahead.append(_Encoded(pixels, latents))
        return pixels.device

    def change_plan(self, plan: Plan) -> None:
        """Go on with a plan of another strength. A resolution that no chunk began with so far is encoded from now on.

        The first latent frame of that one is of a single pixel frame, as where a video begins: the last of its four.
        """
        assert plan.restyle is not None
        self.plan, self.restyle = plan, plan.restyle
        self._motion.change(plan.restyle)
        scales = plan.restyle.scales(plan.schedule)
        self._encoders = {scale: self._encoders.get(scale) or self._new_encoder() for scale in scales}

    def _encode(self, chunk: Chunk) -> tuple[Entry, dict[Scale, Tensor]]:
        self._next = chunk.index + 1
        ahead, self._ahead = self._ahead, []
        there = [one.pixels for one in ahead]
        rest = self._pixels(len(_pixel_range(chunk)) - sum(one.shape[2] for one in there))
        pixels = torch.cat([*there, rest], dim=2)
        begins = pixels[:, :, -pixel_frames(len(chunk.frames)) :]
        latents = {}
        for scale, encoder in self._encoders.items():
            done = [one.latents[scale] for one in ahead if scale in one.latents]
            missing = rest if done else pixels if encoder.begun else begins
            latents[scale] = torch.cat([*done, encoder.encode(self._shrink(missing, scale))], dim=2)
        rule = self.restyle.motion
        seen = pixels if rule is None or rule.metric == "pixels" else next(iter(latents.values()))
        self.entries.append(self._motion.next(seen[0].transpose(0, 1)))
        return self.entries[-1], latents

    def _pixels(self, count: int) -> Tensor:
        """The next frames as pixels [1, 3, F, H, W] in [-1, 1]."""
        return to_pixels(torch.stack([self._frame() for _ in range(count)])).to(self._weight.device)

    def _frame(self) -> Tensor:
        """The next frame, with its edges drawn out to the plan's size."""
        frame = next(self._frames, None)
        if frame is not None:
            self._last = extend_picture(frame, self.plan.size)
        if self._last is None:
            raise ValueError("the source holds no frame: give a video with one at least")
        return self._last

    def _shrink(self, pixels: Tensor, scale: Scale) -> Tensor:
        """Pixels [1, 3, F, H, W] at the size of a scale, each the average of those that it covers."""
        size = tuple(side * PIXELS_PER_CELL for side in self.plan.grids[scale])
        if pixels.shape[-2:] == size:
            return pixels
        return torch.nn.functional.interpolate(pixels[0].transpose(0, 1), size, mode="area").transpose(0, 1)[None]


def _pixel_range(chunk: Chunk) -> range:
    return range(chunk.first_pixel_frame, pixel_frames(chunk.frames.stop))
