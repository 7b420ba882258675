"""A run that keeps what it makes: chunks come finished, each already on the disk.

B batch, C channels, T latent frames, F pixel frames; H W in pixels where frames are meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..plan.chunks import Chunk, Plan, replay, scene_at
from ..stream.noise import Noise
from ..stream.stream import Given, Stream
from ..vae.decode import StreamingDecoder, begin_scene, to_frames
from .store.journal import Journal
from .store.manifest import ChunkSeeds, kept_frames, whole_chunks

OpenStream = Callable[[Plan, Noise, Given | None, Given | None], Stream]
"""A new stream over fresh caches; the last two are `given` and `given_noisy` of `Stream`."""

CACHES, VAE = "stream.", "vae."


@dataclass(frozen=True)
class Finished:
    """A chunk that is in the journal."""

    chunk: Chunk
    latent: Tensor
    """[B, C, T, H, W] float32, the whole chunk, on whatever device it was made."""
    frames: Tensor | None
    """[B, F, H, W, 3] in [0, 1], cropped to the video; None where nobody asked for them."""
    new: bool
    """Made now; else it was in the journal."""


@dataclass(frozen=True)
class Snapshots:
    """When to keep the state of caches and VAE, so that resuming computes no clean passes again.

    It takes as much disk as they take memory, and one is kept.
    """

    every: int = 0
    """Chunks between two; 0: none."""
    on_cancel: bool = False
    cancel: tuple[type[BaseException], ...] = (KeyboardInterrupt, GeneratorExit)
    """How the user stops a run."""


class Session:
    """Goes on with the run of a journal from wherever it stands, to its end; for one pass over `run`."""

    def __init__(
        self,
        journal: Journal,
        open_stream: OpenStream,
        decoder: StreamingDecoder | None = None,
        *,
        given: Given | None = None,
        snapshots: Snapshots | None = None,
        device: torch.device | None = None,
    ) -> None:
        """`given` has the clean latents of chunks that the plan does not denoise, until the journal has them.

        `device` is where to decode, by default where the VAE is.
        """
        self.journal, self.open_stream, self.decoder = journal, open_stream, decoder
        self.snapshots = snapshots or Snapshots()
        self._given, self._decode_on = given, device
        self._stream: Stream | None = None
        self._decoded: int | None = 0
        """Chunks that went through the VAE; None while one does."""

    def run(self, first_decoded: int = 0) -> Iterator[Finished]:
        """Yield the chunks from `first_decoded` on, the finished ones first, then those that are made now.

        Chunks before it, whose frames the caller has already, are yielded only if they are made now, without frames.
        The caches are brought back by the newest snapshot, else by clean passes over the finished chunks; the VAE's
        memory by the snapshot or by decoding as far back as it reaches. Nothing is denoised again.
        """
        journal, plan = self.journal, whole_chunks(self.journal.manifest.plan)
        done, last = journal.finished, len(plan.chunks) - 1
        snapshot = journal.newest_snapshot() if done else None
        if snapshot and self.decoder and snapshot[1] == first_decoded:
            self._restore_decoder(snapshot[2], first_decoded)
        for chunk in plan.chunks[first_decoded:done]:
            latent = journal.read(chunk.index)
            yield Finished(chunk, latent, self._decode(chunk, latent, first_decoded), new=False)
        if done > last:
            return
        position = self._open_stream(replay(plan, done), snapshot)
        del snapshot
        chunks = zip(plan.chunks[position:], self._stream.chunks(position), strict=True)
        try:
            for chunk, latent in chunks:
                position = chunk.index
                if position < done:
                    continue
                journal.write(position, latent, self._stream.noisy)
                yield Finished(chunk, latent, self._decode(chunk, latent, first_decoded), new=True)
                if self.snapshots.every and (position + 1) % self.snapshots.every == 0 and position < last:
                    self._save_whole([position])
        except self.snapshots.cancel:
            if self.snapshots.on_cancel:
                self._save_whole([position + 1, position] if position else [1])
            raise

    def _open_stream(self, plan: Plan, snapshot: tuple[int, int, dict[str, Tensor]] | None) -> int:
        """Make the stream, and return the chunk it goes on with."""
        self._stream = self._new_stream(plan)
        if snapshot is None:
            return 0
        try:
            self._stream.restore(_part(snapshot[2], CACHES))
        except (KeyError, ValueError):  # of a shorter run, whose caches had another size
            self._stream = self._new_stream(plan)
            return 0
        return snapshot[0]

    def _new_stream(self, plan: Plan) -> Stream:
        return self.open_stream(plan, ChunkSeeds(self.journal.manifest), self._latent, self._noisy)

    def _latent(self, chunk: Chunk) -> Tensor:
        if chunk.index < self.journal.finished:
            return self.journal.read(chunk.index)
        if self._given is None:
            raise ValueError(f"chunk {chunk.index} is not denoised, and nobody gave its latent")
        return self._given(chunk)

    def _noisy(self, chunk: Chunk) -> Tensor:
        return self.journal.read_noisy(chunk.index)

    def _decode(self, chunk: Chunk, latent: Tensor, first: int) -> Tensor | None:
        if self.decoder is None or chunk.index < first:
            return None
        plan = self.journal.manifest.plan
        kept = latent[:, :, : kept_frames(plan, chunk)].to(self._device)
        if chunk.index and chunk.frames.start in plan.scenes:
            begin_scene(self.decoder, kept)
        elif self._decoded != chunk.index:
            self._warm_up(chunk)
        self._decoded = None
        pixels = self.decoder.decode(kept)
        self._decoded = chunk.index + 1
        return to_frames(pixels)

    def _warm_up(self, chunk: Chunk) -> None:
        """Give the VAE the frames of the scene before a chunk, as far back as its memory reaches."""
        start, scene = chunk.frames.start, scene_at(self.journal.manifest.plan.scenes, chunk.frames.start)
        seen = range(max(scene, start - self.decoder.memory_frames), start)
        latents = self.journal.frames(seen).to(self._device)
        if 0 < scene == seen.start:
            begin_scene(self.decoder, latents)
            self.decoder.decode(latents)
        else:
            self.decoder.warm_up(latents, start=seen.start)

    def _restore_decoder(self, tensors: dict[str, Tensor], decoded: int) -> None:
        latent = self.journal.read(0).to(self._device)
        self.decoder.restore(_part(tensors, VAE), latent)
        self._decoded = decoded

    @property
    def _device(self) -> torch.device:
        return self._decode_on or next(self.decoder.vae.parameters()).device

    def _save(self, position: int) -> None:
        """Write a snapshot from which the stream goes on with chunk `position`."""
        state = {CACHES + name: tensor for name, tensor in self._stream.snapshot().items()}
        if self._decoded:
            state |= {VAE + name: tensor for name, tensor in self.decoder.snapshot().items()}
        self.journal.write_snapshot(position, self._decoded or 0, state)

    def _save_whole(self, positions: Sequence[int]) -> None:
        """The same for the first of these chunks all of whose past the caches hold, if there is one.

        It need not be there: a stream is stopped anywhere, and a lean cache keeps a last step over what is past.
        """
        held = set(self._stream.snapshot()["window.frames"].tolist())
        held = held.intersection(*(cache.frames for cache in self._stream.caches.values()))
        for position in positions:
            chunks = self.journal.manifest.plan.chunks[position : position + 1]
            if any(held.issuperset(chunk.context) for chunk in chunks):
                self._save(position)
                return


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
