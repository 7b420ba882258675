"""Every format: written, looked at with the library's own demuxer and decoders, and compared with the frames.

Seen to fail: limited range read as full, chroma between the columns, ProRes 4444 tagged as 422, segments joined
without their offset, a muxer that writes the time of day, rows of EXR not taken apart, no crop.
"""

import dataclasses
import hashlib
import itertools
import os
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import psnr, shapes
from sounds import RATE, sound_file, sound_packets

from histream_core.files.disk import write_whole
from histream_core.video.container import join
from histream_core.video.exr import to_linear
from histream_core.video.formats import FORMATS, NAMES, find_format
from histream_core.video.pixels import picture_of, pictures_of, planes_of, quantise
from histream_core.video.reading import frames_of
from histream_core.video.space import check_space
from histream_core.video.writers import PictureFolder, Segments, frame_rate, open_writer

WIDTH, HEIGHT = 128, 96

FILES = [known for known in FORMATS if not known.is_sequence]
FOLDERS = [known for known in FORMATS if known.is_sequence]
LEAST_PSNR = {"h264-mp4": 40, "h265-mkv": 39, "av1-mkv": 38, "prores-422hq": 45, "prores-4444": 60, "dnxhr": 48}


def label(known):
    return f"{known.name}-{known.depth}"


def size_of(known):
    return max(WIDTH, known.smallest[0]), max(HEIGHT, known.smallest[1])


def clip(known, num_frames=7):
    width, height = size_of(known)
    return shapes(num_frames, height, width)


def write(path, known, *parts, **kwargs):
    with open_writer(path, known, size=kwargs.pop("size", size_of(known)), **kwargs) as writer:
        for part in parts:
            writer.write(part)
    return writer.finished


def all_frames(path):
    return torch.stack(list(frames_of(path)))


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.parametrize("known", FILES, ids=label)
def test_a_file_holds_what_was_asked_for(tmp_path, known):
    import av

    frames = clip(known)
    (path,) = write(
        tmp_path / f"clip{known.suffix}", known, frames[:3], frames[3:], fps=24, metadata={"prompt": '{"text": "ä"}'}
    )
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        tags = context.color_primaries, context.color_trc, context.colorspace
        metadata = {key.lower(): value for key, value in container.metadata.items()}
        decoded = list(container.decode(stream))
    assert len(decoded) == 7
    assert stream.average_rate == 24
    assert [round(frame.time * 24) for frame in decoded] == list(range(7))
    stored = "yuv444p12le" if known.name == "prores-4444" else known.pixels  # the decoder gives ProRes 4444 as 12 bits
    assert decoded[0].format.name == stored
    assert decoded[0].format.components[0].bits == (12 if known.name == "prores-4444" else known.depth)
    assert (decoded[0].width, decoded[0].height) == size_of(known)
    assert tags == ((1, 1, 0) if known.is_rgb else (1, 1, 1))
    assert decoded[0].color_range == (2 if known.is_rgb else 1)
    assert all(frame.key_frame for frame in decoded) == known.intra
    assert metadata["prompt"] == '{"text": "ä"}'
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("known", FILES, ids=label)
def test_the_frames_come_back(tmp_path, known):
    frames = clip(known)
    (path,) = write(tmp_path / f"clip{known.suffix}", known, frames)
    got = all_frames(path)
    if known.name not in LEAST_PSNR:
        top = 2**known.depth - 1
        assert torch.equal((got * top).round(), torch.from_numpy(quantise(frames.numpy(), known.depth).astype("f4")))
    else:
        assert psnr(got, frames) >= LEAST_PSNR[known.name]


@pytest.mark.parametrize("name", ["prores-422hq", "prores-4444", "dnxhr"])
def test_editing_formats_lose_next_to_nothing_of_what_they_store(tmp_path, name):
    import av

    known = find_format(name)
    frames = shapes(3, 128, 256)
    (path,) = write(tmp_path / "clip.mov", known, frames, size=(256, 128))
    with av.open(str(path)) as container:
        for frame, picture in zip(container.decode(video=0), frames.numpy(), strict=True):
            bits = frame.format.components[0].bits
            for plane, expected in zip(frame.planes, planes_of(picture, known.pixels, 10), strict=True):
                got = np.frombuffer(plane, "<u2").reshape(plane.height, -1)[:, : plane.width] / 2 ** (bits - 10)
                assert 10 * np.log10(1023**2 / np.mean((got - expected) ** 2)) > 60


