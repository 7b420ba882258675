"""Demo Video inside a real ComfyUI: a painted clip as a VIDEO."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import read_frames


@pytest.fixture
def temp(comfyui, tmp_path):
    """The host's temp folder, for one test."""
    import folder_paths

    before = folder_paths.get_temp_directory()
    folder_paths.set_temp_directory(str(tmp_path / "temp"))
    yield tmp_path / "temp"
    folder_paths.set_temp_directory(before)


@pytest.fixture
def paint(pack, temp):
    return lambda *args, **options: pack.part("nodes.video.demo_video").DemoVideo.execute(*args, **options)


def test_the_clip_is_the_painters_in_a_file_of_the_temp_folder(pack, paint, temp):
    """Seen to fail with times that begin anew in every sixteen frames."""
    made = paint("a green square moves down on a white background", 2.5)
    video = made.result[0]
    assert (video.get_frame_count(), video.get_frame_rate(), video.get_dimensions()) == (40, 16, (256, 256))
    assert video.get_stream_source() == str(temp / "histream_demo_video_00001_.mp4")
    painter = pack.part("histream_core.demo.painter")
    wanted = painter.paint(
        painter.Combination("square", "green", "white", "down"), range(40), start=(0.5, 0.3), training=False
    )
    got = np.stack(list(read_frames(video.get_stream_source()))) / 255
    assert np.abs(got - wanted).mean() < 0.01
    shown = made.ui.as_dict()["images"]
    assert [(file["filename"], file["type"]) for file in shown] == [("histream_demo_video_00001_.mp4", "temp")]


def test_another_rate_has_other_frames_of_the_same_motion(paint):
    """Seen to fail with the number of a frame as its time."""
    slow, fast = (paint("a red circle moves right on a blue background", 1, fps=fps).result[0] for fps in (12, 23.976))
    assert [video.get_frame_rate() for video in (slow, fast)] == [12, Fraction(24000, 1001)]
    slow, fast = ([frame.astype(float) for frame in read_frames(video.get_stream_source())] for video in (slow, fast))
    assert (len(slow), len(fast)) == (12, 24)
    assert np.abs(slow[6] - fast[12]).mean() < 1


def test_each_clip_is_a_file_of_its_own_and_equal_words_give_equal_bytes(paint):
    """A kept run knows its source again after a restart. Seen to fail with one name for all."""
    sentences = ("a red circle moves up on black", "a blue circle moves up on black", "a red circle moves up on black")
    paths = [paint(sentence, 0.5).result[0].get_stream_source() for sentence in sentences]
    first, other, again = (Path(path).read_bytes() for path in paths)
    assert len({*paths}) == 3
    assert first == again != other


@pytest.mark.parametrize("text", ["a red dragon moves right on a blue background", "a red circle", ""])
def test_a_text_that_the_painter_does_not_know_is_one_sentence_and_no_file(paint, temp, text):
    with pytest.raises(ValueError, match="write 'a red circle moves right on a blue background'") as error:
        paint(text, 1)
    assert "\n" not in str(error.value)
    assert not list(temp.glob("*"))
