"""Media files of strangers: one ordinary file is opened and nothing else, within bounds, and every error is a sentence.

Seen to fail: playlists that show another file, pictures decoded before their size is known, errors of the library.
"""

import contextlib
import io
import os
import shutil
import struct
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from sounds import sound_file

from histream_core.video import media, reading
from histream_core.video import sound as sounds
from histream_core.video.container import Segment, join
from histream_core.video.formats import find_format
from histream_core.video.pictures import encode_png, read_picture
from histream_core.video.reading import frames_of, index_video
from histream_core.video.sound import SoundCopy, check_sound, pack_sound
from histream_core.video.writers import open_writer

USUAL = find_format("h264-mp4")

READERS = {
    "index": index_video,
    "frames": lambda source: list(frames_of(source)),
    "picture": read_picture,
    "sound": pack_sound,
    "fit of a sound": lambda source: check_sound(source, USUAL),
    "segment": lambda source: list(Segment(source).packets()),
}


def clip(path, num_frames=20, sound=None, **options):
    with open_writer(path, USUAL, size=(64, 48), sound=sound, **options) as writer:
        writer.write(torch.rand(num_frames, 48, 64, 3, generator=torch.Generator().manual_seed(0)))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A video with sound, and a sound."""
    folder = tmp_path_factory.mktemp("made")
    sound = sound_file(folder / "secret.m4a", 2)
    return clip(folder / "secret.mp4", sound=sound), sound


OTHERS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile secret.mp4\n",
    "list.mp4": "ffconcat version 1.0\nfile secret.mp4\n",
    "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "list.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet '
    'mimeType="video/mp4"><Representation id="1"><BaseURL>secret.mp4</BaseURL></Representation></AdaptationSet>'
    "</Period></MPD>",
    "letters.txt": "words that a terminal's format would draw\n" * 20,
    "letters.ans": "\x1b[31mwords\x1b[0m\n" * 20,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", OTHERS)
def test_a_file_that_names_another_file_is_refused(tmp_path, monkeypatch, made, name, reader):
    for path in made:
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(OTHERS[name])
    for source in (name, tmp_path / name, io.BytesIO(OTHERS[name].encode())):
        if reader not in ("picture", "segment") or not isinstance(source, io.BytesIO):
            with pytest.raises(ValueError, match=r"not a video|no picture|no sound"):
                READERS[reader](source)


@pytest.mark.parametrize("name", ["frame%d.png", "concat:secret.mp4", "subfile,,start,0,end,9,,:secret.mp4", "*.png"])
def test_a_name_is_no_pattern_and_no_address(tmp_path, monkeypatch, made, name):
    monkeypatch.chdir(tmp_path)
    shutil.copy(made[0], tmp_path)
    (tmp_path / "frame1.png").write_bytes(encode_png(np.full((4, 4, 3), 9, np.uint8)))
    for read in (read_picture, index_video):
        with pytest.raises(FileNotFoundError):
            read(name)
    (tmp_path / name).write_bytes(encode_png(np.full((4, 4, 3), 200, np.uint8)))
    assert torch.equal(read_picture(name), torch.full((4, 4, 3), 200 / 255))


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_named_as_what_it_is(tmp_path, reader):
    """Seen to fail with a pipe, which was waited for."""
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "null.mp4").symlink_to(os.devnull)
    for name, said in (("pipe.mp4", "a pipe"), ("folder.mp4", "a folder"), ("null.mp4", "a device")):
        with pytest.raises(OSError, match=f"{name} is {said}: give an ordinary file"):
            READERS[reader](tmp_path / name)


def referring(data, path):
    """The boxes of a MOV file whose tracks say that their samples are in the file `path`, as an editor writes it."""
    words = path.encode()
    words += bytes(len(words) % 2)
    about = struct.pack(">10xB27x12xB63x16xHH16x", 0, 0, 1, 1) + struct.pack(">HH", 2, len(words)) + words
    alias = b"alis" + bytes(4) + about + struct.pack(">HH", 0xFFFF, 0)
    found = b""
    while data:
        (size,), kind = struct.unpack(">I", data[:4]), data[4:8]
        body, data = data[8:size], data[size:]
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
            body = referring(body, path)
        elif kind == b"dref":
            body = struct.pack(">III", 0, 1, len(alias) + 4) + alias
        found += struct.pack(">I", len(body) + 8) + kind + body
    return found


@pytest.mark.parametrize("reader", READERS)
def test_a_track_in_another_file_is_not_followed(tmp_path, monkeypatch, made, reader):
    """The samples would be there, at the same places."""
    monkeypatch.chdir(tmp_path)
    with av.open(str(made[0])) as source, av.open("secret.mov", "w") as copy:
        streams = {stream.index: copy.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                copy.mux_one(packet)
    data = (tmp_path / "secret.mov").read_bytes()
    READERS["index"]("secret.mov")
    (tmp_path / "refers.mov").write_bytes(referring(data, "secret.mov"))
    with pytest.raises(ValueError, match=r"refers\.mov"):
        READERS[reader]("refers.mov")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["secret.mp4", "secret.mkv", "a.png", "secret.m4a"])
def test_a_file_that_is_cut_off_is_read_or_refused_in_a_sentence(tmp_path, made, name, share):
    if name == "a.png":
        data = encode_png(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    elif name == "secret.mkv":
        with open_writer(tmp_path / name, find_format("ffv1"), size=(64, 48), sound=made[1]) as writer:
            writer.write(torch.rand(20, 48, 64, 3))
        data = (tmp_path / name).read_bytes()
    else:
        data = made[name.endswith("m4a")].read_bytes()
    path = tmp_path / f"cut.{name}"
    path.write_bytes(data[: int(len(data) * share)])
    for read in (*READERS.values(), lambda source: join([source], tmp_path / "joined.mp4", USUAL)):
        try:
            read(path)
        except ValueError as error:
            assert (path.name in str(error) or "joined.mp4" in str(error)) and "Errno" not in str(error)
            assert type(error) is ValueError
        (tmp_path / "joined.mp4").unlink(missing_ok=True)
        assert not list(tmp_path.glob("*.partial.*"))


def bomb(width, height):
    """A PNG whose header says more than there is; its pixels would be decoded before anything is missed."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = b"IDAT" + zlib.compress(bytes(4096))
    chunks = (struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in (header, rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("size", [(20_000, 10), (10, 20_000), (16_000, 16_000), (9000, 9000)], ids=str)
def test_the_size_of_a_picture_is_known_before_it_is_decoded(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(*size))
    said = rf"has pictures of {size[0]}x{size[1]}: make them smaller|is no picture that can be read, or has more than"
    with pytest.raises(ValueError, match=said):
        read_picture(path)
    with pytest.raises(ValueError, match=r"bomb\.png (has pictures of|is damaged)"):
        list(frames_of(path))


def test_pictures_that_grow_within_a_video_are_refused(tmp_path, monkeypatch):
    """Two clips in one raw stream. Seen to fail by the memory of the larger one."""
    for name, size in (("a.ts", (64, 48)), ("b.ts", (96, 64))):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("libx264", rate=16)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for index in range(20):
                frame = av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8), format="rgb24")
                frame.pts, frame.time_base = index + 20 * (name == "b.ts"), Fraction(1, 16)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    path = tmp_path / "both.ts"
    path.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with pytest.raises(ValueError, match=r"both\.ts changes its size from 64x48 to 96x64|no frame where frame"):
        list(frames_of(path))