@pytest.mark.parametrize("known", FILES, ids=label)
def test_joined_segments_are_all_frames_once_and_the_same_pixels(tmp_path, known):
    frames = clip(known, 8)
    with Segments(tmp_path / "parts", known, size=size_of(known), fps=30) as segments:
        for part in (frames[:3], frames[3:4], frames[4:]):
            segments.write(part)
    assert [path.name for path in segments.finished] == [f"seg-0000{index}{known.suffix}" for index in range(3)]
    target = tmp_path / f"all{known.suffix}"
    assert join(segments.finished, target, known, metadata={"prompt": "p"}) == 8
    assert torch.equal(all_frames(target), torch.cat([all_frames(path) for path in segments.finished]))
    assert sorted(os.listdir(tmp_path)) == sorted([target.name, "parts"])
    if known.intra:
        (whole,) = write(tmp_path / f"whole{known.suffix}", known, frames, fps=30, metadata={"prompt": "p"})
        assert digest(whole) == digest(target)


@pytest.mark.parametrize("known", [*FILES, *FOLDERS], ids=label)
def test_the_same_frames_give_the_same_bytes(tmp_path, known):
    frames = clip(known, 5)
    runs = []
    for name, parts in (("a", (frames,)), ("b", (frames[:2], frames[2:]))):
        (tmp_path / name).mkdir()
        finished = write(tmp_path / name / f"clip{known.suffix if not known.is_sequence else ''}", known, *parts)
        runs.append([(path.name, digest(path)) for path in finished])
    assert runs[0] == runs[1]


def exr_values(frame):
    kind = {"gbrpf16le": "<f2", "gbrpf32le": "<f4"}[frame.format.name]  # older decoders widen half floats
    planes = [np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes]
    green, blue, red = planes
    return np.stack([red, green, blue], axis=-1).astype(np.float16)


@pytest.mark.parametrize("known", FOLDERS, ids=label)
def test_a_folder_holds_a_picture_for_each_frame(tmp_path, known):
    import av

    frames = clip(known, 3)
    size, folder = (WIDTH, HEIGHT - 8), tmp_path / "shot"
    with PictureFolder(folder, known, size=size, fps=23.976, first_frame=7) as writer:
        writer.write(frames[:1])
        writer.write(frames[1:])
    finished = writer.finished
    assert [path.name for path in finished] == [f"shot.0000{index}{known.suffix}" for index in (7, 8, 9)]
    assert sorted(finished) == sorted((tmp_path / "shot").iterdir())
    for path, picture in zip(finished, frames[:, 4:-4].numpy(), strict=True):
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
        assert (frame.width, frame.height) == (WIDTH, HEIGHT - 8)
        if known.codec == "png":
            assert frame.format.name == known.pixels
            assert np.array_equal(frame.to_ndarray(), quantise(picture, known.depth))
        else:
            expected = (to_linear(picture) if known.linear else picture).astype(np.float16)
            assert np.array_equal(exr_values(frame), expected)


def test_an_exr_says_what_its_numbers_mean(tmp_path):
    for name, tag in (("exr", b"lin_rec709_scene"), ("exr-srgb", b"srgb_rec709_display")):
        known = find_format(name)
        (path,) = write(tmp_path / name, known, clip(known, 1), fps=23.976, metadata={"prompt": "a fox"})
        data = path.read_bytes()
        assert data[:8] == struct.pack("<ii", 20000630, 2)
        assert b"compression\0compression\0\1\0\0\0\3" in data
        assert b"chromaticities\0chromaticities\0" + struct.pack("<i2f", 32, 0.64, 0.33) in data
        assert b"framesPerSecond\0rational\0" + struct.pack("<iiI", 8, 24000, 1001) in data
        assert tag in data and b"prompt\0string\0\5\0\0\0a fox" in data


def test_an_exr_of_noise_is_stored_as_it_is(tmp_path):
    import av

    noise = torch.rand(1, 37, 19, 3, generator=torch.Generator().manual_seed(0))
    (path,) = write(tmp_path / "noise", find_format("exr-srgb"), noise, size=(19, 37))
    with av.open(str(path)) as container:
        got = exr_values(next(container.decode(video=0)))
    assert np.array_equal(got, noise[0].numpy().astype(np.float16))


