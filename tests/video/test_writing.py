"""The writer's thread, and what is left when the disk, the limit or the thread itself fails.

Seen to fail: a queue without a bound, an error that waits for the end, frames written after a gap, the caller's wait
counted as the writer's work, a segment under its final name while it grows, an encoder that is never let go.
"""

import errno
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from clips import shapes
from forks import Child

import histream_core.files.disk
from histream_core.cost.cost import Cost
from histream_core.plan.schedule import Scale, Step
from histream_core.runs.progress import counted, new_progress, timed_decode
from histream_core.video.container import join, kept_priorities
from histream_core.video.formats import find_format
from histream_core.video.reading import frames_of
from histream_core.video.writers import PictureFolder, Segments, VideoFile, open_writer
from histream_core.video.writing import BackgroundWriter, Times

WIDTH, HEIGHT = 96, 64


def chunks(num_chunks, num_frames=3):
    return shapes(num_chunks * num_frames, HEIGHT, WIDTH).split(num_frames)


class Slow:
    """A writer that can be held up, and made to fail."""

    def __init__(self, error=None):
        self.go, self.error = threading.Event(), error
        self.written, self.threads, self.ended = [], set(), []
        self.num_frames, self.finished = 0, ()

    def write(self, frames):
        assert self.go.wait(60)
        self.threads.add(threading.current_thread())
        if self.error and len(self.written) == 1:
            error, self.error = self.error, None
            raise error
        self.written.append(frames)
        self.num_frames += len(frames)

    def close(self):
        self.ended.append("close")

    def keep(self):
        self.ended.append("keep")

    def discard(self):
        self.ended.append("discard")


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_video_never_replaces_its_own_sound(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"dear")
    with pytest.raises(ValueError, match="choose another name for the new one"):
        open_writer(path, find_format("h264-mp4"), size=(16, 16), sound=path)
    assert path.read_bytes() == b"dear"


def test_the_same_file_is_written_beside_the_sampling(tmp_path):
    known = find_format("ffv1")
    parts = chunks(5)
    with open_writer(tmp_path / "a.mkv", known, size=(WIDTH, HEIGHT)) as writer:
        for part in parts:
            writer.write(part)
    with BackgroundWriter(open_writer(tmp_path / "b.mkv", known, size=(WIDTH, HEIGHT))) as writer:
        for part in parts:
            writer.write(part)
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()
    assert writer.finished == (tmp_path / "b.mkv",) and writer.num_frames == 15
    assert writer.times.write > 0


def test_the_queue_is_bounded_and_the_wait_is_counted(monkeypatch):
    """The clock stands still but for one second while the third chunk waits."""
    inner, armed = Slow(), []

    def clock():
        now = float(inner.go.is_set())
        if armed and threading.current_thread() is threading.main_thread():
            inner.go.set()
        return now

    monkeypatch.setattr("time.perf_counter", clock)
    with BackgroundWriter(inner, depth=2) as writer:
        for part in chunks(2):
            writer.write(part)
        assert writer.times.wait == 0
        armed.append(True)
        writer.write(chunks(1)[0])
        assert writer.times.wait == 1 and len(writer._pending) <= 2
    assert inner.num_frames == 9 and inner.ended == ["close"]
    assert len(inner.threads) == 1 and threading.current_thread() not in inner.threads


def test_a_failure_is_raised_at_the_next_chunk_as_it_was_and_nothing_follows_a_gap():
    inner = Slow(OSError(errno.ENOSPC, "No space left on device"))
    parts = chunks(4)
    with pytest.raises(OSError, match="No space left") as caught, BackgroundWriter(inner, depth=3) as writer:
        for part in parts[:3]:  # the second fails while the third waits
            writer.write(part)
        inner.go.set()
        until(lambda: all(call.done() for call in writer._pending))
        writer.write(parts[3])
        pytest.fail("the failure was not noticed")
    assert caught.value.errno == errno.ENOSPC
    assert [part[0].equal(parts[0][0]) for part in inner.written] == [True]
    assert inner.ended == ["discard"]


def test_a_failure_at_the_last_chunk_is_raised_at_the_end():
    inner = Slow(ValueError("frames do not fit"))
    inner.go.set()
    with pytest.raises(ValueError, match="frames do not fit"), BackgroundWriter(inner) as writer:
        for part in chunks(2):
            writer.write(part)
    assert inner.ended == ["discard"]


@pytest.mark.parametrize("end", [SystemExit(1), KeyboardInterrupt()])
def test_a_thread_that_ends_is_noticed(end):
    inner = Slow(end)
    inner.go.set()
    with pytest.raises(RuntimeError, match="the thread that writes the video ended"), BackgroundWriter(inner) as writer:
        for part in chunks(6):
            writer.write(part)
    assert inner.ended == ["discard"]


