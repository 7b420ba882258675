"""Outputs of a live stream: what a receiver on this computer gets, and what happens where there is none."""

import io
import socket
import threading

import av
import numpy as np
import pytest

from histream_core.live import outputs
from histream_core.live.clock import Clock
from histream_core.live.outputs import Picture, Sender, check_camera, check_receiver, find_output, sending
from histream_core.video.media import open_muxer

SIZE = 64, 48
FPS = 16


class Hand(Clock):
    """A clock that is set by hand; threads wait by the computer's."""

    now = 0.0

    def __call__(self):
        return self.now


def picture(number):
    return np.full((SIZE[1], SIZE[0], 3), 40 + 4 * number, np.uint8)


@pytest.fixture
def receiver():
    """A socket that receives on this computer, and its address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        there.settimeout(60)
        yield there, f"udp://127.0.0.1:{there.getsockname()[1]}"


def received(there):
    """All datagrams that are there."""
    found = []
    there.settimeout(0)
    while True:
        try:
            found.append(there.recv(65536))
        except BlockingIOError:
            return found


def decoded(datagrams):
    """The pictures in datagrams: time and mean of each."""
    with av.open(io.BytesIO(b"".join(datagrams)), format="mpegts") as container:
        return [(frame.time, float(frame.to_ndarray(format="rgb24").mean())) for frame in container.decode(video=0)]


def show(sender, clock, numbers, each=1):
    """Show frames one after the other, each when the one before it has left."""
    for number in numbers:
        clock.now = number / FPS
        before = sender.report()
        sender(picture(number * each), 0.0)
        wait_for(sender, before["sent"] + before["dropped"] + 1)


def wait_for(sender, count):
    """Wait until so many frames are sent or left out."""
    for _ in range(1000):
        report = sender.report()
        if report["sent"] + report["dropped"] >= count:
            return
        threading.Event().wait(0.01)
    raise AssertionError(sender.report())


def test_a_receiver_sees_the_frames_in_order_at_their_times(receiver):
    """Seen to fail with times that count frames."""
    there, address = receiver
    clock = Hand()
    with sending([(address, find_output(address, SIZE, FPS))], [], clock, pytest.fail) as [sender]:
        show(sender, clock, [*range(20), *range(24, 40)])
    found = decoded(received(there))
    assert sender.report() == {"address": address, "sent": 36, "dropped": 0, "away": False}
    times, means = zip(*found, strict=True)
    wanted = [*range(20), *range(24, 40)]
    assert list(times) == pytest.approx([number / FPS for number in wanted], abs=1e-3)
    assert list(means) == pytest.approx([40 + 4 * number for number in wanted], abs=3)


def test_a_receiver_that_joins_sees_a_picture_within_a_second(receiver):
    """Seen to fail without key frames, and with key frames counted in frames."""
    there, address = receiver
    clock = Hand()
    with sending([(address, find_output(address, SIZE, FPS))], [], clock, pytest.fail) as [sender]:
        show(sender, clock, range(5), each=1)
        received(there)
        show(sender, clock, range(8, 40, 4))  # a quarter of the frames
    times, _ = zip(*decoded(received(there)), strict=True)
    assert [round(time * FPS) for time in times] == [*range(16, 40, 4)]


def test_sides_are_even(receiver):
    there, address = receiver
    link = find_output(address, (33, 35), FPS)()
    link.send(Picture(np.zeros((35, 33, 3), np.uint8), 0.0))
    link.close()
    with av.open(io.BytesIO(b"".join(received(there))), format="mpegts") as container:
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height) == (32, 34)


class Slow:
    """A link that waits before it sends, until it may."""

    def __init__(self):
        self.may, self.numbers = threading.Semaphore(0), []
        self.taken = threading.Semaphore(0)

    def send(self, picture):
        self.taken.release()
        self.may.acquire()
        self.numbers.append(int(picture.frame[0, 0, 0] - 40) // 4)

    def close(self):
        pass


def test_a_slow_receiver_gets_the_newest_frame():
    """It delays nobody, and what it missed is counted. Seen to fail with a queue."""
    slow = Slow()
    with sending([("slow", lambda: slow)], [], Hand(), pytest.fail) as [sender]:
        sender(picture(0), 0.0)
        slow.taken.acquire()
        for number in range(1, 6):
            sender(picture(number), 0.0)
        slow.may.release(2)
    assert slow.numbers == [0, 5]
    assert sender.report() == {"address": "slow", "sent": 2, "dropped": 4, "away": False}


class Broken:
    """Links whose receiver is away from time to time."""

    def __init__(self):
        self.here, self.opened, self.closed = True, 0, 0

    def __call__(self):
        self.opened += 1
        if not self.here:
            raise OSError("nobody is there")
        return self

    def send(self, _):
        if not self.here:
            raise ValueError("gone")

    def close(self):
        self.closed += 1


def test_a_receiver_that_goes_away_is_tried_again_each_second():
    """It is said once. Seen to fail where each attempt is said, and where each frame is one."""
    broken, clock, said = Broken(), Hand(), []
    with sending([("there", broken)], [], clock, said.append) as [sender]:
        show(sender, clock, range(4))
        broken.here = False
        show(sender, clock, range(4, 36))  # 4 finds it gone; 20 tries again
        assert broken.opened == 2 and sender.report()["away"]
        broken.here = True
        show(sender, clock, range(36, 40))
        broken.here = False
        show(sender, clock, range(40, 41))
    assert sender.report() == {"address": "there", "sent": 8, "dropped": 33, "away": True}
    assert broken.opened == 3 and broken.closed == 2
    assert said == ["there takes no picture, and is tried again each second: gone"] * 2


def test_a_virtual_camera_is_given_raw_pictures(monkeypatch):
    """A file takes the place of the device."""
    file = io.BytesIO()
    monkeypatch.setattr(outputs, "check_camera", lambda device: device)
    monkeypatch.setattr(outputs, "open_output", lambda *_: open_muxer(file, "rawvideo"))
    link = find_output("v4l2:/dev/video9", SIZE, FPS)()
    for number in range(3):
        link.send(Picture(picture(number), number / FPS))
    link.close()
    each = SIZE[0] * SIZE[1] * 3 // 2
    assert len(file.getvalue()) == 3 * each
    luma = [file.getvalue()[number * each] for number in range(3)]
    assert luma == pytest.approx([16 + (40 + 4 * number) * 219 / 255 for number in range(3)], abs=1)


def test_a_virtual_camera_that_goes_away_is_one_sentence(monkeypatch):
    """The device is no camera, which FFmpeg finds out with the first picture."""
    monkeypatch.setattr(outputs, "check_camera", lambda device: device)
    said = []
    address = "v4l2:/dev/null"
    with sending([(address, find_output(address, SIZE, FPS))], [], Hand(), said.append) as [sender]:
        sender(picture(0), 0.0)
    assert sender.report()["dropped"] == 1
    assert len(said) == 1 and "/dev/null cannot be written to" in said[0]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("rtmp://host/x", "use udp://NUMBER:PORT or"),
        ("srt://127.0.0.1:5000", "has recipes"),
        ("out.mp4", "nothing to send to"),
        ("udp://127.0.0.1", "as udp://127.0.0.1:5000"),
        ("udp://:5000", "as udp://127.0.0.1:5000"),
        ("udp://127.0.0.1:99999", "as udp://127.0.0.1:5000"),
        ("udp://127.0.0.1:5000/x", "as udp://127.0.0.1:5000"),
        ("udp://127.0.0.1:5000?localport=1", "as udp://127.0.0.1:5000"),
        ("udp://[::1:5000", "as udp://127.0.0.1:5000"),
        ("udp://nowhere.invalid:5000", "as udp://127.0.0.1:5000"),
        ("udp://1.2.3.4.5:5000", "as udp://127.0.0.1:5000"),
        ("udp://[1::2::3]:5000", "as udp://127.0.0.1:5000"),
        ("v4l2:/dev/video997", "modprobe v4l2loopback video_nr=997"),
        ("v4l2:/etc/passwd", "write v4l2:/dev/video9"),
        ("v4l2:/dev/video0/../../etc/passwd", "write v4l2:/dev/video9"),
    ],
)
def test_what_cannot_be_sent_to_is_refused(address, said, monkeypatch):
    monkeypatch.setattr(check_camera, "__defaults__", ("linux",))
    with pytest.raises(ValueError, match=said):
        find_output(address, SIZE, FPS)


def test_a_receiver_is_named_by_its_number():
    for host in ("127.0.0.1", "239.1.2.3", "[::1]"):
        assert check_receiver(f"udp://{host}:5000") == f"udp://{host}:5000?pkt_size=1316"
    assert check_receiver("udp://localhost:5000") == check_receiver("udp://127.0.0.1:5000")


def test_virtual_cameras_are_those_of_linux():
    with pytest.raises(ValueError, match="send to udp"):
        check_camera("/dev/video9", "darwin")


def test_a_sender_ends_where_nothing_was_sent():
    sender = Sender("there", Broken(), Clock(), pytest.fail)
    sender.start()
    sender.close()
    assert sender.report()["sent"] == 0
