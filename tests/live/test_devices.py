"""Sources of a live stream: files that play as cameras do, cameras, and addresses on this computer."""

import contextlib
import http.server
import socket
import struct
import threading
import wave

import av
import numpy as np
import pytest
import torch
from clips import clip, encoded
from tiny_live import FakeClock

from histream_core.live.clock import Clock
from histream_core.live.devices import Address, Thinner, find_device, fitted, name_camera
from histream_core.live.feed import EndedError, Feed
from histream_core.live.intake import ALL, Intake
from histream_core.live.outputs import Picture, find_output
from histream_core.live.page import jpeg_of
from histream_core.video import media


def play(device, clock=None, seconds=None, most=1000):
    """All frames that a device gives, with their times, and why it ended."""
    clock = clock or FakeClock()
    feed = Feed(Intake(most, ALL), clock, seconds=seconds)
    device.play(feed, clock)
    found = list(feed.take(most)) if len(feed._intake) else []
    with pytest.raises(EndedError) as ended:
        feed.take(1)
    return found, str(ended.value)


def test_a_file_gives_its_frames_at_their_times(tmp_path):
    device = find_device(str(clip(tmp_path, 9)))
    found, why = play(device)
    assert (device.fps, device.size) == (16, (32, 32))
    assert [stamped.time for stamped in found] == [index / 16 for index in range(9)]
    assert found[0].frame.dtype == torch.uint8 and found[0].frame.shape == (32, 32, 3)
    assert "has ended" in why


@pytest.mark.parametrize(("fps", "count"), [(8, 8), (12, 12), (32, 32)])
def test_a_file_is_played_at_any_rate(tmp_path, fps, count):
    """One second of it, whatever the rate. Seen to fail where every frame is given."""
    found, _ = play(find_device(str(clip(tmp_path, 16)), fps=fps))
    assert len(found) == count
    assert found[-1].time == pytest.approx((count - 1) / fps)


def test_a_file_begins_again_until_the_time_is_over(tmp_path):
    found, why = play(find_device(str(clip(tmp_path, 9)), again=True), seconds=2)
    assert len(found) == 32 and "2 s are over" in why
    assert torch.equal(found[0].frame, found[9].frame) and not torch.equal(found[0].frame, found[8].frame)


def test_a_file_that_is_cut_off_says_so(tmp_path):
    path = clip(tmp_path, 48)
    device = find_device(str(path))
    path.write_bytes(path.read_bytes()[:-400])
    _, why = play(device)
    assert "clip.mp4" in why and "has ended" not in why


def test_a_size_scales_and_crops():
    picture = torch.zeros(32, 64, 3)
    picture[:, 16:48] = 1
    found = fitted(picture, (16, 16))
    assert found.shape == (16, 16, 3) and found.min() == 255
    assert torch.equal(fitted(picture, (64, 32)), (picture * 255).to(torch.uint8))


