"""Reading ranges out of files that others wrote: frames stored out of order, uneven times, turned pictures.

Seen to fail: no margin for frames that are stored before their time, frames numbered without looking for gaps, a file
that does not begin at zero, turned pictures left lying.
"""

import io
import itertools
import shutil
import struct
from fractions import Fraction

import numpy as np
import pytest
import torch
from slow import slow

from histream_core.video.formats import find_format
from histream_core.video.reading import frames_of, index_video, unit_frame
from histream_core.video.writers import open_writer

NUM_FRAMES = 60


def others(path, *, times=range(NUM_FRAMES), **options):
    """A file as other programs write it: frames that refer to later ones, key frames every 20."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"bf": "4", "g": "20", "crf": "4"} | options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        generator = np.random.default_rng(0)
        for index, time in enumerate(times):
            picture = generator.integers(0, 60, (48, 64, 3), np.uint8) + np.uint8(3 * index)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("options", [slow({}), {"x264-params": "open-gop=1:b-pyramid=normal"}], ids=["closed", "open"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts"])
def test_any_range_of_a_file_of_others_is_that_range(tmp_path, suffix, options):
    path = others(tmp_path / f"clip{suffix}", **options)
    every = list(frames_of(path))
    assert len(every) == index_video(path).num_frames == NUM_FRAMES
    for start in range(0, NUM_FRAMES, 3):
        for got, wanted in zip(frames_of(path, start, 2), every[start : start + 2], strict=start < NUM_FRAMES - 1):
            assert torch.equal(got, wanted), start


def test_frames_that_are_not_evenly_spaced_are_refused_where_they_are_read(tmp_path):
    path = others(tmp_path / "clip.mp4", times=[*range(30), *range(31, NUM_FRAMES + 1)])
    with pytest.raises(ValueError, match=r"no frame where frame 30 should be.*convert it to a constant frame rate"):
        index_video(path)
    for start, count in ((0, None), (28, 4), (30, 2)):
        with pytest.raises(ValueError, match="no frame where frame 30 should be"):
            list(frames_of(path, start, count))
    assert len(list(frames_of(path, 20, 10))) == 10


def test_a_video_in_memory_is_read_like_its_file(tmp_path):
    path = others(tmp_path / "clip.mp4")
    memory = io.BytesIO(path.read_bytes())
    assert index_video(memory) == index_video(path)
    for got, wanted in zip(frames_of(memory, 33, 4), frames_of(path, 33, 4), strict=True):
        assert torch.equal(got, wanted)
    with pytest.raises(ValueError, match="the video in memory is not a video that can be read"):
        index_video(io.BytesIO(b"hello" * 100))


def test_a_video_is_known_by_its_frames_and_not_by_its_name(tmp_path):
    path = others(tmp_path / "clip.mp4")
    other = others(tmp_path / "other.mp4", crf="5")
    shutil.copy(path, tmp_path / "copy.mp4")
    assert index_video(tmp_path / "copy.mp4") == index_video(path)
    assert index_video(other).digest != index_video(path).digest


@pytest.mark.parametrize(
    ("start", "seconds", "wanted"),
    [
        (0, 0, range(60)),
        (0.5, 0, range(12, 60)),
        (0.49, 0.52, range(12, 25)),
        (2, 9, range(48, 60)),
        (3, 0, range(0)),
    ],
)
def test_a_time_window_is_the_frames_that_begin_in_it(tmp_path, start, seconds, wanted):
    found = index_video(others(tmp_path / "clip.mp4")).within(start, seconds)
    assert list(found) == list(wanted)


def test_the_rate_of_film_is_a_fraction(tmp_path):
    for name in ("h264-mp4", "h265-mkv", "prores-422hq"):
        known = find_format(name)
        with open_writer(tmp_path / f"clip{known.suffix}", known, size=(64, 48), fps=23.976) as writer:
            writer.write(torch.zeros(30, 48, 64, 3))
        assert index_video(tmp_path / f"clip{known.suffix}").rate == Fraction(24000, 1001)


def test_a_picture_that_was_filmed_upright_stands_upright(tmp_path):
    """A quarter turn is written into the header, as telephones do."""
    path = tmp_path / "clip.mp4"
    frames = torch.rand(2, 48, 64, 3, generator=torch.Generator().manual_seed(0))
    with open_writer(path, find_format("h264-mp4"), size=(64, 48)) as writer:
        writer.write(frames)
    lying = list(frames_of(path))
    data = bytearray(path.read_bytes())
    matrix = data.rindex(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", data[matrix : matrix + 36])[::4] == (1 << 16, 1 << 16, 1 << 30)
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    upright = list(frames_of(path))
    assert upright[0].shape == (64, 48, 3)
    for turned, before in itertools.zip_longest(upright, lying):
        assert torch.equal(turned, before.rot90(-1, (0, 1)))  # clockwise: what lay on its left side is up


@pytest.mark.parametrize(("code", "red", "blue"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (9, 0.2627, 0.0593)])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le", "nv12"])
def test_colours_are_those_of_the_matrix_that_the_file_names(code, red, blue, pixels):
    """BT.709, BT.601 and BT.2020. Seen to fail where BT.2020 is read as BT.709: by 0.06 in green."""
    import av

    colour = np.array([0.9, 0.25, 0.1])
    luma = red * colour[0] + (1 - red - blue) * colour[1] + blue * colour[2]
    chroma = (colour[[2, 0]] - luma) / (2 - 2 * np.array([blue, red]))
    values = [16 + 219 * luma, *(128 + 224 * chroma)]
    frame = av.VideoFrame(32, 32, pixels)
    frame.colorspace, frame.color_range = code, 1
    for plane, value in zip(frame.planes, [values[:1], values[1:]] if pixels == "nv12" else values, strict=True):
        kind, scale = ("<u2", 4) if "10" in pixels else ("u1", 1)
        row = np.resize(np.round(np.atleast_1d(value) * scale).astype(kind), plane.line_size // np.dtype(kind).itemsize)
        plane.update(np.tile(row, plane.height).tobytes())
    found = unit_frame(frame)
    assert (found - torch.from_numpy(colour).float()).abs().max() < 0.015


def test_frames_that_a_cut_without_encoding_hides_are_not_counted(tmp_path):
    """Phones and editors cut the beginning off by hiding it: ten frames are in the file and never shown."""
    import av

    path = others(tmp_path / "clip.mp4")
    with av.open(str(path)) as whole, av.open(str(tmp_path / "cut.mp4"), "w") as cut:
        stream = cut.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = (time - round(10 / 24 / packet.time_base) for time in (packet.pts, packet.dts))
                packet.stream = stream
                cut.mux_one(packet)
    every = list(frames_of(path))
    assert index_video(tmp_path / "cut.mp4").num_frames == NUM_FRAMES - 10
    for start in (0, 7, 30):
        for got, wanted in zip(frames_of(tmp_path / "cut.mp4", start, 3), every[10 + start :][:3], strict=True):
            assert torch.equal(got, wanted)
