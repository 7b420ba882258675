"""Times of other people's files: containers that cannot seek or hold no times, and rates that a container rounds.

Each list takes the next file as one line more.
"""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from clips import clip

from histream_core.video.reading import frames_of, index_video

NUM_FRAMES = 40
FILM, NTSC, DOUBLE = Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001)

FILES = {
    # encoder and B-frames
    "h264.avi": ("libx264", 2),
    "h264-in-order.avi": ("libx264", 0),
    "xvid.avi": ("mpeg4", 2),
    "divx.avi": ("mpeg4", 0),
    "motion-jpeg.avi": ("mjpeg", 0),
    "ffv1.avi": ("ffv1", 0),
    "h264.flv": ("libx264", 2),
    "sorenson.flv": ("flv1", 0),
    "h264.ts": ("libx264", 2),
    "mpeg2.ts": ("mpeg2video", 2),
    "mpeg2.mpg": ("mpeg2video", 2),
    "mpeg1.mpg": ("mpeg1video", 0),
    "stream.m2v": ("mpeg2video", 2),
    "stream.m4v": ("mpeg4", 0),
    "mpeg4.mp4": ("mpeg4", 2),
    "h264.mkv": ("libx264", 2),
    "vp8.webm": ("libvpx", 0),
    "vp8.ivf": ("libvpx", 0),
    "windows.wmv": ("wmv2", 0),
    "mpeg2.mxf": ("mpeg2video", 2),
    "h264.nut": ("libx264", 2),
    "mpeg4.3gp": ("mpeg4", 0),
}


def written(path, codec, rate, *, count=NUM_FRAMES, b_frames=2, **options):
    """A clip that grows lighter, by another program's encoder, with a key frame every twelve."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.max_b_frames, stream.codec_context.gop_size = b_frames, 12
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 + 5 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", FILES)
def test_ranges_are_those_of_the_whole_in_every_container(tmp_path, name):
    """Seen to fail: AVI, FLV, IVF cannot seek before their first frame; AVI and MPEG hold no times of B-frames."""
    codec, b_frames = FILES[name]
    path = written(tmp_path / name, codec, NTSC, b_frames=b_frames)
    every, index = list(frames_of(path)), index_video(path)
    assert (len(every), index.num_frames, index.rate) == (NUM_FRAMES, NUM_FRAMES, NTSC)
    levels = [float(frame.mean()) for frame in every]
    assert levels == sorted(levels) and levels[-1] - levels[0] > 0.6
    for start in (0, 1, 7, 13, 30, 38):
        for got, wanted in zip(frames_of(path, start, 2), every[start : start + 2], strict=True):
            assert torch.equal(got, wanted), start
    assert list(index.within(0)) == list(range(NUM_FRAMES))


RATES = [Fraction(12000, 1001), FILM, NTSC, Fraction(48000, 1001), DOUBLE, Fraction(120000, 1001)]
RATES += [Fraction(rate) for rate in (12.5, 15, 16, 24, 25, 30, 50, 60, 120, 144)]


@pytest.mark.parametrize("rate", RATES, ids=str)
def test_a_rate_is_exact_where_times_are_milliseconds(tmp_path, rate):
    """Seen to fail with 60000/1001 from Matroska, which was read as 19001/317."""
    path = written(tmp_path / "clip.mkv", "libx264", rate, count=30, b_frames=0, preset="ultrafast")
    assert index_video(path).rate == rate
    assert len(list(frames_of(path))) == 30


@pytest.mark.parametrize("rate", [Fraction(120000, 1001), Fraction(240000, 1001), Fraction(120)], ids=str)
@pytest.mark.parametrize("name", ["clip.ts", "clip.flv", "clip.mp4"])
def test_a_rate_of_many_frames_is_the_one_that_was_written(tmp_path, name, rate):
    """Seen to fail with 120 for 119.88, by which a longer clip was refused: its rate is not constant."""
    path = written(tmp_path / name, "libx264", rate, count=30, b_frames=0, preset="ultrafast")
    assert index_video(path).rate == rate
    assert len(list(frames_of(path))) == 30


@pytest.mark.parametrize("rate", [Fraction(2997, 50), Fraction(5994, 100), Fraction(2398, 100), Fraction(17)], ids=str)
def test_a_rate_near_one_of_television_that_is_exact_stays(tmp_path, rate):
    assert index_video(written(tmp_path / "clip.mp4", "mpeg4", rate, b_frames=0)).rate == rate


@pytest.mark.parametrize(("codec", "b_frames"), [("mpeg4", 0), ("mpeg4", 2), ("ffv1", 0)])
def test_a_frame_that_is_missing_in_an_avi_is_the_one_before_it_again(tmp_path, codec, b_frames):
    """Programs write nothing for a frame that does not change. Seen to fail, for its rate: it is constant."""
    path = written(tmp_path / "clip.avi", codec, 25, b_frames=b_frames)
    with av.open(str(path)) as source, av.open(str(tmp_path / "gaps.avi"), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.dts += 3 * (packet.dts >= 24)
                packet.pts = packet.dts
                packet.stream = stream
                copy.mux_one(packet)
    every, found = list(frames_of(path)), list(frames_of(tmp_path / "gaps.avi"))
    assert index_video(tmp_path / "gaps.avi").num_frames == len(found) == NUM_FRAMES + 3
    for got, wanted in zip(found, [*every[:24], *[every[23]] * 3, *every[24:]], strict=True):
        assert torch.equal(got, wanted)
    for start in (20, 24, 25, 26, 27):
        for got, wanted in zip(frames_of(tmp_path / "gaps.avi", start, 4), found[start : start + 4], strict=True):
            assert torch.equal(got, wanted), start


def test_a_video_that_is_too_short_is_told_with_its_own_length(tmp_path):
    """Seen to fail with the number that was asked for."""
    path = clip(tmp_path, 5)
    for start, count in ((7, 2), (4, 2), (5, 1)):
        with pytest.raises(ValueError, match=rf"has 5 frames: ask for fewer than {count} from {start} on"):
            list(frames_of(path, start, count))
