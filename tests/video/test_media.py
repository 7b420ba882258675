"""The writer: what is in the file, what is left when a run ends badly.

Seen to fail: BT.601 instead of BT.709, fragments of a second (the kill test), writing under the final name (the
error tests), crop from the top.
"""

import errno
import os
import signal
from pathlib import Path

import pytest
import torch
from clips import VideoInfo, probe, read_frames
from forks import Child

from histream_core.video.formats import find_format
from histream_core.video.writers import VideoFile

ROOT = Path(__file__).parents[2]
H264 = find_format("h264-mp4")


def noise(num_frames, height=32, width=48, seed=0):
    return torch.rand(num_frames, height, width, 3, generator=torch.Generator().manual_seed(seed))


def plain(colour, num_frames=3, height=32, width=48):
    return torch.tensor(colour).expand(num_frames, height, width, 3)


def write(path, *clips, size=(48, 32), **kwargs):
    with VideoFile(path, H264, size=size, **kwargs) as writer:
        for clip in clips:
            writer.write(clip)


def test_a_clip_written_in_chunks_has_all_its_frames(tmp_path):
    write(tmp_path / "clip.mp4", noise(9), noise(12), noise(12), fps=16)
    assert probe(tmp_path / "clip.mp4") == VideoInfo(33, 48, 32, 16.0, "h264", "yuv420p")
    assert probe(tmp_path / "clip.mp4").seconds == 33 / 16
    assert os.listdir(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize("fps", [12, 16, 23.976, 24, 30, 60])
def test_the_rate_is_kept(tmp_path, fps):
    write(tmp_path / "clip.mp4", noise(5), fps=fps)
    assert probe(tmp_path / "clip.mp4").fps == pytest.approx(fps, rel=1e-4)


def test_frames_come_back_in_order(tmp_path):
    greys = torch.linspace(0, 1, 11).view(-1, 1, 1, 1).expand(-1, 32, 48, 3)
    write(tmp_path / "clip.mp4", greys[:4], greys[4:])
    means = [frame.mean() / 255 for frame in read_frames(tmp_path / "clip.mp4")]
    assert means == pytest.approx(greys[:, 0, 0, 0].tolist(), abs=0.01)


@pytest.mark.parametrize(
    ("colour", "yuv"),
    [((1.0, 0.0, 0.0), (63, 102, 240)), ((0.0, 1.0, 0.0), (173, 42, 26)), ((0.0, 0.0, 1.0), (32, 240, 118))],
)
def test_colours_are_stored_and_tagged_as_bt709_limited(tmp_path, colour, yuv):
    import av

    write(tmp_path / "clip.mp4", plain(colour))
    with av.open(str(tmp_path / "clip.mp4")) as container:
        context = container.streams.video[0].codec_context
        tags = context.color_primaries, context.color_trc, context.colorspace, context.color_range
        planes = next(container.decode(video=0)).to_ndarray(format="yuv420p")
    assert tags == (1, 1, 1, 1)
    stored = planes[:32].mean(), planes[32:40].mean(), planes[40:].mean()
    assert stored == pytest.approx(yuv, abs=2)
    frame = next(read_frames(tmp_path / "clip.mp4"))
    assert frame.reshape(-1, 3).mean(0) / 255 == pytest.approx(colour, abs=0.03)


def test_larger_frames_are_cropped_at_the_centre(tmp_path):
    frames = torch.zeros(2, 40, 48, 3)
    frames[:, 4:36] = 1
    write(tmp_path / "clip.mp4", frames)
    assert min(frame.min() for frame in read_frames(tmp_path / "clip.mp4")) > 240


def test_uint8_and_float_frames_are_the_same_video(tmp_path):
    frames = (noise(4) * 255).round()
    write(tmp_path / "a.mp4", frames / 255)
    write(tmp_path / "b.mp4", frames.byte().numpy())
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_killed_run_leaves_a_partial_file_that_plays_to_its_last_quarter_second(tmp_path):
    def work(_say):
        with VideoFile(tmp_path / "clip.mp4", H264, size=(48, 32)) as writer:
            for _ in range(3):
                writer.write(torch.full((10, 32, 48, 3), 0.5))
            os.kill(os.getpid(), signal.SIGKILL)

    assert Child(work).wait() == -signal.SIGKILL
    assert os.listdir(tmp_path) == ["clip.partial.mp4"]
    assert 26 <= probe(tmp_path / "clip.partial.mp4").num_frames <= 30


def test_a_stopped_run_keeps_every_frame_under_the_partial_name(tmp_path):
    with pytest.raises(KeyboardInterrupt), VideoFile(tmp_path / "clip.mp4", H264, size=(48, 32)) as writer:
        writer.write(noise(7))
        raise KeyboardInterrupt
    assert writer.kept == tmp_path / "clip.partial.mp4"
    assert os.listdir(tmp_path) == ["clip.partial.mp4"]
    assert probe(writer.kept).num_frames == 7


def test_a_run_stopped_before_its_first_frame_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), VideoFile(tmp_path / "clip.mp4", H264, size=(48, 32)):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_failed_run_leaves_nothing_and_an_older_video_untouched(tmp_path):
    write(tmp_path / "clip.mp4", noise(5))
    before = (tmp_path / "clip.mp4").read_bytes()
    with pytest.raises(RuntimeError), VideoFile(tmp_path / "clip.mp4", H264, size=(48, 32)) as writer:
        writer.write(noise(7))
        raise RuntimeError("the model failed")
    assert os.listdir(tmp_path) == ["clip.mp4"]
    assert (tmp_path / "clip.mp4").read_bytes() == before


def test_a_run_without_frames_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no frame"), VideoFile(tmp_path / "clip.mp4", H264, size=(48, 32)):
        pass
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(OSError, match="free space or choose another folder") as caught:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        try:
            write(tmp_path / "clip.mp4", noise(40))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_is_refused_before_anything_is_encoded(tmp_path):
    with pytest.raises(OSError, match="does not exist"):
        VideoFile(tmp_path / "missing" / "clip.mp4", H264, size=(48, 32))


def test_a_folder_without_permission_is_one_clear_line(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root may write anywhere, so the refusal is made here
    with pytest.raises(PermissionError, match="Permission denied; free space or choose another folder"):
        VideoFile(tmp_path / "clip.mp4", H264, size=(48, 32))


@pytest.mark.parametrize(
    ("name", "size", "fps", "message"),
    [
        ("clip.mov", (48, 32), 16, "use clip.mp4"),
        ("clip.mp4", (47, 32), 16, "use 46 or 48"),
        ("clip.mp4", (48, 0), 16, "height 0"),
        ("clip.mp4", (48, 32), 0, "use 16"),
    ],
)
def test_what_cannot_be_written_is_refused_at_the_door(tmp_path, name, size, fps, message):
    with pytest.raises(ValueError, match=message):
        VideoFile(tmp_path / name, H264, size=size, fps=fps)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("frames", [noise(2)[..., :2], noise(2)[0], noise(2, height=16), noise(2).numpy()])
def test_frames_that_do_not_fit_are_refused_and_leave_nothing(tmp_path, frames):
    with pytest.raises(ValueError, match="frames"):
        write(tmp_path / "clip.mp4", noise(2), frames)
    assert os.listdir(tmp_path) == []


def test_what_is_not_a_video_is_said_to_be_none(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"hello" * 100)
    with pytest.raises(ValueError, match="not a video"):
        probe(tmp_path / "clip.mp4")
    with pytest.raises(OSError):
        probe(tmp_path / "missing.mp4")