def test_a_video_that_is_too_long_is_refused_where_its_frames_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_FRAMES", 19)
    path = clip(tmp_path / "clip.mp4")
    with pytest.raises(ValueError, match=r"clip\.mp4 has more than 19 frames: cut it"):
        index_video(path)
    with pytest.raises(ValueError, match=r"20 is no frame of .*clip\.mp4: at most 19 frames"):
        list(frames_of(path, 20))


def test_raw_pictures_without_times_are_refused_everywhere(tmp_path):
    with av.open(str(tmp_path / "a.h264"), "w") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    for read in (index_video, lambda source: list(frames_of(source))):
        with pytest.raises(ValueError, match=r"a\.h264 (does not say when its frames are shown|shows .* in a second)"):
            read(tmp_path / "a.h264")


class Stream:
    """A video stream as its file describes it."""

    def __init__(self, **values):
        context = {"width": 64, "height": 48, "options": {}, "colorspace": 2, "color_trc": 2, "framerate": None}
        self.codec_context = type("Context", (), context)()
        self.container = type("Container", (), {"format": type("Format", (), {"name": "matroska,webm"})()})()
        self.time_base, self.start_time, self.guessed_rate = Fraction(1, 16), 0, Fraction(16)
        self.sample_aspect_ratio = None
        vars(self).update(values)


