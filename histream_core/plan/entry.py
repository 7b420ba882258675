"""Where the chunks of a restyled video begin: a mixture of noise and a source (StreamDiffusionV2, arXiv 2511.07399).

Pure values, no tensors.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from .schedule import NUM_TIMESTEPS, Scale, Steps


@dataclass(frozen=True, slots=True)
class Entry:
    """The beginning of a chunk: the latent `share` x noise + (1 - `share`) x source.

    `told` is the noise level that the network is told; StreamDiffusionV2 tells a lower one than there is.
    """

    share: float
    told: float


@dataclass(frozen=True, slots=True)
class MotionRule:
    """How the share of noise follows the motion of the source: still parts are changed more than moving ones.

    Of the root mean squares of the differences between successive frames, the largest of a chunk over `full` is its
    motion, at most 1. The share falls by `span` times the motion, smoothed with `weight` on the new value.
    """

    span: float = 0.1
    full: float = 0.2
    weight: float = 0.9
    metric: str = "pixels"
    """The compared values: "pixels" in [-1, 1], as StreamDiffusionV2's code does, or "latents", as its paper says."""

    def __post_init__(self):
        if not 0 <= self.span <= 1 or not 0 < self.weight <= 1 or not self.full > 0:
            raise ValueError(
                f"a motion rule with span {self.span:g}, weight {self.weight:g} and full motion at {self.full:g} is "
                "none: use 0.1, 0.9 and 0.2"
            )
        if self.metric not in ("pixels", "latents"):
            raise ValueError(f'motion is measured in pixels or latents, not in "{self.metric}"')

    def next_share(self, top: float, before: float, motion: float) -> float:
        """The share of a chunk of `motion` in [0, 1], after one of share `before`; `top`: that of a still source."""
        return self.weight * (top - self.span * motion) + (1 - self.weight) * before


@dataclass(frozen=True, slots=True)
class Restyle:
    """How far a source is changed: the share of noise that its chunks begin with. 1 is text to video, 0 the source."""

    share: float = 0.8
    offset: float = 0.0
    """Noise level that is told less than there is: 0.1 for StreamDiffusionV2's weights."""
    motion: MotionRule | None = None
    """None: every chunk begins with the same share."""

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise ValueError(f"a strength of {self.share:g} is no share of noise: use 0.8, or 0 to 1")
        span = self.motion.span if self.motion else 0
        if span and not span < self.share:
            raise ValueError(
                f"motion cannot take {span:g} of noise from a strength of {self.share:g}: use a span of 0, or one "
                "below the strength"
            )
        lowest = self.share - span
        if self.share and not 0 <= self.offset < lowest:
            raise ValueError(
                f"the network cannot be told {self.offset:g} less than a strength of {lowest:g}: use an offset of 0"
            )

    def entry(self, share: float | None = None) -> Entry:
        """The entry of a chunk with that share of noise; None: that of a still source.

        A level that is told with an offset is a whole timestep, as in StreamDiffusionV2's code.
        """
        share = self.share if share is None else share
        whole = int(share * NUM_TIMESTEPS) / NUM_TIMESTEPS if self.offset else share
        return Entry(share, whole - self.offset)

    def enter(self, steps: Steps) -> Steps:
        """The steps of a chunk that begins with its source: those below the entry, after one at the entry itself.

        That one takes the place, and the resolution, of the last step that is not below. Motion changes what it is told
        but not the number of steps. No steps where the source stays as it is.
        """
        if not self.share or not steps:
            return ()
        taken = max(1, sum(step.sigma >= self._lowest_told for step in steps))
        return (replace(steps[taken - 1], sigma=self.entry().told), *steps[taken:])

    def may_tell(self, sigma: float) -> bool:
        """Whether the network can be told that level in the first step of a chunk, by the motion of its source."""
        return self._lowest_told <= sigma <= self.entry().told

    @property
    def _lowest_told(self) -> float:
        return self.entry(self.share - self.motion.span if self.motion else None).told

    def scales(self, schedule: Iterable[Steps]) -> list[Scale]:
        """The scales that chunks begin at, which their source is encoded at."""
        entered = map(self.enter, schedule)
        return sorted({steps[0].scale if steps else Scale.HIGH for steps in entered}, key=lambda scale: scale.value)
