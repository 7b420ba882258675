"""Videos that a student makes while it trains: windows show its own mistakes, and true clips go on from them.

An expert's labels on the learner's states (DAgger, arXiv 1011.0686); true windows never show a degraded outline.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from histream_core.plan.schedule import Scale
from training import processes
from training.data import Bank, Clips, Drawing
from training.dit_forward import CHUNK
from training.forcing import LATEST, TeacherForcing
from training.rng import Rng
from training.scene_bank import SceneBank

AT_ONCE = 4
"""Videos that are begun at once."""


@dataclass(slots=True)
class Video:
    """A video in the making, a batch of one."""

    tokens: Tensor
    """Its caption [1, L]."""
    index: Tensor
    begun: Tensor
    """As `Clips.index` and `Clips.roll`: the clip that it is of, and where that begins."""
    roll: Tensor
    """Where the true clip is that continues it: a video may be ahead or behind."""
    first: Tensor
    last: Tensor
    """Its first chunk and the last one that is made, [1, C, T, G, G]."""
    chunks: int
    """Chunks that are made."""
    length: int
    """Chunks after which another video takes its place."""

    @property
    def clips(self) -> Clips:
        return Clips(self.tokens, self.last, index=self.index, roll=self.roll)

    def frames(self, chunk: int) -> range:
        return range(CHUNK * chunk, CHUNK * (chunk + 1))


class Videos:
    """A few videos of the student, of up to `longest` chunks each, which go on in turn."""

    def __init__(
        self, forcing: TeacherForcing, bank: Bank | SceneBank, drawing: Drawing, rng: Rng, count: int, longest: int
    ) -> None:
        """`forcing` adds no noise to windows; `drawing` says how clips and captions are drawn."""
        self.forcing, self.bank, self.drawing, self.rng = forcing, bank, drawing, rng
        self.count, self.longest = count, longest
        self.videos: list[Video] = []

    def draw(self, count: int) -> Clips:
        """True clips of `frames(3 LATEST)` that go on from videos, which is what their windows show.

        Then the video that waited longest has its next chunk; one that is over gives way to another.
        """
        self._fill()
        chosen = [self.rng.choices.choice(self.videos) for _ in range(count)]
        clips = _stack([self._continued(video) for video in chosen])
        self._go_on()
        return clips

    @torch.no_grad()
    def _go_on(self) -> None:
        video = self.videos.pop(0)
        video = self._after(video, self._make(self._continued(video), LATEST * CHUNK))
        self.videos += [video] if video.chunks < video.length else []

    def _fill(self) -> None:
        while len(self.videos) < self.count:
            self.videos += self._begin(min(AT_ONCE, self.count - len(self.videos)))

    @torch.no_grad()
    def _begin(self, count: int) -> list[Video]:
        """Videos of two chunks."""
        rng, low = self.rng, self.forcing.grids[Scale.LOW][0]
        clips = self.bank.draw(rng, count, range(CHUNK), self.drawing, low)
        first = self._make(clips, 0)
        videos = [
            Video(*parts, 1, rng.choices.randint(3, self.longest))
            for parts in zip(
                *(x.split(1) for x in (clips.tokens, clips.index, clips.roll, clips.roll, first, first)), strict=True
            )
        ]
        shown = replace(_stack([self._continued(video) for video in videos]), seen=torch.cat([first, first], dim=2))
        made = self._make(shown, CHUNK).split(1)
        return [self._after(video, chunk) for video, chunk in zip(videos, made, strict=True)]

    def _make(self, clips: Clips, start: int) -> Tensor:
        """The student's chunk at `start` [B, C, T, G, G], with the steps at HIGH that HiStream+ has."""
        rng, later, forcing = self.rng, bool(start), self.forcing
        low = forcing.own_low(clips, start, rng, later_alone=later)
        for number in range(1 if later else 2):
            steps = [steps[number : number + 1] for steps in forcing.all_steps(Scale.HIGH)]
            [made] = forcing.predict(clips, start, Scale.HIGH, rng, low, steps=steps, later_alone=later)
            clips = replace(clips, latents=made.clean[:, 0].float())
        return clips.latents

    def _continued(self, video: Video) -> Clips:
        """The true clip that continues a video: its first chunk, the one before, the next."""
        parts = [
            self.bank.gather(video.index, video.frames(chunk), roll)
            for chunk, roll in ((0, video.begun), (video.chunks - 1, video.roll), (video.chunks, video.roll))
        ]
        latents, geometry = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
        seen = torch.cat([video.first, video.last], dim=2)
        return Clips(video.tokens, latents, geometry, index=video.index, roll=video.roll, seen=seen)

    def _after(self, video: Video, chunk: Tensor) -> Video:
        """The video with one more chunk."""
        roll = self.bank.catch_up(video.clips, video.frames(video.chunks), chunk)
        return replace(video, roll=roll, last=chunk, chunks=video.chunks + 1)

    def state_dict(self) -> dict:
        """The videos of all processes."""
        return {"videos": processes.gather([asdict(video) for video in self.videos])}

    def load_state_dict(self, state: dict) -> None:
        self.videos = [Video(**video) for video in state["videos"][processes.rank()]]


def _stack(clips: Sequence[Clips]) -> Clips:
    """Clips of one each as a batch."""
    tokens, latents, geometry, index, roll, seen = (
        torch.cat([getattr(one, name) for one in clips])
        for name in ("tokens", "latents", "geometry", "index", "roll", "seen")
    )
    return Clips(tokens, latents, geometry, index=index, roll=roll, seen=seen)