@pytest.mark.parametrize("rate", [None, 0, Fraction(1, 1000), 10**9, -1])
def test_a_rate_that_no_video_has_is_refused_with_those_that_work(rate):
    with pytest.raises(ValueError, match=r"clip\.mp4 (shows|does not say).* in a second: convert it .* with 1 to 1000"):
        reading._rate(Stream(guessed_rate=rate), "clip.mp4")
    for known in (Fraction(24000, 1001), 1, 1000):
        assert reading._rate(Stream(guessed_rate=known), "clip.mp4") == known


@pytest.mark.parametrize("values", [{"time_base": None}, {"start_time": 2**62}, {"start_time": -(2**63)}], ids=str)
def test_a_clock_that_does_not_go_is_refused(values):
    with pytest.raises(ValueError, match=r"clip\.mp4 does not say when its frames are shown"):
        media.check_stream(Stream(**values), "clip.mp4")


def test_a_slow_clock_does_not_make_seeking_endless(monkeypatch):
    """A tick of the clock is longer than the first step back."""
    seeks = []

    class Container:
        def seek(self, time, stream):
            assert len(seeks) < 50
            seeks.append(time)

        def decode(self, _):
            return iter(())

    stream = Stream(time_base=Fraction(2), guessed_rate=Fraction(1))
    monkeypatch.setattr(reading, "open_video", lambda source: contextlib.nullcontext(Container()))
    monkeypatch.setattr(reading, "video_stream", lambda container, source: stream)
    assert list(reading._numbered("clip.mp4", 10**6)) == []
    assert seeks == sorted(seeks, reverse=True) and 0 < seeks[-1] < 10**6 / 2


def test_a_file_that_cannot_seek_is_opened_again_and_read_from_its_beginning(monkeypatch):
    opened = []

    class Container:
        def seek(self, time, stream):
            raise av.error.PermissionError(1, "Operation not permitted")

        def decode(self, _):
            return iter(())

    def open_video(source):
        opened.append(source)
        return contextlib.nullcontext(Container())

    monkeypatch.setattr(reading, "open_video", open_video)
    monkeypatch.setattr(reading, "video_stream", lambda container, source: Stream())
    assert list(reading._numbered("clip.flv", 1000)) == []
    assert opened == ["clip.flv"] * 2


def forged(track, pts, duration=1):
    """Packets at these times, as the demuxer gives them."""
    for time in pts:
        packet = av.Packet(b"sound")
        packet.time_base, packet.pts, packet.dts, packet.duration = Fraction(1, 1000), time, time, duration
        yield packet


@pytest.mark.parametrize("pts", [[0, 5, 4], [0, 2**61], [-(2**62)], [2**62], [0, 10**10]], ids=str)
def test_forged_times_of_a_sound_are_refused_in_a_sentence(made, monkeypatch, pts):
    monkeypatch.setattr(sounds.Track, "_demux", lambda track: forged(track, pts))
    for read in (pack_sound, lambda source: list(sounds.Track(source).packets())):
        with pytest.raises(ValueError, match=r"the sound of secret\.m4a is (not in order|damaged)"):
            read(made[1])


def test_forged_times_that_last_for_years_are_refused(made, monkeypatch):
    for duration in (2**50, -1):
        monkeypatch.setattr(sounds.Track, "_demux", lambda track, length=duration: forged(track, [0], length))
        with pytest.raises(ValueError, match=r"the sound of secret\.m4a is not in order"):
            pack_sound(made[1])