def test_a_stopped_run_keeps_what_waits_in_the_queue(tmp_path):
    inner = open_writer(tmp_path / "a.mkv", find_format("ffv1"), size=(WIDTH, HEIGHT))
    with pytest.raises(KeyboardInterrupt), BackgroundWriter(inner) as writer:
        for part in chunks(2):
            writer.write(part)
        raise KeyboardInterrupt
    assert writer.kept == tmp_path / "a.partial.mkv"
    assert len(list(frames_of(writer.kept))) == 6


def test_an_error_of_the_caller_keeps_the_closed_segments(tmp_path):
    segments = Segments(tmp_path / "parts", find_format("h264-mp4"), size=(WIDTH, HEIGHT))
    with pytest.raises(RuntimeError, match="model"), BackgroundWriter(segments) as writer:
        for part in chunks(2):
            writer.write(part)
        until(lambda: segments.num_frames == 6)
        raise RuntimeError("model")
    assert sorted(os.listdir(tmp_path / "parts")) == ["seg-00000.mp4", "seg-00001.mp4"]
    assert len(list(frames_of(tmp_path / "parts" / "seg-00000.mp4"))) == 3


def test_a_segment_that_fails_is_removed_at_once(tmp_path, monkeypatch):
    """Seen to fail without the discarding in `write`."""
    segments = Segments(tmp_path / "parts", find_format("h264-mp4"), size=(WIDTH, HEIGHT))
    first, second = chunks(2)
    segments.write(first)
    with pytest.raises(ValueError, match=r"frames must be \[F, H, W, 3\]"):
        segments.write(second[..., :2])
    assert os.listdir(tmp_path / "parts") == ["seg-00000.mp4"]
    segments.write(second)
    assert [path.name for path in segments.finished] == ["seg-00000.mp4", "seg-00001.mp4"]


@pytest.mark.parametrize("limit", [3_000, 250_000])
@pytest.mark.parametrize("name", ["h264-mp4", "ffv1", "png8"])
def test_a_full_disk_leaves_every_finished_file_and_one_clear_error(tmp_path, monkeypatch, name, limit):
    known = find_format(name)
    left = [limit]

    class Full(histream_core.files.disk.File):
        def __init__(self, path):
            super().__init__(path)
            whole = self.put

            def short(data):
                left[0] -= len(data)
                if left[0] < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return whole(data)

            self.put = short

    monkeypatch.setattr("histream_core.files.disk.File", Full)
    monkeypatch.setattr("histream_core.video.container.File", Full)
    if known.is_sequence:
        inner = PictureFolder(tmp_path / "shot", known, size=(WIDTH, HEIGHT))
    else:
        inner = Segments(tmp_path / "shot", known, size=(WIDTH, HEIGHT))
    noise = torch.rand(3, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))
    with (
        pytest.raises(OSError, match=r"cannot write .*shot.*: No space left on device; free space") as caught,
        BackgroundWriter(inner) as writer,
    ):
        for _ in range(40):
            writer.write(noise)
    assert caught.value.errno == errno.ENOSPC
    found = sorted((tmp_path / "shot").iterdir())
    assert not [path for path in found if "partial" in path.name]
    if known.is_sequence:
        assert len(found) >= inner.num_frames
    else:
        assert found == list(inner.finished)
        assert all(len(list(frames_of(path))) == 3 for path in found)
    assert bool(found) == (limit == 250_000)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files there")
def test_a_limit_on_the_size_of_files_leaves_every_finished_segment(tmp_path):
    def work(_say):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
        noise = torch.rand(20, 64, 96, 3, generator=torch.Generator().manual_seed(0))
        with BackgroundWriter(Segments(tmp_path / "parts", find_format("ffv1", 8), size=(96, 64))) as writer:
            for length in (1, 3, 5, 20, 1):
                writer.write(noise[:length])

    run = Child(work)
    [said] = run.said.read().splitlines()
    assert run.wait() == 1
    assert said.startswith("OSError: cannot write")
    assert "File too large; free space or choose another folder" in said
    found = sorted((tmp_path / "parts").iterdir())
    assert [len(list(frames_of(path))) for path in found] == [1, 3, 5]
    assert join(found, tmp_path / "all.mkv", find_format("ffv1", 8)) == 9


