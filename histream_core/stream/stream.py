"""The chunk stream: turns a plan into finished latent chunks, one at a time.

B batch, C channels, T latent frames, H W latent grid.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..network.cache.rows import RowCache
from ..network.cache.window import KVCache
from ..network.forward import RowTexts, Text
from ..network.transfer import upload
from ..plan.adjust import check_change
from ..plan.chunks import Chunk, Plan
from ..plan.draft import check_draft
from ..plan.histories import EACH_STEP, Level, check_recache, level_name
from ..plan.order import CHUNKS, calls
from ..plan.schedule import Scale, Step, Steps, join_steps
from ..plan.sharing import ROWS_EACH, ring_rows
from ..plan.sizes import Grid
from .anchor_match import Statistics, match, statistics_of
from .inputs import NOTHING_GIVEN, Given, Inputs, Source, begin_from
from .noise import Noise
from .prompts import Prompt
from .resize import resize
from .sinks import next_sinks
from .upsampling import Upsample

Denoise = Callable[[Tensor, Step, KVCache, Text], Tensor]
"""Network call: returns the clean estimate of a noisy chunk [B, C, T, H, W], and stages its keys and values in the
cache."""

Later = Callable[[], Tensor]
"""Waits for a tensor that is computed elsewhere, and returns it."""

Ask = Callable[[Tensor, Step, KVCache, Text], Tensor | Later]
"""A network call that may return before the estimate is there."""


@dataclass
class UnderWay:
    """A chunk between two of its steps."""

    chunk: Chunk
    prompt: Prompt
    latent: Tensor
    """The latent that its next step begins with."""
    steps: Steps
    clean: Tensor | Later | None = None
    """The estimate of the step that was computed last."""

    def estimate(self) -> Tensor:
        """That estimate, once it is there."""
        if self.clean is None:
            raise ValueError(f"no step of chunk {self.chunk.index} was computed yet")
        return arrived(self.clean)


class Stream:
    """The state of one run: its caches, and the clean latents of the frames in the window.

    Iterate over `chunks()`. A finished chunk enters the caches only when the next one is about to read them, so that
    the caller can decode and show it first, and the last chunk is never cached.
    """

    def __init__(
        self,
        plan: Plan,
        denoise: Ask,
        caches: Mapping[Level, KVCache],
        noise: Noise,
        prompts: Sequence[Prompt],
        *,
        channels: int = 16,
        inputs: Inputs = NOTHING_GIVEN,
        upsample: Upsample | None = None,
        ring: int = 0,
    ):
        """`ring`: the ranks of a pipeline, for which rows of a diagonal order are asked for in its order, and early.
        `upsample` is used from LOW to HIGH instead of `resize`: a learned upsampler of latents.

        Raises ValueError where no prompt covers the first chunk, or an input that the plan needs is missing.
        """
        self.plan, self.denoise, self.caches, self.noise = plan, denoise, caches, noise
        self.prompts = _from_the_first(prompts)
        self._ring = ring
        self.upsample = upsample or (lambda clean, _: self._resize(clean, self.plan.grids[Scale.HIGH]))
        if any(prompt.recache for prompt in prompts):
            check_recache(plan)
        if plan.guidance.is_on and any(prompt.text.negative is None for prompt in prompts):
            raise ValueError(f"{plan.guidance} leads away from a negative prompt, and there is none: give one")
        cache = next(iter(caches.values()))
        self.device, self.shape = cache.device, (cache.batch, channels)
        if (plan.restyle is None) != (inputs.source is None):
            raise ValueError("a plan that restyles a source needs one, and no other plan takes one")
        self.given = inputs.given if callable(inputs.given) else self._slices(inputs.given)
        self.given_noisy, self.given_sinks, self.source = inputs.given_noisy, inputs.given_sinks, inputs.source
        self.review = inputs.review
        if self.review:
            check_draft(plan)
        if plan.sinks and cache.batch > 1:
            raise ValueError(f"sinks give way in one video at a time, and the batch has {cache.batch}: use 1")
        self.noisy: Tensor | None = None
        """The noisy latent that the last step of the last yielded chunk started from; None if it took no step."""
        self.low: Tensor | None = None
        """The LOW estimate of the chunk that had one last."""
        self.sinks: tuple[int, ...] | None = () if plan.sinks else None
        """The frames of the anchor that the next chunk sees, where they can give way; None where they stay."""
        self._window: dict[int, Tensor] = {}
        self._anchor: tuple[int, Statistics] | None = None
        self._finished: tuple[Chunk, Tensor] | None = None

    def chunks(self, first: int = 0) -> Iterator[Tensor]:
        """Yield the clean latent [B, C, T, H, W] of each chunk of the plan, given ones too, as soon as it is ready.

        The caches are filled from this tensor afterwards: do not write into it. The last one is cropped to the
        requested length. `first` skips chunks that `restore` has brought back.
        """
        if self.plan.order != CHUNKS and self.plan.chunks[0].steps:
            if first:
                raise ValueError(f"a stream in the order {self.plan.order} begins at chunk 0, not at {first}")
            yield from self._diagonal()
            return
        self._finished = None
        for index in range(first, self.plan.num_chunks):
            chunk = self.plan.chunks[index]
            self.remember()
            if self.sinks:
                chunk = replace(chunk, context=self.context(chunk))
            prompt = self._prompt(chunk)
            self._forget_others(prompt)
            if prompt.recache and prompt.first_chunk == chunk.index and chunk.context:
                self._recache(chunk, prompt.text)
            self._begin(chunk.frames, chunk.context)
            clean = self._generate(chunk, prompt.text) if chunk.steps else self._take(chunk, prompt.text)
            if self.plan.anchor_match:
                clean = self._match(chunk, prompt, clean)
            self._finished = chunk, clean
            yield clean[:, :, : self.plan.num_latent_frames - chunk.frames.start]

    def remember(self) -> None:
        """Write the chunk that was just yielded into the caches now, where there is time: the next one begins sooner.

        Changes nothing else, and does nothing where that was done. `snapshot` is for chunks that were not written yet.
        """
        finished, self._finished = self._finished, None
        if finished:
            self._remember(*finished)

    def change_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Let prompts take over from the chunk that the first of them begins at, in the place of those from there on.

        Call it when a chunk has just been yielded, or before the first, with prompts of later chunks. Those that are
        over are forgotten, so that a stream without an end may change its prompt for ever.
        """
        if any(prompt.recache for prompt in prompts):
            check_recache(self.plan)
        first = min(prompt.first_chunk for prompt in prompts)
        before = [prompt for prompt in self.prompts if prompt.first_chunk < first]
        whole = [index for index, prompt in enumerate(before) if prompt.share == 1]
        self.prompts = [*before[whole[-1] if whole else 0 :], *sorted(prompts, key=lambda prompt: prompt.first_chunk)]

    def begin_again(self, prompts: Sequence[Prompt]) -> None:
        """Forget all that was seen: what `chunks()` yields from now on is what a fresh stream of these prompts yields.

        Call it when a chunk has just been yielded; the iterator of before is of no more use. The caches are kept, and
        filled anew.
        """
        self.prompts = _from_the_first(prompts)
        self.sinks = () if self.plan.sinks else None
        self.noisy, self._anchor, self._finished = None, None, None
        self._window = {}

    def change_plan(self, plan: Plan) -> None:
        """Go on with a plan of another strength or of other steps, from the next chunk on.

        Call it when a chunk has just been yielded, or before the first. Raises ValueError for a plan that differs in
        anything else.
        """
        check_change(self.plan, plan)
        self.plan = plan

    def context(self, chunk: Chunk) -> tuple[int, ...]:
        """The frames that a chunk sees if it is the next one."""
        return self._context_at(chunk.frames.start) if chunk.context else ()

    def _context_at(self, start: int) -> tuple[int, ...]:
        return self.plan.context(start) if self.sinks is None else self.plan.window.seen(start, self.sinks)

    def snapshot(self) -> dict[str, Tensor]:
        """The tensors that `restore` needs to continue. Call it when a chunk has just been yielded; nothing is copied.

        That chunk n is not in the caches yet: restore, and continue with `chunks(n)`, where chunk n is given. Raises
        ValueError in a diagonal order, where the chunks behind it are under way.
        """
        if self.plan.order != CHUNKS:
            raise ValueError(f"a stream in the order {self.plan.order} has no snapshot: let it begin again")
        state = {
            f"{level_name(level)}.{name}": tensor
            for level, cache in self.caches.items()
            for name, tensor in cache.snapshot().items()
        }
        frames = sorted(self._window)
        empty = torch.zeros(*self.shape, 0, *self.plan.grids[Scale.HIGH])
        latents = torch.stack([self._window[frame] for frame in frames], dim=2) if frames else empty
        state |= {"window.frames": torch.tensor(frames, dtype=torch.long), "window.latents": latents}
        if self.sinks is not None:
            state["window.sinks"] = torch.tensor(self.sinks, dtype=torch.long)
        if self._anchor:
            first, anchor = self._anchor
            state |= {"anchor.chunk": torch.tensor(first), "anchor.mean": anchor.mean, "anchor.std": anchor.std}
        return state

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Take over the state in `snapshot`; raises KeyError or ValueError for a snapshot of another run."""
        for level, cache in self.caches.items():
            prefix = f"{level_name(level)}."
            cache.restore({key.removeprefix(prefix): x for key, x in snapshot.items() if key.startswith(prefix)})
        frames, latents = snapshot["window.frames"], snapshot["window.latents"]
        wanted = (*self.shape, len(frames) if frames.ndim == 1 else -1, *self.plan.grids[Scale.HIGH])
        if frames.dtype != torch.long or tuple(latents.shape) != wanted or not latents.is_floating_point():
            raise ValueError(f"the snapshot has latents {list(latents.shape)}, this run's are {list(wanted)}")
        self._window = dict(zip(frames.tolist(), latents.to(self.device).unbind(2), strict=True))
        if self.sinks is not None:
            sinks = snapshot["window.sinks"].flatten().tolist()
            if not self._window.keys() >= {*sinks}:
                raise ValueError(f"the snapshot's sinks {sinks} are not among its frames {frames.tolist()}")
            self.sinks = tuple(sinks)
        if self.plan.anchor_match:
            chunk, *parts = (snapshot[f"anchor.{name}"] for name in ("chunk", "mean", "std"))
            if chunk.numel() != 1 or any(part.shape != (*self.shape, 1, 1, 1) for part in parts):
                raise ValueError("the snapshot's statistics are not those of this run's latents")
            self._anchor = int(chunk), Statistics(*(part.to(self.device) for part in parts))

    def _generate(self, chunk: Chunk, text: Text) -> Tensor:
        """Few-step sampling: predict the clean chunk, then re-noise it to the sigma and the scale of the next step."""
        while (clean := self._sample(chunk, text)) is None:
            pass
        return clean

    def _sample(self, chunk: Chunk, text: Text) -> Tensor | None:
        """The clean chunk by the noise of now; None where the review of its LOW estimate asks for other noise."""
        latent, steps = self._start(chunk)
        after = (*steps[1:], None)
        for index, (step, following) in enumerate(zip(steps, after, strict=True), start=1):
            self.noisy = latent
            cache = self._cache(step, index - 1)
            if chunk.keeps_all or (chunk.kept and not following):
                cache.keep()
            clean = arrived(self.denoise(latent, step, cache, text))
            if following:
                if following.scale is not step.scale:
                    if not self._passes(chunk, clean):
                        return None
                    self.low, clean = clean, self.upsample(clean, chunk)
                noise = self._draw(chunk, index, following.scale)
                latent = (1 - following.sigma) * clean + following.sigma * noise
        return clean

    def _passes(self, chunk: Chunk, clean: Tensor) -> bool:
        """Whether a chunk goes on to HIGH; otherwise other noise is in force, and it is drawn again."""
        other = self.review(chunk, clean) if self.review else None
        self.noise = other or self.noise
        return other is None

    def _diagonal(self) -> Iterator[Tensor]:
        """Yield the chunks where the steps of successive chunks take turns; a chunk enters a cache with its step."""
        under_way: dict[int, UnderWay] = {}
        ending: deque[UnderWay] = deque()  # their last steps were asked for, and may still be computed
        most = max(1, ROWS_EACH * self._ring // len(self.plan.levels))
        for call in ((row,) for row in ring_rows(self.plan)) if self._ring else calls(self.plan):
            for row in call:
                if not row.step:
                    chunk = self.plan.chunks[row.chunk]
                    under_way[row.chunk] = UnderWay(chunk, self._prompt(chunk), *self._start(chunk))
            self._forget_others(*(found.prompt for found in under_way.values()))
            rows = [(under_way[row.chunk], row.step) for row in call]
            ends = [found for found, step in rows if step + 1 == len(found.steps)]
            if ends and len(ending) == most:
                yield self._finish(ending.popleft())
            for found, step in rows:
                if step:
                    found.latent = self._noisier(found, found.steps[step], step)
            self._call_rows(rows)
            for found in ends:
                del under_way[found.chunk.index]
                if isinstance(found.clean, Tensor):
                    yield self._finish(found)
                else:
                    ending.append(found)
        yield from map(self._finish, ending)

    def _noisier(self, found: UnderWay, step: Step, index: int) -> Tensor:
        """The latent that a step of a chunk begins with: the estimate of the step before, with noise."""
        noise = self._draw(found.chunk, index, step.scale)
        return (1 - step.sigma) * found.estimate() + step.sigma * noise

    def _finish(self, found: UnderWay) -> Tensor:
        """The latent of a chunk whose steps are all computed, cropped to the video."""
        clean = found.estimate()
        ready = self._match(found.chunk, found.prompt, clean) if self.plan.anchor_match else clean
        return ready[:, :, : self.plan.num_latent_frames - found.chunk.frames.start]

    def _call_rows(self, rows: list[tuple[UnderWay, int]]) -> None:
        """Ask for the estimates of some chunks at a step of each, in one call where caches and texts allow it."""
        caches = [self._cache(found.steps[step], step) for found, step in rows]
        for (found, _), cache in zip(rows, caches, strict=True):
            cache.begin(found.chunk.frames, found.chunk.context)
            if found.chunk.keeps_all:
                cache.keep()
        texts, first = [found.prompt.text for found, _ in rows], caches[0]
        steps = tuple(found.steps[step] for found, step in rows)
        if isinstance(first, RowCache) and len(rows) > 1 and len({text.context.shape for text in texts}) == 1:
            latents = torch.cat([found.latent for found, _ in rows])
            clean = self.denoise(latents, join_steps(steps), first.whole.join(caches), RowTexts(texts))
            cleans: Sequence[Tensor | Later] = clean.split(self.shape[0])
        else:
            parts = zip(rows, steps, caches, texts, strict=True)
            cleans = [self.denoise(found.latent, step, cache, text) for (found, _), step, cache, text in parts]
        for (found, _), cache, clean in zip(rows, caches, cleans, strict=True):
            found.clean = clean
            if found.chunk.keeps_all:
                cache.commit()

    def _cache(self, step: Step, index: int) -> KVCache:
        """The cache of a chunk's step of that index."""
        return self.caches[(step.scale, index) if self.plan.histories == EACH_STEP else step.scale]

    def _start(self, chunk: Chunk) -> tuple[Tensor, Steps]:
        """The latent that a chunk begins with, and its steps."""
        latent = self._draw(chunk, 0, chunk.steps[0].scale)
        return self._enter(chunk, latent, self.source) if self.source else (latent, chunk.steps)

    def _enter(self, chunk: Chunk, noise: Tensor, source: Source) -> tuple[Tensor, Steps]:
        """The latent that a chunk begins with, mixed from noise and source, and its steps from there."""
        entry, found = source(chunk)
        wanted = [*self.shape, len(chunk.frames), *noise.shape[-2:]]
        latent = begin_from(entry, noise, upload(self._check_latent(found, wanted), self.device))
        return latent, (replace(chunk.steps[0], sigma=entry.told), *chunk.steps[1:])

    def _take(self, chunk: Chunk, text: Text) -> Tensor:
        """Return the latent of a given chunk; compute the keys of a kept step again, as the clean latent has others."""
        replayed = chunk.index < self.plan.replayed_chunks or chunk.frames.stop <= self.plan.given_frames
        found = self.given(chunk) if replayed or self.source is None else self.source(chunk)[1]
        clean = upload(self._check_given(found, len(chunk.frames)), self.device)
        self.noisy = None
        if chunk.kept:
            if self.given_noisy is None:
                raise ValueError(
                    f"chunk {chunk.index} is given, but not what its last step began with, whose keys are kept: leave "
                    "out the levers last-step and clean-anchor"
                )
            self.noisy = upload(self._check_given(self.given_noisy(chunk), len(chunk.frames)), self.device)
            step = self._as_taken(chunk, chunk.kept)
            cache = self.caches[step.scale]
            cache.keep()
            self.denoise(self.noisy, step, cache, text)
        return clean

    def _as_taken(self, chunk: Chunk, kept: Step) -> Step:
        """The kept step as it was taken: one that its chunk began with was told the level that the source asked for."""
        if self.source and self.plan.restyle and kept.sigma == self.plan.restyle.entry().told:
            return replace(kept, sigma=self.source(chunk)[0].told)
        return kept

    def _match(self, chunk: Chunk, prompt: Prompt, clean: Tensor) -> Tensor:
        """Move a finished chunk to the statistics of its prompt's first chunk, by the plan's `anchor_match`.

        A blend keeps the statistics of the prompt before, with a weight that falls as the new prompt's share grows.
        """
        whole = [other.first_chunk for other in self.prompts if other.share == 1]
        first = max((start for start in whole if start <= chunk.index), default=0)
        if self._anchor is None or self._anchor[0] != first:
            self._anchor = first, statistics_of(clean)
        elif chunk.steps:
            share = 1 - prompt.share if prompt.share < 1 else 1
            clean = match(clean, self._anchor[1], self.plan.anchor_match * share)
        return clean

    def _remember(self, chunk: Chunk, clean: Tensor) -> None:
        """Write a finished chunk into the cache of every scale: by a pass without noise, or from its last step."""
        text = self._prompt(chunk).text
        if chunk.keeps_all:
            for cache in self.caches.values():
                cache.commit()
        if chunk.kept:
            self._commit(chunk.kept.scale)
        for step in chunk.cache_steps:
            self._cache_pass(self._cached_part(chunk, clean, step.scale), step, text)
        latents = self._window | dict(zip(chunk.frames, clean.unbind(2), strict=True))
        if self.sinks is not None:  # before the window changes: what is interrupted here has no snapshot
            self.sinks = self._next_sinks(chunk, self.sinks, latents)
        self._window = latents
        following = (
            self.plan.remembered(chunk.frames.stop) if self.sinks is None else self._context_at(chunk.frames.stop)
        )
        if self.plan.window.local_frames is not None:
            self._window = {frame: self._window[frame] for frame in following}

    def _next_sinks(self, chunk: Chunk, sinks: tuple[int, ...], latents: Mapping[int, Tensor]) -> tuple[int, ...]:
        """The sinks behind a finished chunk: those that an earlier attempt went on with, else by the plan's rule."""
        if self.given_sinks and chunk.index + 1 < self.plan.replayed_chunks:
            return self.given_sinks(self.plan.chunks[chunk.index + 1])
        return next_sinks(self.plan, sinks, chunk.frames.start, latents)

    def _cached_part(self, chunk: Chunk, clean: Tensor, scale: Scale) -> Tensor:
        """The frames of a chunk that its cache passes compute; if they are not all, the caches begin a shorter pass."""
        if len(chunk.cached) == len(chunk.frames):
            return clean
        for cache in self._filled(scale):
            cache.begin(chunk.cached, chunk.context, start=chunk.frames.start)
        return torch.stack([clean[:, :, frame - chunk.frames.start] for frame in chunk.cached], dim=2)

    def _recache(self, chunk: Chunk, text: Text) -> None:
        """Compute again, in one pass per scale, the keys of all frames that `chunk` will see, under another text."""
        clean = torch.stack([self._window[frame] for frame in chunk.context], dim=2)
        self._begin(chunk.context, (), start=chunk.frames.start)
        for scale in self.plan.cached_scales:
            self._cache_pass(clean, self.plan.cache_step(scale), text)

    def _cache_pass(self, clean: Tensor, step: Step, text: Text) -> None:
        cache = self.caches[step.scale]
        self.denoise(self._resize(clean, self.plan.grids[step.scale]), step, cache, text)
        self._commit(step.scale)

    def _commit(self, scale: Scale) -> None:
        for cache in self._filled(scale):
            cache.commit()

    def _filled(self, scale: Scale) -> tuple[KVCache, ...]:
        """The caches that a pass at `scale` fills."""
        cache = self.caches[scale]
        return (cache, cache.pooled) if cache.pooled else (cache,)

    def _resize(self, latent: Tensor, grid: Grid) -> Tensor:
        return resize(latent, grid, self.plan.resize)

    def _begin(self, frames: Sequence[int], context: tuple[int, ...], start: int | None = None) -> None:
        for cache in self.caches.values():
            cache.begin(frames, context, start=start, sinks=self.sinks or ())

    def _prompt(self, chunk: Chunk) -> Prompt:
        return [prompt for prompt in self.prompts if prompt.first_chunk <= chunk.index][-1]

    def _forget_others(self, *prompts: Prompt) -> None:
        """Free the projected keys of all other prompts: a long timeline has many, and each takes 0.1 GB."""
        for other in self.prompts:
            if all(other.text is not prompt.text for prompt in prompts):
                other.text.forget()

    def _draw(self, chunk: Chunk, step: int, scale: Scale) -> Tensor:
        batch, channels = self.shape
        shape = torch.Size((batch, channels, len(chunk.frames), *self.plan.grids[scale]))
        return upload(self.noise(chunk.index, step, shape), self.device)

    def _slices(self, given: Tensor | None) -> Given:
        """Wrap given latents as a function of the chunk; raises ValueError if their shape does not fit the plan."""
        plan = self.plan
        replayed = [chunk for chunk in plan.chunks[: plan.replayed_chunks] if not chunk.steps]
        frames = max(plan.given_frames, sum(len(chunk.frames) for chunk in replayed))
        if given is None and not frames:
            return _nothing_given
        latents = self._check_given(given, frames)
        return lambda chunk: latents[:, :, chunk.frames.start : chunk.frames.stop]

    def _check_given(self, given: Tensor | None, frames: int) -> Tensor:
        return self._check_latent(given, [*self.shape, frames, *self.plan.grids[Scale.HIGH]])

    @staticmethod
    def _check_latent(given: Tensor | None, wanted: list[int]) -> Tensor:
        if given is None or list(given.shape) != wanted:
            got = "none" if given is None else f"a latent of shape {list(given.shape)}"
            raise ValueError(f"the plan expects given latents of shape {wanted}, got {got}")
        if not torch.isfinite(given).all():
            raise ValueError("the given latents contain NaN or infinity: the run that made them has failed")
        return given


def arrived(estimate: Tensor | Later) -> Tensor:
    """An estimate, once it is there."""
    return estimate if isinstance(estimate, Tensor) else estimate()


def _from_the_first(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts in their order. Raises ValueError where none covers the first chunk."""
    if not prompts or min(prompt.first_chunk for prompt in prompts) != 0:
        raise ValueError("no prompt covers the first chunk: give one with first_chunk 0")
    return sorted(prompts, key=lambda prompt: prompt.first_chunk)


def _nothing_given(chunk: Chunk) -> Tensor:
    raise ValueError(f"chunk {chunk.index} is not denoised, and nobody gave its latent")
