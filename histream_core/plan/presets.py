"""A table of each family of weights and the settings that fit it; every value can be overridden.

Sources: the published configurations of the families, and arXiv 2512.21338 for HiStream. What no publication
states is listed in docs/architecture.md under "What is ours".
"""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

from .entry import MotionRule, Restyle
from .positions import TemporalPolicy
from .schedule import NUM_TIMESTEPS, Schedule, make_steps

TOKENS_832X480 = 1560
TOKENS_960X544 = 2040
TOKENS_1920X1088 = 8160
UNTUNED_NTK = ((1.0, 1.0), (math.sqrt(TOKENS_960X544 / TOKENS_832X480), 2.0),
               (math.sqrt(TOKENS_1920X1088 / TOKENS_832X480), 5.0))  # fmt: skip
"""How much larger than in training a side is, and how many times the rotary base is then taken, without tuning.

HiStream's factors at its two sizes (arXiv 2512.21338), about twice the ratio; the author of CineScale found that
weights which were not tuned take more than the ratio.
"""
SPATIAL_DIMS = 42
"""Channels of a spatial axis in a head of Wan, 128 wide."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Sampling settings for a family of weights."""

    name: str
    label: str
    timesteps: tuple[float, ...] = (1000, 750, 500, 250)
    later_timesteps: tuple[float, ...] | None = None
    """Timesteps of every chunk after the first; None: those of the first."""
    fast_timesteps: tuple[float, ...] = (1000, 500)
    """Timesteps of every chunk after the first in HiStream+ mode, and of all chunks in naive mode."""
    shift_low: float = 5.0
    shift_high: float = 5.0
    chunk_frames: int = 3
    anchor_frames: int = 1
    local_frames: int | None = 2
    """Number of frames directly before the chunk that it sees besides the anchor; None: the whole history."""
    trained_tokens: int = TOKENS_832X480
    """Tokens of one frame at the resolution that the weights were trained at."""
    ntk_low: float | None = None
    ntk_high: float | None = None
    """NTK factor of the spatial rotary axes; None: from the size, see `ntk`."""
    ntk_rule: str = "untuned"
    """How a factor follows from the size: "untuned", by UNTUNED_NTK, or "sqrt", the ratio of the sides."""
    ntk_of_base: bool = False
    """NTK factors multiply the rotary base, as CineScale has them; otherwise its power d / (d - 2), d SPATIAL_DIMS."""
    resize: str = "area-down"
    """How latents go between LOW and HIGH, one of RESIZE_MODES."""
    scale_first_chunk: bool = False
    """Multiply the HIGH self-attention scale in chunk 0 by sqrt(ln tokens / ln trained tokens) of a chunk."""
    normalised: bool = True
    """The network's latents are normalised with the VAE's mean and standard deviation."""
    span: int = 18
    one_grid: bool = False
    """The weights know one resolution: every mode takes all of its steps at HIGH."""
    restyle: Restyle | None = None
    """How the weights restyle a video, where they were made for that; None: they were made for text to video."""
    second_weights: bool = False
    """The model has a second set of weights, which computes the passes over clean frames."""
    listed_timesteps: tuple[float, ...] = ()
    """Timesteps below pure noise, of which `timesteps` are the first ones; see `with_steps`."""
    note: str = ""

    def temporal(self) -> TemporalPolicy:
        return TemporalPolicy("clamped", span=self.span)

    def restyled(self, share: float | None = None, offset: float | None = None, span: float | None = None) -> Restyle:
        """How a source is restyled with these weights: what is not given is as they were made, see `restyle`.

        `span` is that of the rule for motion, 0 for none. Raises ValueError.
        """
        usual = self.restyle or Restyle()
        share = usual.share if share is None else share
        motion = usual.motion if span is None and share else MotionRule(span=span) if span else None
        return Restyle(share, usual.offset if offset is None else offset, motion)

    def with_steps(self, count: int) -> "Preset":
        """The preset with the first `count` of its listed timesteps. Raises ValueError where there are not so many."""
        if not self.listed_timesteps:
            raise ValueError(f"preset {self.name} has no list of steps to choose from: leave the number out")
        if not 1 <= count <= len(self.listed_timesteps):
            raise ValueError(f"preset {self.name} takes 1 to {len(self.listed_timesteps)} steps, not {count}")
        return replace(self, timesteps=(NUM_TIMESTEPS, *self.listed_timesteps[:count]))

    def ntk(self, tokens_per_frame: int, given: float | None) -> float:
        """The NTK factor of a grid, as plans have it: `given`, or else derived from its tokens relative to training."""
        if given is None:
            ratio = math.sqrt(tokens_per_frame / self.trained_tokens)
            return max(1.0, ratio) if self.ntk_rule == "sqrt" else of_base(untuned_ntk(ratio))
        return of_base(given) if self.ntk_of_base else given

    def first_chunk_attention_scale(self, tokens_per_frame: int) -> float:
        """Factor on the softmax scale in chunk 0 at HIGH; 1.077 at 1920x1088 for weights trained at 960x544 (ours)."""
        if not self.scale_first_chunk or tokens_per_frame <= self.trained_tokens:
            return 1.0
        frames = self.chunk_frames
        return math.sqrt(math.log(frames * tokens_per_frame) / math.log(frames * self.trained_tokens))

    def schedule(self, mode: str) -> Schedule:
        """The steps of the first and the later chunks in a mode of MODES."""
        first, later, fast = self.timesteps, self.later_timesteps or self.timesteps, self.fast_timesteps
        tables = {
            "histream-plus": (first, fast),
            "naive": (fast,),
        }.get(mode, (first, later))
        shift_high = self.shift_low if mode == "sd" else self.shift_high
        one_grid = self.one_grid or mode == "full"
        return tuple(
            make_steps(t, 0 if one_grid else len(t) // 2, shift_low=self.shift_low, shift_high=shift_high)
            for t in tables
        )


MODES = {
    "histream": "half of the steps at half resolution, half at full; the same steps in every chunk",
    "histream-plus": "as histream, but only the first chunk takes all steps, later ones half of them",
    "full": "every step at full resolution (no LOW, no Dual-Resolution Caching); the window stays",
    "history": "every chunk sees the whole video so far (no Anchor-Guided Sliding Window); LOW stays, memory grows",
    "naive": "half of the steps in the first chunk too",
    "sd": "as histream without the settings for high definition (time shift, NTK, first-chunk attention)",
}
"""The modes and what they do; all but the first two are ablations."""

_HISTREAM = {
    "shift_high": 7.0,
    "ntk_low": 2.0,
    "ntk_high": 5.0,
    "ntk_of_base": True,
    "scale_first_chunk": True,
    "trained_tokens": TOKENS_960X544,
}

_SGF: dict[str, Any] = {"anchor_frames": 3, "local_frames": 6}
_SGF_FRAMEWISE: dict[str, Any] = {"chunk_frames": 1, "anchor_frames": 4, "local_frames": 16, "span": 20}
"""Their positions are pinned within 21 frames: a chunk begins 18 frames behind the anchor at most, a frame 20."""

_WIDE = (
    "a window of 21 latent frames: in mode histream 40.3 GB of keys and values at 1920x1088 and 7.7 at 832x480; "
    "Memory Plan, or histream plan, says what takes less"
)

_STREAMDIFFUSIONV2 = {
    "listed_timesteps": (700, 500, 400, 200),
    "fast_timesteps": (1000, 700),
    "shift_low": 1.0,
    "shift_high": 1.0,
    "chunk_frames": 1,
    "anchor_frames": 3,
    "normalised": False,
    "one_grid": True,
    "restyle": Restyle(0.8, offset=0.1, motion=MotionRule()),
    "note": "licence: Apache-2.0 (repository); not verified for the weights, which descend from those of CausVid",
}
"""A video that is restyled enters at 700, in place of 1000: the steps are then those of the list alone."""

PRESETS = {
    preset.name: preset
    for preset in (
        Preset("histream", "HiStream 1.3B", **_HISTREAM, note="weights not published as of this version"),
        Preset("self-forcing", "Self-Forcing 1.3B"),
        Preset("causal-forcing", "Causal-Forcing 1.3B, chunkwise"),
        Preset("causal-forcing-framewise", "Causal-Forcing 1.3B, framewise", chunk_frames=1, local_frames=5),
        Preset(
            "causal-forcing-2step",
            "Causal-Forcing++ 1.3B, framewise, 2 steps",
            later_timesteps=(1000, 500),
            chunk_frames=1,
            local_frames=5,
        ),
        Preset(
            "causal-forcing-1step",
            "Causal-Forcing++ 1.3B, framewise, 1 step",
            later_timesteps=(1000,),
            fast_timesteps=(1000,),
            chunk_frames=1,
            local_frames=5,
        ),
        Preset(
            "causvid",
            "CausVid 1.3B",
            timesteps=(1000, 757, 522),
            fast_timesteps=(1000, 522),
            shift_low=1.0,
            shift_high=1.0,
            anchor_frames=0,
            local_frames=None,
            note="licence: CC BY-NC 4.0, non-commercial",
        ),
        Preset(
            "longlive",
            "LongLive 1.3B",
            anchor_frames=3,
            local_frames=6,
            note="licence: CC BY-NC-SA 4.0, non-commercial; base weights need their LoRA",
        ),
        Preset("sgf", "Self Gradient Forcing 1.3B, chunkwise", **_SGF),
        Preset("sgf-framewise", "Self Gradient Forcing 1.3B, framewise", **_SGF_FRAMEWISE, note=_WIDE),
        Preset("sgf-plus", "SGF+ 1.3B, chunkwise", **_SGF, second_weights=True),
        Preset("sgf-plus-framewise", "SGF+ 1.3B, framewise", **_SGF_FRAMEWISE, second_weights=True, note=_WIDE),
        Preset(
            "reward-forcing",
            "Reward Forcing 1.3B",
            anchor_frames=3,
            local_frames=3,
            span=6,
            note="licence: Apache-2.0 (repository), not verified for the weights; their moving average of old frames "
            "in the anchor (EMA sink) is computed with --average-anchor 0.999, under which no prompt can be recached; "
            "without it the anchor stays",
        ),
        Preset(
            "memflow",
            "MemFlow 1.3B",
            anchor_frames=3,
            local_frames=6,
            note="licence: Apache-2.0 (repository), not verified for the weights; base weights need their LoRA; the "
            "three old frames that they choose by the prompt are not there, three nearer ones are",
        ),
        Preset("streamdiffusionv2", "StreamDiffusionV2 1.3B", timesteps=(1000, 700, 500), **_STREAMDIFFUSIONV2),
        Preset("streamdiffusionv2-14b", "StreamDiffusionV2 14B", timesteps=(1000, 700), **_STREAMDIFFUSIONV2),
        Preset(
            "wan",
            "plain Wan2.1 1.3B / 14B",
            note="not distilled for few steps: expect blur, or add a few-step LoRA",
        ),
        Preset(
            "demo",
            "bundled demo model",
            shift_low=2.0,
            shift_high=1.0,
            trained_tokens=256,
            ntk_low=1.0,
            ntk_high=1.0,
            span=3,
        ),
    )
}


def untuned_ntk(ratio: float) -> float:
    """The multiple of the base where a side is `ratio` times that of training.

    Lines between UNTUNED_NTK, in proportion beyond.
    """
    for (less, low), (more, high) in itertools.pairwise(UNTUNED_NTK):
        if ratio <= more:
            return low + (high - low) * max(0.0, ratio - less) / (more - less)
    return high * ratio / more


def of_base(multiple: float) -> float:
    """The factor of a plan with which the rotary base becomes so many times what it is."""
    return multiple ** ((SPATIAL_DIMS - 2) / SPATIAL_DIMS)


def find_preset(name: str) -> Preset:
    """The preset of that name; raises ValueError that lists the names."""
    if name not in PRESETS:
        raise ValueError(f'preset "{name}" does not exist: use one of {", ".join(PRESETS)}')
    return PRESETS[name]
