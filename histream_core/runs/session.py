"""A pass over a kept run: yields chunks that are finished and already on the disk.

B batch, C channels, T latent frames, F pixel frames; H W is the latent grid for latents and pixels for frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from ..network.cache.window import NoSnapshotError
from ..plan.chunks import Chunk, Plan, replay, scene_at
from ..plan.order import CHUNKS
from ..stream.inputs import NOTHING_GIVEN, Inputs
from ..stream.noise import Noise
from ..stream.stream import Stream
from ..vae.ahead import decode_ahead
from ..vae.decode import Later, ask_decoder, begin_scene, to_frames
from ..vae.decoders import Decoder
from .store.journal import Journal
from .store.manifest import ChunkSeeds, kept_frames, whole_chunks

OpenStream = Callable[[Plan, Noise, Inputs], Stream]
"""Function that makes a new stream over fresh caches."""

CACHES, VAE = "stream.", "vae."


@dataclass(frozen=True)
class Finished:
    """A chunk that is in the journal."""

    chunk: Chunk
    latent: Tensor
    """[B, C, T, H, W] float32, the whole chunk, on the device it was made on."""
    frames: Tensor | None
    """[B, F, H, W, 3] in [0, 1], cropped to the video; None if not requested."""
    new: bool
    """Whether the chunk was made now; False if it was in the journal."""


class Made(NamedTuple):
    """A chunk that is in the journal, before it is decoded."""

    chunk: Chunk
    latent: Tensor
    new: bool


@dataclass(frozen=True)
class Snapshots:
    """When to write the state of caches and VAE, so that resuming computes no clean passes again.

    A snapshot takes as much disk as the caches take memory; only the newest is kept.
    """

    every: int = 0
    """Number of chunks between two snapshots; 0: none."""
    on_cancel: bool = False
    cancel: tuple[type[BaseException], ...] = (KeyboardInterrupt, GeneratorExit)
    """Exceptions by which the user stops a run."""


@dataclass(frozen=True)
class Decoding:
    """How chunks are decoded."""

    device: torch.device | None = None
    """The device to decode on; None: that of the VAE."""
    ahead: bool = False
    """Whether a chunk is decoded while the next one is sampled; snapshots then lack the VAE's memory."""


BY_DEFAULT = Decoding()


