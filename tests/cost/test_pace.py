"""Where a run stands: the engine's own calls, against a clock that is set by hand."""

import pytest
import tiny
import torch

from histream_core.cost.cost import Cost
from histream_core.cost.pace import DecodePace, Pace, duration
from histream_core.plan.chunks import replay
from histream_core.plan.entry import Entry, MotionRule, Restyle
from histream_core.stream.prompts import Prompt

SECONDS_FOR_VALUE = 1e-4


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def walk(plan, *, first_call=0.0, decode=0.0, passes=0.0, **inputs):
    """Run the engine with calls that take time by the size of their latent, `passes` times that those without noise.

    The pace, the clock, every event.
    """
    clock, seen = Clock(), []
    pace = Pace(Cost(tiny.CONFIG, plan), decodes=False, clock=clock)

    def denoise(latent, step, cache, text):
        pace.begin(step)
        seen.append(("call", pace.describe(), None))
        before = clock.now
        share = 1 if step.sigma else passes
        clock.now += latent.numel() * SECONDS_FOR_VALUE * share + (0 if seen[1:] else first_call)
        pace.measure(clock.now - before)
        pace.end(step)
        seen.append(("called", pace.describe(), (clock.now, pace.seconds_left)))
        return torch.zeros_like(latent)

    for _ in tiny.stream(plan, denoise=denoise, **inputs).chunks():
        clock.now += decode
        pace.finish()
        seen.append(("finished", pace.describe(), (clock.now, pace.seconds_left)))
    return pace, clock, seen


def test_it_says_chunk_step_frames_and_time():
    """Seen to fail where cache passes are counted as steps."""
    pace, _, seen = walk(tiny.plan(num_frames=7), decode=1.0)
    lines = [line for what, line, _ in seen if what == "call"]
    assert lines[0] == "chunk 1 of 3, step 1 of 4, 0 of 25 frames"
    assert lines[1] == "chunk 1 of 3, step 2 of 4, 0 of 25 frames", "the first call loads"
    assert lines[2].startswith("chunk 1 of 3, step 3 of 4, 0 of 25 frames, about ")
    assert lines[4].startswith("chunk 2 of 3, step 1 of 4, 9 of 25 frames, 0.13 s for each, about ")
    assert pace.frames == 25
    assert pace.describe("decode").startswith("all chunks sampled, 25 of 25 frames, ")
    assert pace.describe("decode").endswith("s for each, slowest: decode")


def test_steps_are_counted_where_the_noise_follows_the_motion_of_a_source():
    """Seen to fail where the first step of a chunk must be told the level of a still source."""
    plan = tiny.plan(num_frames=7, restyle=Restyle(0.8, motion=MotionRule(span=0.1)))

    def source(chunk):
        height, width = plan.grids[chunk.steps[0].scale]
        return Entry(0.75, 0.75), torch.zeros(1, 4, len(chunk.frames), height, width)

    pace, _, seen = walk(plan, source=source)
    lines = [line.split(", 0 of")[0] for what, line, _ in seen if what == "call"]
    count = len(plan.chunks[0].steps)
    assert lines[:count] == [f"chunk 1 of 3, step {number} of {count}" for number in range(1, count + 1)]
    assert pace.position == plan.num_steps()


def test_the_time_left_knows_that_low_steps_are_cheaper():
    """From the second of them on. Seen to fail where every step counts as one."""
    _, clock, seen = walk(tiny.plan(num_frames=9), passes=1.0)
    times = [now for _, _, now in seen if now]
    told = [now for now in times if now[1] is not None]
    assert told and told == times[1:]
    assert all(now + left == pytest.approx(clock.now, rel=0.15) for now, left in told)


def test_what_the_first_step_loads_and_compiles_is_not_extrapolated_for_ever():
    """Seen to fail with one mark, at the beginning."""
    _, clock, seen = walk(tiny.plan(num_frames=15), first_call=1000.0)
    later = [now for what, _, now in seen if what == "called" and now[0] > 1000][6:]
    assert later and all(now + left == pytest.approx(clock.now, rel=0.15) for now, left in later)