def test_a_sound_of_too_many_packets_is_refused(made, monkeypatch):
    monkeypatch.setattr(sounds, "MAX_PACKETS", 10)
    with pytest.raises(ValueError, match=r"the sound of secret\.m4a has more than 10 packets: cut it"):
        pack_sound(made[1])


@pytest.mark.parametrize("times", ["", "x", "1/0 0 1x1", "0 0 1x1", "1/44100", "1/4 -5 1x1", f"1/{'9' * 5000} 0 1x1"])
def test_damaged_times_of_a_packed_sound_are_refused(made, monkeypatch, times):
    packed = pack_sound(made[1])
    monkeypatch.setattr(sounds, "_times", lambda packets: times)
    damaged = pack_sound(made[1])
    assert damaged != packed
    if times:
        with pytest.raises(ValueError, match="the times of a packed sound are damaged: pack it again"):
            pack_sound(io.BytesIO(damaged))


def test_a_sound_without_packets_is_no_sound(made, monkeypatch):
    """Seen to fail by a video without sound."""
    monkeypatch.setattr(sounds.Track, "_demux", lambda track: iter(()))
    with pytest.raises(ValueError, match=r"secret\.m4a holds no sound: choose another file"):
        check_sound(made[1], USUAL)


def test_a_sound_that_cannot_be_copied_leaves_its_file_closed(made, monkeypatch):
    closed = []
    monkeypatch.setattr(sounds.Track, "close", lambda track: closed.append(track))
    monkeypatch.setattr(sounds.Track, "_demux", lambda track: forged(track, [2**62]))
    with av.open(io.BytesIO(), "w", format="matroska") as container, pytest.raises(ValueError, match="damaged"):
        SoundCopy(made[1], container)
    assert len(closed) == 1


def test_a_cover_picture_is_no_video(tmp_path, made):
    cover = tmp_path / "cover.mp3"
    with av.open(str(cover), "w") as container:
        sound = container.add_stream("libmp3lame", rate=44100)
        sound.codec_context.layout = "mono"
        picture = container.add_stream("png")
        picture.width, picture.height, picture.pix_fmt = 8, 8, "rgb24"
        picture.disposition = av.stream.Disposition.attached_pic
        container.mux(picture.encode(av.VideoFrame.from_ndarray(np.full((8, 8, 3), 200, np.uint8), format="rgb24")))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16p", layout="mono")
        frame.sample_rate = 44100
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with pytest.raises(ValueError, match=r"cover\.mp3 has no picture in it"):
        index_video(cover)
    assert read_picture(cover).shape == (8, 8, 3)


def test_a_file_that_cannot_be_joined_again_leaves_nothing(tmp_path, made, monkeypatch):
    """The result is read back, and is no video either. Seen to leave a half-written file."""
    segment = clip(tmp_path / "seg.mp4")
    seen = []

    class Once(Segment):
        def __init__(self, path):
            if path.name == "joined.partial.mp4":
                raise ValueError(f"{path} is not a video that can be read")
            seen.append(path)
            super().__init__(path)

    monkeypatch.setattr("histream_core.video.container.Segment", Once)
    with pytest.raises(ValueError, match=r"seg\.mp4 was not written as h264-mp4"):
        join([segment], tmp_path / "joined.mp4", USUAL)
    assert seen and os.listdir(tmp_path) == ["seg.mp4"]


@pytest.mark.parametrize("kind", ["link", "file"])
@pytest.mark.parametrize("name", ["png8", "exr"])
def test_a_folder_of_pictures_is_no_link_and_no_file(tmp_path, name, kind):
    (tmp_path / "elsewhere").mkdir()
    if kind == "link":
        (tmp_path / "pictures").symlink_to("elsewhere")
    else:
        (tmp_path / "pictures").write_text("mine")
    with pytest.raises(OSError, match=r"pictures is (a link: remove it|no folder: choose another name)"):
        open_writer(tmp_path / "pictures", find_format(name), size=(8, 8))
    assert os.listdir(tmp_path / "elsewhere") == []
