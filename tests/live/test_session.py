"""A live stream on a fake clock: every frame in order and on time, prompts at the next chunk, sources that go away."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from tiny_live import FPS, MODEL, SIDE, STEP, VAE, FakeClock, Living, endless, picture

from histream_core.live.clock import Clock
from histream_core.live.engine import decoding_threads
from histream_core.live.intake import ALL, EVEN
from histream_core.live.session import NO_JUMP, Cue
from histream_core.live.stage import LiveSettings
from histream_core.plan.anchoring import AnchorSource
from histream_core.plan.chunks import ENDLESS, with_anchors
from histream_core.plan.entry import Restyle
from histream_core.plan.guidance import Guidance
from histream_core.runs.restyle import EncodedSource
from histream_core.stream.prompts import Prompt
from histream_core.stream.stream import Stream
from histream_core.stream.timeline import Change
from histream_core.vae.decode import to_frames
from histream_core.vae.decoders import open_decoder


def test_every_frame_is_shown_in_order_and_on_time():
    living = Living(9 + 12 * 6)
    report = living.run()
    captured = [time for _, time, _ in living.shown]
    assert captured == [index / FPS for index in range(81)]
    assert (report["frames"], report["arrived"], report["dropped"], report["misses"]) == (81, 81, 0, 0)
    assert report["late"] <= 1 and report["p95"] < 1.2  # the first chunk is shorter than the time to the second
    assert report["fps"] == pytest.approx(FPS, rel=0.05)
    assert living.shown[0][2].shape == (SIDE, SIDE, 3)


def test_it_shows_what_video_to_video_makes_of_the_same_frames():
    """The latents and the frames of a run over the same pictures, chunk by chunk. `all` loses none."""
    living = Living(21, policy=ALL)
    living.run()
    plan = tiny.plan("histream", num_frames=ENDLESS, width=SIDE, height=SIDE, restyle=Restyle(0.8))
    source = EncodedSource((picture(n + 1).float() / 255 for n in range(21)), plan, VAE, normalised=False)
    chunks, decoder = (
        tiny.stream(plan, model=MODEL, source=source, prompts=None, seed=1).chunks(),
        open_decoder(VAE, normalised=False),
    )
    wanted = torch.cat([to_frames(decoder.decode(next(chunks)))[0] for _ in range(2)])
    got = torch.stack([torch.from_numpy(frame) for _, _, frame in living.shown])
    assert got.shape == wanted.shape
    assert (got.float() / 255 - wanted.clamp(0, 1)).abs().max() < 0.005


@pytest.mark.parametrize("anchor", [AnchorSource(walk=5), AnchorSource(share=0.5)], ids=["walk", "average"])
def test_its_anchor_is_that_of_video_to_video(anchor):
    """Seen to fail with an anchor that stays."""
    plan = endless(anchor_source=anchor)
    living = Living(9 + 12 * 3, policy=ALL, plan=plan)
    living.run()
    source = EncodedSource((picture(n + 1).float() / 255 for n in range(45)), plan, VAE, normalised=False)
    alone = zip(range(4), tiny.stream(plan, model=MODEL, source=source).chunks(), strict=False)
    assert torch.equal(torch.cat(living.latents, dim=2), torch.cat([latent for _, latent in alone], dim=2))


def test_a_live_stream_refuses_what_cannot_happen_in_it():
    """Before its source is opened, and not when the cue is said. Seen to fail with each of them let through."""
    device, prompt, text = SimpleNamespace(fps=FPS, size=(SIDE, SIDE)), Prompt(tiny.text()), tiny.text().context
    jump, recache = (Cue("a dog", text, Change(kind)) for kind in ("jump", "recache"))
    for plan, cues in ((with_anchors(endless(), [], [], [6]), ()), (endless(), (jump,))):
        with pytest.raises(ValueError, match=NO_JUMP):
            LiveSettings(plan, device, prompt, cues=cues)
    LiveSettings(endless(), device, prompt, cues=(recache, recache))
    average = endless(anchor_source=AnchorSource(share=0.5))
    LiveSettings(average, device, prompt, cues=(recache, Cue("a dog", text)))
    with pytest.raises(ValueError, match="average cannot be computed anew: let prompts change by a cut or a blend"):
        LiveSettings(average, device, prompt, cues=(recache, recache))
    with pytest.raises(ValueError, match="average cannot be computed anew"):
        Living(9, plan=average, cues=(recache,)).session.cue(0)


@pytest.mark.parametrize("guidance", [Guidance(cfg=3), Guidance(nag=5)], ids=str)
def test_a_live_stream_has_no_negative_prompt(guidance):
    """Before its source is opened. Seen to fail with guidance let through."""
    plan = tiny.plan("histream", num_frames=ENDLESS, width=SIDE, height=SIDE, restyle=Restyle(0.8), guidance=guidance)
    with pytest.raises(ValueError, match="a live stream has none: set CFG and NAG to 1"):
        LiveSettings(plan, SimpleNamespace(fps=FPS, size=(SIDE, SIDE)), Prompt(tiny.text()))


def test_the_rest_of_a_source_becomes_a_short_chunk():
    living = Living(9 + 5)
    assert living.run()["frames"] == 14


def test_a_chunk_that_the_end_cuts_short_has_the_time_of_a_whole_one():
    """It follows sooner on the one before than it can be computed."""
    report = Living(9 + 12 * 6 + 2, costs=(0.1, 0.05), latency=0.6).run()
    assert (report["frames"], report["chunks"], report["misses"]) == (83, 8, 0)


def test_a_prompt_lands_at_the_next_chunk_by_a_blend():
    living = Living(9 + 12 * 6)
    new = tiny.text(5).context

    def speak():
        if living.session.report()["chunks"] == 2 and "dog" not in living.session.report()["prompt"]:
            living.session.say("a dog", new)

    report = living.run(speak)
    assert report["prompt"] == "a dog"
    assert any('"a dog" begins at chunk 2, over 3 chunks' in line for line in report["log"])
    seen = {id(text): text.context for text in living.calls}
    distances = [float((text - new).norm()) for text in seen.values()]
    assert len(distances) == 4 and distances == sorted(distances, reverse=True) and distances[-1] == 0


def test_the_newest_of_several_prompts_counts():
    living = Living(9 + 12)
    living.session.say("a fox", tiny.text(7).context)
    living.session.say("a dog", tiny.text(5).context)
    assert living.run()["prompt"] == "a dog"
    assert all(torch.equal(text.context, tiny.text(5).context) for text in living.calls)


def test_a_source_that_is_away_for_five_seconds_goes_on():
    living = Living(16 * 12, gone=(3.0, 8.0))
    report = living.run()
    assert report["frames"] == 16 * 12 - 80
    assert report["state"] == "ended" and "30 s" not in " ".join(report["log"])


def test_a_source_that_is_away_for_half_a_minute_is_gone():
    living = Living(16 * 60, gone=(3.0, 60.0))
    report = living.run()
    assert report["frames"] == 48
    assert "has given no picture for 30 s" in report["log"][-1]
    assert 32 < living.clock() < 36


def test_a_pause_is_no_absence():
    living = Living(16 * 45)
    times = [(42.0, False), (2.0, True)]

    def pause():
        if times and living.clock() >= times[-1][0]:
            living.session.pause(times.pop()[1])

    report = living.run(pause)
    assert report["state"] == "ended" and 16 * 4 < report["frames"] < 16 * 6


def test_stop_ends_before_the_next_call():
    living = Living(16 * 60)

    def stop():
        if len(living.calls) == 9:  # in the midst of a chunk
            living.session.stop()

    report = living.run(stop)
    assert len(living.calls) == 9
    assert "the stream was stopped" in report["log"][-1]


def test_too_much_work_drops_frames_and_keeps_the_delay():
    """Half as fast as its source: every second frame is used. `all` would fall behind."""
    even = Living(16 * 24, costs=(0.02, 0.36))
    report = even.run()
    assert report["every"] == 2 and report["dropped"] > 16 * 8
    times = [shown - captured for shown, captured, _ in even.shown]
    assert max(times[len(times) // 2 :]) < 3.5
    assert any("one frame of 2 is used" in line for line in report["log"])


class Hurried(Clock):
    """A clock that does not pace."""

    def __call__(self):
        return super().__call__() * 50


def run_threaded(living):
    """Run a session of a hurried clock with its real threads."""
    living.feed._intake.capacity = 100
    living.camera.clock = lambda: 1e9
    while living.camera.index < living.camera.count:
        living.camera()
    living.session.run()


def test_frames_are_the_same_with_threads():
    """The pictures do not depend on when they are shown."""
    alone, threaded = Living(21, policy=ALL), Living(21, clock=Hurried(), policy=ALL)
    alone.run()
    run_threaded(threaded)
    assert len(alone.shown) == 21
    assert all((one == two).all() for (_, _, one), (_, _, two) in zip(alone.shown, threaded.shown, strict=True))


def test_sampling_and_decoding_share_the_cores():
    """Each has half of them, and afterwards all are there again."""
    living, before, seen = Living(21, clock=Hurried(), policy=ALL), torch.get_num_threads(), set()
    living.session._engine = replace(living.session._engine, apart=True)
    living.player.viewers.append(lambda *_: seen.add(torch.get_num_threads()))
    torch.set_num_threads(4)
    try:
        run_threaded(living)
        assert seen == {2} and torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("where", ["viewer", "decoder"])
def test_what_goes_wrong_in_a_thread_is_raised(where):
    living = Living(21, clock=Clock())
    living.feed._intake.capacity = 100
    living.camera.clock = lambda: 1e9
    living.camera()

    def fail(*_):
        raise OSError("the disk is full")

    if where == "viewer":
        living.player.viewers[:] = [fail]
    else:
        living.session._engine.decoder.decode = fail
    with pytest.raises(OSError, match="the disk is full"):
        living.session.run()


def test_a_stream_that_goes_on_remembers_no_more(monkeypatch):
    """Neither the entries of its chunks nor prompts that are over."""
    living, held = Living(9 + 12 * 10), []
    change = Stream.change_prompts

    def watch(stream, prompts):
        change(stream, prompts)
        held.append(len(stream.prompts))

    monkeypatch.setattr(Stream, "change_prompts", watch)

    def speak():
        chunk = living.session.report()["chunks"]
        if living.session.report()["prompt"] != str(chunk):
            living.session.say(str(chunk), tiny.text(chunk).context, Change("cut"))

    living.run(speak)
    assert len(held) >= 8 and max(held) <= 2
    assert living.session._source._encoded.entries == []


def test_a_plan_with_an_end_is_refused():
    living = Living(1)
    wanted = living.session.wanted
    object.__setattr__(wanted, "plan", tiny.plan("histream", restyle=Restyle(0.8)))
    with pytest.raises(ValueError, match="without an end"):
        type(living.session)(living.engine(), wanted, living.feed, living.player, FakeClock())


def test_the_policy_even_is_the_default():
    assert Living(1).feed._intake.policy == EVEN


def test_a_source_slower_than_it_says_is_shown_evenly():
    """A camera in the dark gives half of its frames. Seen to fail with the rate that it says: a chunk, then a pause."""
    living = Living(96, fps=FPS / 2)
    living.run()
    gaps = np.diff([time for time, _, _ in living.shown])[12:]
    assert gaps.max() <= 1.5 * 2 / FPS and gaps.min() >= 0.5 * 2 / FPS


def test_a_chunk_waits_for_nothing_that_can_be_done_while_its_frames_come():
    """The clean passes of the chunk before, and its own first latent frames. Seen to fail without either."""
    living = Living(9 + 12 * 3, costs=(0.03125, 0.0))
    encoded, late = [], []
    encode = living.session._source._encoded.encode_ahead
    living.session._source._encoded.encode_ahead = lambda count: encoded.append(living.clock()) or encode(count)
    living.player.chunk_ready = lambda index, captured, complete: late.append(living.clock() - complete)
    living.run()
    assert len(living.calls) > sum(len(sigmas) for sigmas in living.sigmas.values())  # there are clean passes
    steps = [len(living.sigmas[index]) * 0.03125 for index in range(4)]
    assert late == pytest.approx(steps, abs=STEP)
    frames = [0, 4, 12, 16, 24, 28, 36, 40]
    assert encoded == pytest.approx([frame / FPS for frame in frames], abs=STEP)


@pytest.mark.parametrize("cores, device, threads", [(1, "cpu", 1), (2, "cpu", 2), (8, "cpu", 1), (2, "cuda", 1)])
def test_a_single_core_for_decoding_is_helped_by_the_other(monkeypatch, cores, device, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    assert decoding_threads(torch.device(device)) == threads
