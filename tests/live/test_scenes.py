"""A live stream whose source goes away, pauses or is back: scenes and recordings; and prompts that come meanwhile."""

import numpy as np
import pytest
import tiny
from clips import probe
from tiny_live import FPS, After, Living, recorders

from histream_core.stream.timeline import Change
from histream_core.video.reading import frames_of

DOG = tiny.text(5).context


def frames(living):
    return [frame for _, _, frame in living.shown]


def test_a_chunk_after_an_absence_is_the_first_chunk_of_a_fresh_stream():
    """Every frame of the scene, bit for bit: latents, noise, positions and decoding; only the clock goes on.

    The fresh stream has the prompt from its beginning that the other one was going over to.
    """
    away = Living(16 * 12, gone=(3.0, 8.0))
    report = away.run(After(away, 3, lambda: away.session.say("a dog", DOG)))
    fresh = Living(16 * 12)
    fresh.camera.index = 8 * FPS
    fresh.session.say("a dog", DOG)
    fresh.run()
    scene = frames(away)[48:]
    assert len(scene) == 64 == len(frames(fresh))
    assert all(np.array_equal(*pair) for pair in zip(scene, frames(fresh), strict=True))
    assert any("a scene begins at chunk 5" in line for line in report["log"])
    assert report["prompt"] == "a dog"


def test_the_frames_before_an_absence_are_shown_without_waiting_for_its_end():
    living = Living(16 * 12, gone=(3.0, 8.0))
    living.run()
    shown = [time for time, captured, _ in living.shown if captured < 3.0]
    assert len(shown) == 48 and shown[-1] < 6.0


def test_a_pause_begins_a_scene_and_the_picture_goes_on():
    living, times = Living(16 * 12), [(8.0, False), (4.0, True)]

    def pause():
        if times and living.clock() >= times[-1][0]:
            living.session.pause(times.pop()[1])

    report = living.run(pause)
    assert sum("a scene begins" in line for line in report["log"]) == 1
    captured = [time for _, time, _ in living.shown]
    assert captured == sorted(captured) and not any(4.1 < time < 7.9 for time in captured) and captured[-1] > 11


@pytest.mark.parametrize(("gone", "shown"), [((3.0, 8.0), 48 + 64), ((3.0, 34.5), 48)])
def test_the_recording_of_a_source_that_was_away_plays(tmp_path, gone, shown):
    """Away for 5 s: the recording holds the last frame for a second and goes on. For 31 s: it ends, and is whole."""
    living = Living(round(16 * (gone[1] + 4)), gone=gone)
    recorders(living, tmp_path)
    living.session.record(True)
    report = living.run()
    assert report["frames"] == shown and report["recordings"] == ["one.mkv"]
    ended = "has given no picture for 30 s" in " ".join(report["log"])
    assert ended is (gone[1] == 34.5)
    recorded = [frame.numpy() for frame in frames_of(tmp_path / "one.mkv")]
    held = 0 if ended else FPS
    assert len(recorded) == shown + held == probe(tmp_path / "one.mkv").num_frames
    first, last = (np.rint(frame * 255) for frame in (recorded[0], recorded[-1]))
    assert np.abs(first - frames(living)[0]).max() <= 1 and np.abs(last - frames(living)[-1]).max() <= 1


def chunk_of(frame):
    """The chunk that a frame of a stream without scenes belongs to."""
    return max(0, (frame + 3) // 12)


def test_prompts_leave_the_chunks_before_them_as_they_were_and_are_whole_after_three():
    """L16, for three prompts that are said while the stream runs."""
    plain, spoken = Living(9 + 12 * 9), Living(9 + 12 * 9)
    plain.run()
    texts = {at: tiny.text(at).context for at in (1, 4, 7)}
    said = [After(spoken, at, lambda at=at: spoken.session.say(str(at), texts[at])) for at in texts]
    report = spoken.run(*said)
    begun = [int(line.split("begins at chunk ")[1].split(",")[0]) for line in report["log"] if "begins at" in line]
    assert begun == [1, 4, 7]
    same = [np.array_equal(*pair) for pair in zip(frames(plain), frames(spoken), strict=True)]
    assert same == [chunk_of(frame) < 1 for frame in range(len(same))]
    for at, text in texts.items():
        of = [chunk.context for chunk in spoken.texts[at + 2]]
        assert all(found.equal(text) for found in of) and not any(
            found.context.equal(text) for found in spoken.texts[at]
        )


def test_a_cue_that_is_a_scene_begins_one():
    """Its first chunk is that of a fresh stream under the new prompt. Seen to fail where it is a cut."""
    living = Living(9 + 12 * 6)
    said = After(living, 3, lambda: living.session.say("a dog", DOG, Change("scene")))
    report = living.run(said)
    [line] = [line for line in report["log"] if "a scene begins at chunk" in line]
    chunk = int(line.rsplit(" ", 1)[1])
    assert any(f'"a dog" begins at chunk {chunk}, at once' in line for line in report["log"])
    assert all(text.context.equal(DOG) for text in living.texts[chunk])
    assert not any(text.context.equal(DOG) for text in living.texts[chunk - 1])


def test_a_cut_is_whole_in_its_first_chunk():
    living = Living(9 + 12 * 3)
    living.run(After(living, 2, lambda: living.session.say("a dog", DOG, Change("cut"))))
    assert all(text.context.equal(DOG) for text in living.texts[2])