def test_a_killed_run_leaves_files_that_play_to_their_last_quarter_second(tmp_path):
    names = ["h264-mp4", "h265-mkv", "prores-422hq", "ffv1"]

    def work(_say):
        noise, writers = torch.rand(9, 64, 96, 3), []
        for name in names:
            known = find_format(name)
            writers.append(open_writer(tmp_path / f"{name}{known.suffix}", known, size=(96, 64), fps=16))
            for _ in range(5):
                writers[-1].write(noise)
        os.kill(os.getpid(), signal.SIGKILL)

    assert Child(work).wait() == -signal.SIGKILL
    suffixes = {name: find_format(name).suffix for name in names}
    assert sorted(os.listdir(tmp_path)) == sorted(f"{name}.partial{suffixes[name]}" for name in names)
    for name in names:
        assert 41 <= len(list(frames_of(tmp_path / f"{name}.partial{suffixes[name]}"))) <= 45, name


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="counts in /proc")
@pytest.mark.parametrize("name", ["h264-mp4", "h265-mkv", "av1-mkv", "prores-422hq", "png8"])
def test_threads_and_open_files_stay_the_same(tmp_path, name):
    known = find_format(name)

    def counts():
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    kind = PictureFolder if known.is_sequence else Segments
    with BackgroundWriter(kind(tmp_path / "shot", known, size=(WIDTH, HEIGHT))) as writer:
        seen = []
        for part in chunks(16, 1):
            writer.write(part)
            writer._drain()
            seen.append(counts())
    for now in zip(*seen, strict=True):  # an encoder's thread may be about to end; one kept by each chunk adds up
        assert min(now[-4:]) <= max(now[2:6])
    del writer


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of this kind elsewhere")
def test_an_encoder_gives_no_thread_another_priority(tmp_path):
    """SVT-AV1 asks for real time where the user is root. Seen to fail for root where it may."""

    def policies():
        return {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}

    before = policies()
    with VideoFile(tmp_path / "clip.mkv", find_format("av1-mkv"), size=(WIDTH, HEIGHT), fps=16) as writer:
        for chunk in chunks(2):
            writer.write(chunk)
            assert policies() == before


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="threads have no policies elsewhere")
def test_priorities_come_back_where_an_encoder_cannot_be_opened():
    before = os.sched_getscheduler(0)
    with pytest.raises(OSError, match="no encoder"), kept_priorities():
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        raise OSError("no encoder")
    assert os.sched_getscheduler(0) == before


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="counts in /proc")
def test_a_closed_writer_holds_no_threads(tmp_path):
    """Those of an earlier test may end meanwhile; a thread that ended leaves the list a moment later."""

    def threads():
        return set(os.listdir("/proc/self/task"))

    before = threads()
    writer = open_writer(tmp_path / "a.mkv", find_format("h265-mkv"), size=(WIDTH, HEIGHT))
    writer.write(chunks(1)[0])
    opened = threads() - before
    assert opened
    writer.close()
    until(lambda: not opened & threads())


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_a_run_that_ends_before_its_first_frame_leaves_no_file(tmp_path, error):
    with pytest.raises(type(error)), VideoFile(tmp_path / "a.mov", find_format("dnxhr"), size=(256, 128)):
        raise error
    with pytest.raises(ValueError, match=r"no frame was written to .*a.mov: nothing to keep"):
        VideoFile(tmp_path / "a.mov", find_format("dnxhr"), size=(256, 128)).close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("denoise", "decode", "write", "expected"),
    [(3, 2, 4.9, "denoise"), (2, 3, 4.9, "decode"), (3, 2, 5.1, "write"), (0, 0, 0, "denoise")],
)
def test_the_bottleneck_is_what_the_others_wait_for(denoise, decode, write, expected):
    assert Times(denoise, decode, write).bottleneck == expected


def test_times_are_counted_also_for_what_fails(monkeypatch):
    clock, times = iter([1.0, 3.5]), Times()
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    with pytest.raises(ValueError, match="x"), times.count("decode"):
        raise ValueError("x")
    assert times.decode == 2.5 and times.denoise == 0


class DeviceClock:
    """A device that is slower than the CPU, as its events tell: each is 3 s after the one before."""

    def __init__(self, monkeypatch):
        self.now, self.waits = 0.0, 0
        clock = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self, stream):
                clock.now += 3
                self.at = clock.now

            def synchronize(self):
                clock.waits += 1

            def elapsed_time(self, later):
                return 1000 * (later.at - self.at)

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: pytest.fail("the CPU waited for the device"))


def test_what_a_device_takes_is_asked_for_at_the_end_of_a_chunk(monkeypatch):
    """Seen to fail when every call waits for its device, and when what was added is added again."""
    clock, progress = DeviceClock(monkeypatch), new_progress(Cost(tiny.CONFIG, tiny.plan()))
    latent, seconds = SimpleNamespace(device=torch.device("cuda")), []
    monkeypatch.setattr(progress, "measure_call", seconds.append)
    call = counted(lambda latent, step, cache, text: latent, progress)

    def chunk(number):
        for _ in range(4):
            call(latent, Step(1.0, Scale.HIGH), None, None)
        assert (clock.waits, progress.times.denoise) == (4 * number, 12.0 * number)
        return number

    times = progress.times
    for number in timed_decode(map(chunk, range(2)), times):
        assert (clock.waits, times.denoise) == (4 * (number + 1), 12.0 * (number + 1))
    assert times.denoise == 24.0 and progress.calls[Scale.HIGH] == 8
    assert seconds == [3.0] * 8, "each call is told its own"


def test_what_the_cpu_takes_is_added_at_once():
    progress = new_progress(Cost(tiny.CONFIG, tiny.plan()))
    call = counted(lambda latent, step, cache, text: latent, progress)
    call(torch.zeros(1), Step(1.0, Scale.LOW), None, None)
    assert progress.times.denoise > 0