def test_a_run_that_goes_on_counts_what_it_makes_itself():
    """Seen to fail where a chunk that is given counts as made."""
    plan = replay(tiny.plan(num_frames=9), 2)
    pace, clock, seen = walk(plan, given=torch.zeros(1, 4, 6, 8, 8), decode=2.0)
    assert seen[0][1] == "taking up 2 finished chunks, 21 of 33 frames"
    assert pace.seconds_per_frame == pytest.approx((clock.now - 4.0) / 12)
    assert [line for what, line, _ in seen if what == "call"][-4].startswith("chunk 3 of 3, step 1 of 4, 21 of 33")


def test_a_prompt_that_changes_with_recache_moves_nothing():
    """Its passes are on no plan. Seen to fail where any call moves the position."""
    prompts = [Prompt(tiny.text()), Prompt(tiny.text(1), 1, recache=True)]
    pace, _, seen = walk(tiny.plan(num_frames=9), prompts=prompts)
    steps = [line.split(",")[:2] for what, line, _ in seen if what == "call"]
    for chunk, last in ((2, -6), (3, None)):
        assert steps[:last][-4:] == [[f"chunk {chunk} of 3", f" step {number} of 4"] for number in (1, 2, 3, 4)]
    assert pace.seconds_left == 0, "all planned calls were made"


def test_a_batch_divides_the_seconds():
    plan = tiny.plan(num_frames=3)
    clock = Clock()
    pace = Pace(Cost(tiny.CONFIG, plan, batch=2), clock=clock)
    for step in plan.chunks[0].steps:
        pace.begin(step)
        clock.now += 1
        pace.measure(1.0)
        pace.end(step)
    pace.finish()
    assert pace.seconds_per_frame == pytest.approx(4 / 18)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (130, "2 min 10 s"), (3900, "1 h 05 min")]
)
def test_durations_are_in_two_units(seconds, said):
    assert duration(seconds) == said


def decoded(groups, *, num_videos=1, num_latents=3, first=0.0):
    """The lines of a decode that takes a second for each group of frames, and `first` more for the first."""
    clock = Clock()
    pace, said = DecodePace(num_videos, num_latents, clock=clock), []
    said.append(pace.describe())
    for frames in groups:
        clock.now += 1.0 + (0 if pace.frames else first)
        pace.times.decode += 1.0
        pace.add(frames)
        said.append(pace.describe())
    return pace, said


def test_a_decode_tells_latent_frames_seconds_for_each_frame_and_what_is_left():
    """The time of loading is not extrapolated. Seen to fail with a first group that is."""
    pace, said = decoded([1, 4, 4], first=10)
    assert said == [
        "loading the VAE, 0 of 9 frames",
        "latent frame 2 of 3, 1 of 9 frames, 11.00 s for each, slowest: decode",
        "latent frame 3 of 3, 5 of 9 frames, 2.40 s for each, about 1 s left, slowest: decode",
        "all decoded, 9 of 9 frames, 1.44 s for each, slowest: decode",
    ]
    assert (pace.latents, pace.seconds) == (3, 13)


def test_a_decode_of_a_batch_tells_which_video_and_counts_the_frames_of_all():
    pace, said = decoded([5, 4, 5, 4], num_videos=2)
    assert (
        said[2] == "video 2 of 2, latent frame 1 of 3, 9 of 18 frames, 0.22 s for each, about 2 s left, slowest: decode"
    )
    assert said[3].startswith("video 2 of 2, latent frame 3 of 3, 14 of 18 frames, ")
    assert (pace.latents, pace.num_frames) == (6, 18)


def test_a_decode_names_the_writer_where_that_is_slower():
    pace, _ = decoded([1, 4])
    pace.times.write += 5
    assert pace.describe().endswith("slowest: write")
