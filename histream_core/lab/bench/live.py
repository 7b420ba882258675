"""The bars of `histream bench --live --sim`: published figures from five numbers, and streams on a virtual clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import pairwise

import numpy as np

from ...live.budget import BATCHED, FRAMES, Choice, Target
from ...live.intake import ALL, EVEN
from .bars import Bar
from .live_sim import Scene, SimulatedStream, changes, over_budget_after, plain
from .published import GPUS, PUBLISHED, STEPS, TTFF, Published
from .serving import FiveNumbers, errors, fit, frame_rates, unbatched_rates
from .serving import best_split as best
from .serving import equal_split as equal

WITHIN = 0.07
FITTED_GPUS = (1, 4)
"""Numbers of GPUs whose figures are fitted where the others are held out."""
STREAMED = PUBLISHED[0]
"""The model, size and chip of the simulated streams."""
STEP_AT, STEP_SECONDS = 60.0, 300.0
"""Second of the load step, and length of that stream."""


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """The simulated stream: frames per second of the camera, steps at most, intake, length, load step in percent."""

    camera: float = 30.0
    steps: int = 4
    policy: str = EVEN
    hours: float = 1.0
    load_step: float = 60.0

    def __post_init__(self):
        checks = {
            "--camera": (1 <= self.camera <= 240, "1 to 240 frames per second"),
            "--steps": (1 <= self.steps <= len(STEPS), f"1 to {len(STEPS)}"),
            "--hours": (0.1 <= self.hours <= 24, "0.1 to 24"),
            "--load-step": (0 <= self.load_step <= 1000, "0 to 1000 percent"),
        }
        for option, (right, sentence) in checks.items():
            if not right:
                value = getattr(self, option[2:].replace("-", "_"))
                raise ValueError(f"{option} {value:g} cannot be simulated: use {sentence}")

    @property
    def scene(self) -> Scene:
        target = Target(self.camera, steps=self.steps, most_every=1 if self.policy == ALL else 4)
        return Scene(numbers_of(STREAMED).cost, target, self.hours * 3600, self.policy)


class LiveBench:
    """Computes all bars, and keeps the streams behind them."""

    def __init__(self, options: LiveOptions):
        self.options = options
        self.streams: dict[str, dict] = {}

    def bars(self) -> Iterator[Bar]:
        """Yield every bar as soon as it is known."""
        yield from figure_bars()
        yield from ttff_bars()
        yield unbatched_bar()
        yield from self.delay_bars()
        yield from self.load_bars()

    def plain(self) -> dict:
        """The fitted numbers, in milliseconds for four frames, and the streams."""
        fits = {published.name: asdict(numbers_of(published)) for published in PUBLISHED}
        return {"source": "arXiv 2511.07399, figures 9, 10, 11, 15", "fits": fits, "streams": self.streams}

    def delay_bars(self) -> Iterator[Bar]:
        """Delays with the budget, and with all steps as one stream batch: with the policy, and with an endless queue.

        The paper's demo has such a queue. It is a control where more comes than can be computed.
        """
        scene, steps = self.options.scene, self.options.steps
        held = replace(scene, held=Choice(BATCHED, steps))
        found = self._run(f"{scene.policy}, budget", scene)
        kept = self._run(f"{scene.policy}, all steps", held)["p95"]
        queued = self._run("endless queue, all steps", replace(held, endless=True))["p95"]
        name = f"{self.options.camera:g} fps, {self.options.hours:g} h, p95 delay in seconds"
        yield Bar(f"{name}, {scene.policy}, at most {steps} steps", found["p95"], 1.5)
        if self._too_much(held):
            yield Bar(f"{name}, {scene.policy}, {steps} steps", kept, 1.5, "endless queue", queued)
            yield Bar(f"{name}, endless queue, {steps} steps", queued, 60, scene.policy, kept, at_least=True)
        else:
            yield Bar(f"{name}, {scene.policy}, {steps} steps", kept, 1.5)

    def load_bars(self) -> Iterator[Bar]:
        """How soon the budget is kept again when all work takes longer, and how seldom it changes its mind then."""
        load = 1 + self.options.load_step / 100
        scene = replace(self.options.scene, seconds=STEP_SECONDS, load=load, load_at=STEP_AT)
        stream = SimulatedStream(scene).run()
        self.streams["load step"] = plain(stream)
        before = next((chunk.choice for chunk in stream.work if chunk.began >= STEP_AT), stream.budget.choice)
        held = replace(scene, held=before)
        name = f"load step of +{self.options.load_step:g}%"
        over = f"{name}, chunks until within budget", over_budget_after(stream.work, STEP_AT), 4
        if self._too_much(held):
            yield Bar(*over, "choice held", over_budget_after(SimulatedStream(held).run().work, STEP_AT))
        else:
            yield Bar(*over)
        at = [index for index in changes(stream.work) if stream.work[index].began >= STEP_AT]
        fewest = min((two - one for one, two in pairwise([*at, len(stream.work)])), default=len(stream.work))
        yield Bar(f"{name}, chunks between two changes afterwards", fewest, 8, at_least=True)

    @staticmethod
    def _too_much(scene: Scene) -> bool:
        """Whether the source gives more than the choice that is held can compute."""
        return scene.held is not None and scene.load * scene.cost.chunk_seconds(scene.held) > scene.target.period(
            scene.held
        )

    def _run(self, name: str, scene: Scene) -> dict:
        self.streams[name] = plain(SimulatedStream(scene).run())
        return self.streams[name]


@cache
def numbers_of(published: Published, gpus: tuple[int, ...] = GPUS) -> FiveNumbers:
    """The fit, computed once."""
    return fit(published, gpus)


def figure_bars() -> Iterator[Bar]:
    """All 96 figures fitted, half of them held out, and the control that forgets the VAE."""
    fitted = {split: np.stack([errors(p, numbers_of(p), split) for p in PUBLISHED]) for split in (best, equal)}
    within = {split: int((abs(found) <= WITHIN).sum()) for split, found in fitted.items()}
    name = f"of {fitted[best].size} published frame rates within {WITHIN:.0%}"
    yield Bar(name, within[best], 94, "equal split that forgets the VAE", within[equal], at_least=True)
    rows = [GPUS.index(gpus) for gpus in GPUS if gpus not in FITTED_GPUS]
    held = {
        split: float(abs(np.stack([errors(p, numbers_of(p, FITTED_GPUS), split)[rows] for p in PUBLISHED])).mean())
        for split in (best, equal)
    }
    name = "fitted on 1 and 4 GPUs, mean error of 2 and 3"
    yield Bar(name, held[best], 0.03, "equal split that forgets the VAE", held[equal])
    several = {split: float(abs(found[:, 1:]).mean()) for split, found in fitted.items()}
    name = "equal split that forgets the VAE, mean error of 2 to 4 GPUs"
    yield Bar(name, several[equal], 0.2, "best split", several[best], at_least=True)


def ttff_bars() -> Iterator[Bar]:
    """Seconds to the first frame: four frames of the source, and their computing in two steps."""
    rates = frame_rates(STREAMED.layers, numbers_of(STREAMED).array())
    computing = FRAMES / float(rates[0, STEPS.index(2)])
    for fps, seconds in TTFF.items():
        off, naive = abs(FRAMES / fps + computing - seconds), abs(computing - seconds)
        yield Bar(f"time to first frame at {fps} fps, seconds from {seconds:g}", off, 0.01, "computing alone", naive)


def unbatched_bar() -> Bar:
    """Frame rates on one GPU without stream batch, against a control in which a call of several rows saves nothing."""
    found, naive = [], []
    for published in (published for published in PUBLISHED if published.unbatched):
        numbers = numbers_of(published).array()
        found += list(unbatched_rates(numbers) / published.unbatched - 1)
        naive += list(frame_rates(published.layers, numbers)[0] / published.unbatched - 1)
    worst, control = (float(max(map(abs, errors))) for errors in (found, naive))
    return Bar("frame rates without stream batch, worst error", worst, WITHIN, "a row costs a whole call", control)
