"""Words for size and place: what they say of frame 0, and that different words are different pictures."""

import pytest
import torch

from histream_core.demo.painter import DIRECTIONS, SPEED, Combination
from histream_core.demo.scene_painter import View, cut_out
from histream_core.demo.scenes import MOTIONS, ROUND, SENTENCES, SWELL, THINGS, Scene
from histream_core.demo.sentence import scene_of
from histream_core.demo.staging import ALONG, along, staging_of, stagings, tell
from histream_core.demo.words import STAGING_WORDS, TEXT_TOKENS, VOCABULARY, tokenize, unknown_words

CLIPS = [*(Scene("cat", "meadow", motion) for motion in MOTIONS), Combination("circle", "red", "blue", "up")]


@pytest.mark.parametrize("clip", CLIPS, ids=str)
def test_all_words_of_a_clip_are_other_stagings(clip):
    """Seen to fail with one height for high and low."""
    told = [(*words, place) if place else words for words in stagings(clip) for place in along(clip)]
    assert len({staging_of(clip, words) for words in told}) == len(told) == (12 if isinstance(clip, Combination) else
        36 if clip.motion in ALONG else 9 if clip.motion == "bounces" else 27)  # fmt: skip
    assert {word for words in told for word in words} <= {*STAGING_WORDS}


@pytest.mark.parametrize("direction", ALONG)
def test_places_along_the_way_are_passed_in_their_order(direction):
    """A quarter of a round later a clip is where the next begins. Seen to fail with west and east exchanged."""
    clip, quarter = Scene("dog", "sea", direction), ROUND / 4 * SPEED
    starts = [staging_of(clip, (word,)).start for word in along(clip)]
    for number, start in enumerate(starts):
        after = [(place + step * quarter) % 1 for place, step in zip(start, DIRECTIONS[direction], strict=True)]
        assert after == pytest.approx(starts[(number + 1) % 4])
    sides = {"west": (0.25, 0.5), "east": (0.75, 0.5), "high": (0.5, 0.25), "low": (0.5, 0.75)}
    assert all(start == pytest.approx(sides.get(word, start)) for word, start in zip(along(clip), starts, strict=True))


@pytest.mark.parametrize("motion", [motion for motion in MOTIONS if motion not in DIRECTIONS])
def test_a_thing_that_goes_nowhere_stays_within_the_frame(motion):
    """Seen to fail with more aside than there is room."""
    picture = torch.ones(4, 16, 16)
    for words in stagings(clip := Scene("ball", "sea", motion)):
        cut = cut_out(clip, range(0, ROUND, 4), picture, staging_of(clip, words), View(64))
        ring = torch.cat([cut[:, 3, 0], cut[:, 3, -1], cut[:, 3, :, 0], cut[:, 3, :, -1]], dim=1)
        corners = motion == "turns"  # of a square picture; things are rounder
        assert corners or float(ring.max()) < 1, words
        staging = staging_of(clip, words)
        room = staging.width / 2 * (1 + SWELL if motion == "grows" else 1)
        assert room <= staging.start[0] + 1e-9 <= 1 - room + 2e-9


def test_captions_with_words_are_read_by_painter_and_encoder():
    """All words become tokens, in time. Seen to fail with a size behind the thing."""
    for thing in THINGS:
        clip = Scene(thing, "meadow", "right")
        for sentence in SENTENCES:
            caption = clip.caption(tell(sentence, ("small", "high", "west")))
            assert f"small {thing}" in caption and scene_of(caption) == clip
            assert not unknown_words(caption, VOCABULARY)
            assert len(tokenize(caption, VOCABULARY)) == 7 < TEXT_TOKENS
    assert tell("", ("small",)) == "" and tell(SENTENCES[0], ()) == SENTENCES[0]