@pytest.mark.parametrize(
    ("name", "how"), list(itertools.product(["h264-mp4", "prores-422hq", "ffv1"], ["written", "joined"]))
)
def test_sound_is_copied_as_far_as_the_pictures_go(tmp_path, name, how):
    known, target = find_format(name), tmp_path / f"clip{find_format(name).suffix}"
    sound = sound_file(tmp_path / "sound.m4a", 3)
    frames = clip(known, 16)
    if how == "written":
        write(target, known, frames, fps=16, sound=sound)
    else:
        with Segments(tmp_path / "parts", known, size=size_of(known), fps=16) as segments:
            segments.write(frames[:9])
            segments.write(frames[9:])
        join(segments.finished, target, known, sound=sound)
    copied = sound_packets(target)
    assert [data for data, _ in copied] == [data for data, _ in sound_packets(sound)][: len(copied)]
    assert 1 - 1024 / RATE <= copied[-1][1] < 1
    assert len(all_frames(target)) == 16


def test_sound_that_cannot_be_copied_is_refused_and_leaves_nothing(tmp_path):
    frames = clip(find_format("h264-mp4"), 2)
    (mute,) = write(tmp_path / "mute.mp4", find_format("h264-mp4"), frames)
    with pytest.raises(ValueError, match="holds no sound"):
        write(tmp_path / "clip.mp4", find_format("h264-mp4"), frames, sound=mute)
    with pytest.raises(ValueError, match="png8 is a folder of pictures and holds no sound"):
        write(tmp_path / "shot", find_format("png8"), frames, sound=mute)
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "clip.mp4", find_format("h264-mp4"), frames, sound=tmp_path / "none.m4a")
    assert os.listdir(tmp_path) == ["mute.mp4"]


def test_segments_that_do_not_fit_together_are_refused_and_nothing_is_left(tmp_path):
    known = find_format("ffv1")
    for name, depth, fps in (("a", 10, 16), ("b", 8, 16), ("c", 10, 24)):
        write(tmp_path / f"{name}.mkv", find_format("ffv1", depth), clip(known, 2), fps=fps)
    (tmp_path / "d.mkv").write_bytes(b"nothing")
    for other in "bc":
        with pytest.raises(ValueError, match=f"{other}.mkv was not written with the settings of a.mkv"):
            join([tmp_path / "a.mkv", tmp_path / f"{other}.mkv"], tmp_path / "all.mkv", known)
    with pytest.raises(ValueError, match=r"d.mkv is not a video that can be read"):
        join([tmp_path / "a.mkv", tmp_path / "d.mkv"], tmp_path / "all.mkv", known)
    with pytest.raises(ValueError, match=r"b.mkv was not written as ffv1, 10 bits"):
        join([tmp_path / "b.mkv"], tmp_path / "all.mkv", known)
    with pytest.raises(ValueError, match=r"a.mkv has 2 frames where 3 should be: remove it and write it again"):
        join([tmp_path / "a.mkv", tmp_path / "a.mkv"], tmp_path / "all.mkv", known, lengths=[2, 3])
    with pytest.raises(ValueError, match="no segment to join"):
        join([], tmp_path / "all.mkv", known)
    assert sorted(os.listdir(tmp_path)) == ["a.mkv", "b.mkv", "c.mkv", "d.mkv"]


def test_every_call_is_a_segment_numbered_from_the_first(tmp_path):
    known = find_format("ffv1", 8)
    frames = clip(known, 5)
    with Segments(tmp_path / "parts", known, size=size_of(known), first=4) as segments:
        for part in (frames[:2], frames[2:3], frames[3:]):
            segments.write(part)
    names = {path.name: len(all_frames(path)) for path in segments.finished}
    assert names == {"seg-00004.mkv": 2, "seg-00005.mkv": 1, "seg-00006.mkv": 2}


def test_colour_goes_to_video_and_back():
    picture = torch.rand(1, 8, 12, 3, generator=torch.Generator().manual_seed(1))
    (picture,) = pictures_of(picture, (12, 8))
    back = picture_of(planes_of(picture, "yuv444p10le", 10), 10, limited=True, weights=(0.2126, 0.0722))
    assert np.abs(back - picture).max() < 0.003
    flat = np.broadcast_to(np.array([0.9, 0.2, 0.4], np.float32), (8, 12, 3))
    for pixels in ("yuv420p10le", "yuv422p10le"):
        back = picture_of(planes_of(flat, pixels, 10), 10, limited=True, weights=(0.2126, 0.0722))
        assert back.shape == flat.shape and np.abs(back - flat).max() < 0.003


def test_chroma_lies_on_the_even_columns():
    ramp = np.zeros((4, 16, 3), np.float32)
    ramp[..., 2] = np.arange(16) / 16
    blue = planes_of(ramp, "yuv422p10le", 10)[1].astype(float)
    full = planes_of(ramp, "yuv444p10le", 10)[1].astype(float)
    assert np.abs(blue[:, 1:] - full[:, 2::2]).max() <= 1