def test_cameras_have_names():
    assert name_camera("0", 30, (640, 480), "linux") == Address(
        "/dev/video0", "v4l2", {"framerate": "30", "video_size": "640x480"}
    )
    assert name_camera("1", None, None, "darwin") == Address("1", "avfoundation", {})
    assert name_camera("Webcam", None, None, "win32") == Address("video=Webcam", "dshow", {})


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("camera:front", "camera:0"),
        ("camera:../../etc/passwd", "camera:0"),
        ("camera:97", "gives no picture"),
        ("gopher://host/x", "cannot begin with"),
        ("file:///etc/passwd", "cannot begin with"),
        ("concat:a|b", "does not exist"),
        ("http://127.0.0.1:9/x", "gives no picture"),
        ("srt://127.0.0.1:9", "gives no picture|without srt"),
        ("nothing.mp4", "does not exist"),
    ],
)
def test_what_is_not_there_is_refused(source, said, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises((ValueError, OSError), match=said):
        find_device(source)


@pytest.fixture
def asked():
    """The paths that a server was asked for."""
    return []


@pytest.fixture
def served(tmp_path, asked):
    """A folder on an address of this computer."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *_):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_address_gives_pictures_and_is_opened_again(tmp_path, served):
    """The clip that it serves has an end, so that it is opened again and again. The clock is the computer's."""
    clip(tmp_path, 9)
    device = find_device(f"{served}/clip.mp4", fps=200)
    assert device.size == (32, 32)
    feed = Feed(Intake(1000, ALL), Clock())
    thread = threading.Thread(target=device.play, args=(feed, Clock()), daemon=True)
    thread.start()
    taken = [*feed.take(1), *feed.take(1)]
    feed.end(drop=True)
    thread.join(60)
    assert not thread.is_alive()
    assert taken[0].frame.shape == (32, 32, 3) and taken[0].time < taken[1].time


def test_a_list_of_addresses_is_not_followed(tmp_path, served, asked):
    """A playlist would name other files. Seen to fail with FFmpeg's own list of formats."""
    clip(tmp_path, 9)
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1,", f"{served}/clip.mp4", "#EXT-X-ENDLIST", ""]
    (tmp_path / "list.m3u8").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="gives no picture"):
        find_device(f"{served}/list.m3u8")
    assert set(asked) == {"/list.m3u8"}


class Scripted(http.server.BaseHTTPRequestHandler):
    """Serves the next of the server's `answers` to each request, the last one again and again: parts, or an event."""

    def do_GET(self):
        answers = self.server.answers
        kind, parts = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        for part in parts:
            if isinstance(part, threading.Event):
                part.wait(60)
            else:
                self.wfile.write(part)

    def log_message(self, *_):
        pass


@pytest.fixture
def scripted():
    """A function that serves answers at an address of this computer."""
    servers = []

    def serve(*answers):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
        server.answers = list(answers)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/video"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def motion_jpeg(*pictures):
    """An answer as cameras and phones give it: one JPEG file after the other."""
    parts = [
        b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(data), data)
        for data in map(jpeg_of, pictures)
    ]
    return "multipart/x-mixed-replace; boundary=next", parts


LEVELS = range(50, 150, 10)
"""Grey levels of the pictures of an answer; FFmpeg takes no stream that ends within its first 2 KiB."""


def grey(level, size=(32, 32)):
    return np.full((size[1], size[0], 3), level, np.uint8)


@contextlib.contextmanager
def played(device):
    """The feed that a device plays into, by the computer's clock."""
    feed = Feed(Intake(1000, ALL), Clock())
    thread = threading.Thread(target=device.play, args=(feed, Clock()), daemon=True)
    thread.start()
    yield feed
    feed.end(drop=True)
    thread.join(20)
    assert not thread.is_alive()


def levels(feed, count):
    return [round(float(one.frame.float().mean())) for _ in range(count) for one in feed.take(1)]


def test_motion_jpeg_is_played_and_opened_again_where_it_ends(scripted):
    """Seen to fail where a device's end ends the stream."""
    device = find_device(scripted(motion_jpeg(*map(grey, LEVELS))), fps=10**6)
    assert device.size == (32, 32)
    with played(device) as feed:
        found = levels(feed, 12)
    assert found == pytest.approx([*LEVELS, *LEVELS[:2]], abs=2)


@pytest.mark.parametrize(("camera", "fps", "least"), [(30, 30, 29.5), (60, 30, 29.5), (60, 60, 58.5), (30, 16, 15.5)])
@pytest.mark.parametrize("phase", [0.0, 0.25, 0.5, 0.75])
def test_a_camera_whose_clock_trembles_loses_no_frames(camera, fps, least, phase):
    """By up to 3 ms, for 20 s. Seen to fail with a place in an even grid for each picture."""
    tremble, thinner = np.random.default_rng(0).uniform(-0.003, 0.003, 20 * camera), Thinner(fps)
    taken = sum(thinner.takes(5 + (index + phase) / camera + late) for index, late in enumerate(tremble))
    assert least * 20 <= taken <= (fps + 0.5) * 20


