"""Sources of a live stream: files that play as cameras do, cameras, and addresses on this computer."""

import http.server
import threading

import pytest
import torch
from clips import clip
from tiny_live import FakeClock

from histream_core.live.clock import Clock
from histream_core.live.devices import Address, find_device, fitted, name_camera
from histream_core.live.feed import EndedError, Feed
from histream_core.live.intake import ALL, Intake


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
        ("nothing.mp4", "does not exist"),
    ],
)
def test_what_is_not_there_is_refused(source, said, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises((ValueError, OSError), match=said):
        find_device(source)


@pytest.fixture
def served(tmp_path):
    """A folder on an address of this computer."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_address_gives_pictures_and_is_opened_again(tmp_path, served):
    """What it serves has an end, so that it is opened again and again. The clock is the computer's."""
    clip(tmp_path, 9)
    device = find_device(f"{served}/clip.mp4", fps=200)
    assert device.size == (32, 32)
    feed = Feed(Intake(1000, ALL), Clock())
    thread = threading.Thread(target=device.play, args=(feed, Clock()), daemon=True)
    thread.start()
    taken = [*feed.take(1), *feed.take(1)]
    feed.end(drop=True)
    thread.join(20)
    assert not thread.is_alive()
    assert taken[0].frame.shape == (32, 32, 3) and taken[0].time < taken[1].time


def test_a_list_of_addresses_is_not_followed(tmp_path, served):
    """A playlist would name other files. Seen to fail with FFmpeg's own list of formats."""
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{served}/clip.mp4\n#EXT-X-ENDLIST\n")
    with pytest.raises(ValueError, match="gives no picture"):
        find_device(f"{served}/list.m3u8")