@pytest.mark.parametrize(
    ("start", "count", "overlap", "expected"),
    [(0, None, 0, range(40)), (20, 5, 0, range(20, 25)), (20, 5, 4, range(16, 25)), (2, 3, 9, range(5))],
)
@pytest.mark.parametrize("name", ["h264-mp4", "h265-mkv", "ffv1"])
def test_a_range_of_frames_is_read_alone(tmp_path, name, start, count, overlap, expected):
    known = find_format(name)
    greys = torch.linspace(0, 1, 40).view(-1, 1, 1, 1).expand(-1, 48, 64, 3)
    (path,) = write(tmp_path / f"clip{known.suffix}", known, greys, size=(64, 48))
    got = [frame.mean().item() for frame in frames_of(path, start, count, overlap=overlap)]
    assert got == pytest.approx([index / 39 for index in expected], abs=0.01)


def test_frames_that_are_not_there_are_refused(tmp_path):
    (path,) = write(tmp_path / "clip.mkv", find_format("ffv1"), clip(find_format("ffv1"), 5))
    for start, count in ((0, 6), (3, 3), (5, 1), (9, None)):
        with pytest.raises(ValueError, match="ask for fewer"):
            list(frames_of(path, start, count))
    with pytest.raises(ValueError, match="ask for frames 0 and later"):
        list(frames_of(path, -1, 2))


def test_what_cannot_be_stored_is_refused_at_the_door(tmp_path):
    for name, size, message in (
        ("h264-mp4", (127, 96), "width 127 is not a multiple of 2, as h264-mp4 needs: use 126 or 128"),
        ("dnxhr", (128, 96), "width 128 is too small for dnxhr: use 256 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            open_writer(tmp_path / "clip.mp4", find_format(name), size=size)
    with pytest.raises(ValueError, match=r'"clip.mp4" is not a name for ffv1: use clip.mkv'):
        open_writer(tmp_path / "clip.mp4", find_format("ffv1"), size=(64, 64))
    with pytest.raises(ValueError, match="png8 is a folder of pictures already"):
        Segments(tmp_path / "parts", find_format("png8"), size=(64, 64))
    with pytest.raises(ValueError, match='there is no format "gif": use one of h264-mp4, h265-mkv'):
        find_format("gif")
    with pytest.raises(ValueError, match="h264-mp4 cannot be stored with 12 bits: use 8 or 10"):
        find_format("h264-mp4", 12)
    assert os.listdir(tmp_path) == []


def test_the_table_has_the_names_that_are_promised_and_says_what_each_is():
    promised = ["h264-mp4", "h265-mkv", "av1-mkv", "prores-422hq", "prores-4444", "dnxhr", "ffv1"]
    assert {*promised, "png8", "png16", "exr"} <= set(NAMES)
    for known in FORMATS:
        assert known.about.endswith(".") and 0 < known.usual <= known.worst
        assert find_format(known.name, known.depth) is known
    assert [find_format(name).depth for name in promised[:3]] == [8, 10, 10]


@pytest.mark.parametrize(
    ("fps", "rate"),
    [(16, 16), (23.976, Fraction(24000, 1001)), (29.97, Fraction(30000, 1001)), (12.5, Fraction(25, 2))],
)
def test_rates_are_exact(fps, rate):
    assert frame_rate(fps) == rate


def test_a_disk_without_room_is_refused_with_both_sizes(tmp_path):
    known = find_format("prores-422hq")
    check_space(tmp_path, known, (64, 64), 100)
    wide = dataclasses.replace(known, usual=1e9)
    with pytest.raises(OSError, match=r"100 frames of 64x64 as prores-422hq need about 419616.7 GB in .* GB are free"):
        check_space(tmp_path, wide, (64, 64), 100)
    with pytest.raises(OSError, match=r"839233.4 GB"):
        check_space(tmp_path, wide, (64, 64), 100, copies=2)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_space(tmp_path / "none", known, (64, 64), 100)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody can write in")
def test_a_folder_that_cannot_be_written_is_refused():
    with pytest.raises(OSError, match=r"cannot write in /proc/self: .*; choose another folder"):
        check_space(Path("/proc/self"), find_format("png8"), (64, 64), 1)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_whole(tmp_path / "a.json", b"old")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(OSError, match=r"cannot write .*a.json: Input/output error"):
        write_whole(tmp_path / "a.json", b"new")
    assert (tmp_path / "a.json").read_bytes() == b"old" and os.listdir(tmp_path) == ["a.json"]


def test_the_writers_run_no_other_program(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    write(tmp_path / "clip.mov", find_format("prores-422hq"), clip(find_format("prores-422hq"), 1))