def test_a_device_that_comes_back_with_another_size_is_scaled(scripted):
    small, large = (motion_jpeg(*(grey(level, size) for level in LEVELS)) for size in ((32, 32), (96, 64)))
    device = find_device(scripted(small, small, large), fps=10**6)
    with played(device) as feed:
        taken = [feed.take(1)[0].frame for _ in range(12)]
    assert {tuple(frame.shape) for frame in taken} == {(32, 32, 3)}
    assert [float(frame.float().mean()) for frame in taken[10:]] == pytest.approx(LEVELS[:2], abs=2)


def test_a_device_that_falls_silent_is_opened_again(scripted, monkeypatch):
    """FFmpeg's error of a wait that is over is neither ValueError nor OSError. Seen to fail where it passes."""
    monkeypatch.setattr(media, "WAIT_SECONDS", (10.0, 0.5))
    kind, parts = motion_jpeg(*map(grey, LEVELS))
    silent = threading.Event()
    device = find_device(scripted((kind, parts), (kind, [*parts[:8], silent]), (kind, parts)), fps=10**6)
    with played(device) as feed:
        found = levels(feed, 10)
    silent.set()
    before = found.index(max(found)) + 1
    assert found == pytest.approx([*LEVELS[:before], *LEVELS[: 10 - before]], abs=2) and before <= 8


def portrait(path):
    """A video that a phone stored lying down: white above, black below."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        lying = np.full((32, 64, 3), 255, np.uint8)
        lying[:, 32:] = 0
        for index in range(4):
            frame = av.VideoFrame.from_ndarray(lying, format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    upright = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    quarter = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 32 << 16, 0, 1 << 30)
    place = data.rindex(upright)  # of the track, not of the film
    path.write_bytes(data[:place] + quarter + data[place + 36 :])
    return path


def test_a_phones_portrait_is_upright(tmp_path, served):
    """Seen to fail with the size of the stored picture for an address."""
    path = portrait(tmp_path / "phone.mp4")
    for source in (str(path), f"{served}/phone.mp4"):
        device = find_device(source)
        assert device.size == (32, 64)
        with played(device) as feed:
            [first] = feed.take(1)
        assert first.frame.shape == (64, 32, 3)
        assert first.frame[:28].float().mean() > 240 and first.frame[36:].float().mean() < 15


def test_ten_bits_are_played_as_eight(tmp_path):
    eight, ten = (play(find_device(str(clip(tmp_path, 3, format="h265-mkv", depth=depth))))[0] for depth in (8, 10))
    for one, other in zip(eight, ten, strict=True):
        assert (one.frame.int() - other.frame.int()).abs().float().mean() < 4


def test_files_that_cannot_be_played_say_why(tmp_path):
    uneven = encoded(tmp_path / "uneven.mp4", [0, 1, 2, 7, 8])
    with pytest.raises(ValueError, match="convert it to a constant frame rate"):
        find_device(str(uneven))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 99)
    with pytest.raises(ValueError, match="not a video"):
        find_device(str(broken))
    sound = tmp_path / "sound.wav"
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8000))
    with pytest.raises(ValueError, match="no picture in it"):
        find_device(str(sound))


def test_a_stream_by_udp_is_played():
    """One output of a stream is the source of another. Seen to fail where the sender sends no key frame again."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{free.getsockname()[1]}"
    over = threading.Event()

    def send():
        link, number = find_output(address, (64, 48), 50)(), 0
        while not over.wait(0.02):
            link.send(Picture(grey(100, (64, 48)), number / 50))
            number += 1
        link.close()

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        device = find_device(address)
        assert device.size == (64, 48)
        with played(device) as feed:
            assert levels(feed, 3) == pytest.approx([100] * 3, abs=3)
    finally:
        over.set()
        sender.join(20)