class Session:
    """Continues the run of a journal from its current state to its end; iterate over `run` once."""

    def __init__(
        self,
        journal: Journal,
        open_stream: OpenStream,
        decoder: Decoder | None = None,
        *,
        inputs: Inputs = NOTHING_GIVEN,
        snapshots: Snapshots | None = None,
        decoding: Decoding = BY_DEFAULT,
    ) -> None:
        """`inputs` are asked for what the journal does not have yet."""
        self.journal, self.open_stream, self.decoder = journal, open_stream, decoder
        self.snapshots = snapshots or Snapshots()
        self._inputs, self._decode_on, self._decodes_ahead = inputs, decoding.device, decoding.ahead
        self._decoded: int | None = 0
        """Number of chunks that went through the VAE; None while one is being decoded."""
        self._under_way: tuple[Stream, int] | None = None
        """The stream, and its newest chunk."""

    def run(self, first_decoded: int = 0) -> Generator[Finished, None, None]:
        """Yield the chunks from `first_decoded` on: first the finished ones, then new ones.

        Chunks before `first_decoded`, whose frames the caller has already, are yielded only if they are new, and
        without frames. The caches are restored from the newest snapshot, else by clean passes over the finished chunks;
        the VAE's memory is restored from the snapshot, else by decoding the frames it remembers. Nothing is denoised
        again.
        """
        plan = whole_chunks(self.journal.manifest.plan)
        first_decoded = max(first_decoded, self.journal.manifest.kept.start)
        snapshot = self.journal.newest_snapshot() if self.journal.finished else None
        if snapshot and self.decoder and snapshot[1] == first_decoded:
            self._restore_decoder(self.decoder, snapshot[2], first_decoded)
        chunks = self._chunks(plan, snapshot, first_decoded)
        del snapshot
        try:
            if self._decodes_ahead and self.decoder:
                yield from self._ahead(chunks, self.decoder, first_decoded)
                return
            for chunk, latent, new in chunks:
                yield Finished(chunk, latent, self._decode(chunk, latent, first_decoded), new)
        except self.snapshots.cancel:
            if self.snapshots.on_cancel and self._under_way:
                stream, position = self._under_way
                self._save_whole(stream, [position + 1, position] if position else [1])
            raise

    def _ahead(self, chunks: Iterator[Made], decoder: Decoder, first: int) -> Iterator[Finished]:
        """Decode each chunk while the next one is made; the first one is there at once."""
        device = self._device(decoder)
        made: deque[Made] = deque()
        coming: deque[Chunk] = deque()

        def latents() -> Iterator[Tensor]:
            for found in chunks:
                made.append(found)
                coming.append(found.chunk)
                yield found.latent

        def ask(latent: Tensor) -> Later:
            frames = self._ask_decoder(coming.popleft(), latent, first)
            return frames or partial(latent.new_empty, 0)

        for frames in decode_ahead(latents(), ask, decoder, device):
            found = made.popleft()
            yield Finished(found.chunk, found.latent, frames if frames.numel() else None, found.new)

    def _chunks(
        self, plan: Plan, snapshot: tuple[int, int, dict[str, Tensor]] | None, first_decoded: int
    ) -> Iterator[Made]:
        """Yield each chunk, first the finished ones, then new ones, which are in the journal by then."""
        journal, done, last = self.journal, self.journal.finished, self.journal.manifest.kept.stop - 1
        for chunk in plan.chunks[first_decoded:done]:
            yield Made(chunk, journal.read(chunk.index), new=False)
        if done > last:
            return
        stream, position = self._open_stream(replay(plan, done), snapshot)
        del snapshot
        wanted = plan.chunks[position : last + 1]
        chunks = zip(wanted, islice(stream.chunks(position), len(wanted)), strict=True)
        self._under_way = stream, position
        for chunk, latent in chunks:
            position = chunk.index
            self._under_way = stream, position
            if position < done:
                continue
            journal.write(position, latent, stream.noisy, stream.sinks, stream.low)
            yield Made(chunk, latent, new=True)
            if self.snapshots.every and (position + 1) % self.snapshots.every == 0 and position < last:
                self._save_whole(stream, [position])

    def _open_stream(self, plan: Plan, snapshot: tuple[int, int, dict[str, Tensor]] | None) -> tuple[Stream, int]:
        """The stream, and the index of the chunk it continues with."""
        stream, begin = self._new_stream(plan), self.journal.manifest.kept.start
        if snapshot is None:
            return stream, begin
        try:
            stream.restore(_part(snapshot[2], CACHES))
            if not _held(stream).issuperset(stream.context(plan.chunks[snapshot[0]])):
                raise ValueError("the snapshot does not hold what its chunk sees")
        except (KeyError, ValueError):  # a snapshot of a shorter run, whose caches had another size
            return self._new_stream(plan), begin
        return stream, snapshot[0]

    def _new_stream(self, plan: Plan) -> Stream:
        source, review = self._inputs.source, self._inputs.review
        inputs = Inputs(self._latent, self._noisy, source, self.journal.read_sinks, self._low, review)
        return self.open_stream(plan, ChunkSeeds(self.journal.manifest), inputs)

    def _latent(self, chunk: Chunk) -> Tensor:
        if chunk.index < self.journal.finished:
            return self.journal.read(chunk.index)
        if not callable(self._inputs.given):
            raise ValueError(f"chunk {chunk.index} is not denoised, and nobody gave its latent")
        return self._inputs.given(chunk)

    def _noisy(self, chunk: Chunk) -> Tensor:
        return self.journal.read_noisy(chunk.index)

    def _low(self, chunk: Chunk) -> Tensor:
        return self.journal.read_low(chunk.index)

    def _decode(self, chunk: Chunk, latent: Tensor, first: int) -> Tensor | None:
        frames = self._ask_decoder(chunk, latent, first)
        return frames and frames()

    def _ask_decoder(self, chunk: Chunk, latent: Tensor, first: int) -> Later | None:
        """Ask for the frames of a chunk, which is behind the one before; None where nobody wants them."""
        if self.decoder is None or chunk.index < first:
            return None
        plan = self.journal.manifest.plan
        kept = latent[:, :, : kept_frames(plan, chunk)].to(self._device(self.decoder))
        if chunk.index and chunk.frames.start in plan.scenes:
            begin_scene(self.decoder, kept)
        elif self._decoded != chunk.index:
            self._warm_up(self.decoder, chunk)
        self._decoded = None
        pixels = ask_decoder(self.decoder, kept)

        def frames() -> Tensor:
            found = to_frames(pixels())
            self._decoded = chunk.index + 1
            return found[:, : plan.num_pixel_frames - chunk.first_pixel_frame]

        return frames

    def _warm_up(self, decoder: Decoder, chunk: Chunk) -> None:
        """Decode the frames of the scene before a chunk that the VAE would remember."""
        start, scene = chunk.frames.start, scene_at(self.journal.manifest.plan.scenes, chunk.frames.start)
        seen = range(max(scene, start - decoder.memory_frames), start)
        latents = self.journal.frames(seen).to(self._device(decoder))
        if 0 < scene == seen.start:
            begin_scene(decoder, latents)
            decoder.decode(latents)
        else:
            decoder.warm_up(latents, start=seen.start)

    def _restore_decoder(self, decoder: Decoder, tensors: dict[str, Tensor], decoded: int) -> None:
        latent, kept = self.journal.read(0).to(self._device(decoder)), _part(tensors, VAE)
        if not kept:
            return
        try:
            decoder.restore(kept, latent)
        except (KeyError, ValueError):  # a snapshot of another VAE: what it remembers is decoded again
            decoder.reset()
            return
        self._decoded = decoded

    def _device(self, decoder: Decoder) -> torch.device:
        return self._decode_on or next(decoder.vae.parameters()).device

    def _save(self, stream: Stream, position: int) -> None:
        """Write a snapshot from which the stream can continue with chunk `position`."""
        state = {CACHES + name: tensor for name, tensor in stream.snapshot().items()}
        decoded = 0 if self._decodes_ahead else self._decoded or 0
        if self.decoder and decoded:
            state |= {VAE + name: tensor for name, tensor in self.decoder.snapshot().items()}
        self.journal.write_snapshot(position, decoded, state)

    def _save_whole(self, stream: Stream, positions: Sequence[int]) -> None:
        """Write a snapshot at the first of `positions` whose context is fully cached; do nothing if there is none.

        There may be none: a stream stops anywhere, and in a lean cache a kept last step overwrites past frames. In a
        diagonal order there is always a chunk under way.
        """
        if stream.plan.order != CHUNKS:
            return
        try:
            held = _held(stream)
        except NoSnapshotError:  # several ranks: resuming then takes clean passes
            return
        for position in positions:
            chunks = self.journal.manifest.plan.chunks[position : position + 1]
            if any(held.issuperset(stream.context(chunk)) for chunk in chunks):
                self._save(stream, position)
                return


def _held(stream: Stream) -> set[int]:
    """The frames that all caches and the window of a stream hold."""
    held = set(stream.snapshot()["window.frames"].tolist())
    return held.intersection(*(cache.frames for cache in stream.caches.values()))


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
