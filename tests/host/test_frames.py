"""Frames of a Video and Ranges to Video inside a real ComfyUI, on small clips."""

import io
import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from clips import probe

from histream_core.video.formats import FORMATS, find_format
from histream_core.video.reading import frames_of
from histream_core.video.writers import open_writer

ROOT = Path(__file__).parents[2]
FILES = [known for known in FORMATS if not known.is_sequence]


def greys(num_frames: int, width: int = 64, height: int = 48) -> torch.Tensor:
    """Frames that tell their own number: [F, H, W, 3], from black to white."""
    return torch.linspace(0, 1, num_frames).view(-1, 1, 1, 1).expand(-1, height, width, 3).contiguous()


def numbers(images, num_frames: int) -> list[int]:
    """Which of `num_frames` greys these are."""
    return [round(float(image.mean()) * (num_frames - 1)) for image in images]


def write(path, known, frames, fps=24) -> str:
    with open_writer(path, known, size=(frames.shape[2], frames.shape[1]), fps=fps) as writer:
        writer.write(frames)
    return str(path)


@pytest.fixture
def from_file(comfyui):
    from comfy_api.latest import InputImpl

    return InputImpl.VideoFromFile


@pytest.fixture
def from_pictures(comfyui):
    """A VIDEO that the host holds in memory, as Create Video makes it."""
    from comfy_api.latest import InputImpl, Types

    def make(frames, fps=Fraction(24)):
        return InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, audio=None, frame_rate=fps))

    return make


@pytest.fixture
def clip(from_file, tmp_path_factory):
    """A VIDEO of 23 greys, in a file."""
    return from_file(write(tmp_path_factory.mktemp("input") / "clip.mp4", find_format("h264-mp4"), greys(23)))


@pytest.fixture
def read(pack):
    """Run Frames of a Video: images, range, first_frame, num_ranges, new_from, fps."""

    def run(video, index, frames=9, overlap=0, **options):
        node = pack.part("nodes.video.video_frames").VideoFrames
        return node.execute(video, index, frames, overlap, **options).result

    return run


@pytest.mark.parametrize("known", FILES, ids=lambda known: f"{known.name}-{known.depth}")
def test_ranges_of_every_format_are_the_frames_of_the_video(read, from_file, tmp_path, known):
    """Seen to fail when a range begins one frame later."""
    width, height = (max(sides) for sides in zip((64, 64), known.smallest, strict=True))
    path = write(tmp_path / f"clip{known.suffix}", known, greys(12, width, height), fps=24000 / 1001)
    seen = []
    for index in range(3):
        images, _, first, num_ranges, new_from, fps = read(from_file(path), index, 7)
        assert (images.shape, images.dtype) == ((5, height, width, 3), torch.float32)
        assert num_ranges == 3 and fps == 24000 / 1001
        assert torch.equal(images, torch.stack(list(frames_of(path, first, 5))))
        seen += numbers(images[new_from:], 12)
    assert seen == list(range(12))


@pytest.mark.parametrize(("overlap", "new"), [(0, [0, 0, 4]), (2, [0, 2, 2]), (3, [0, 3, 3, 7])])
def test_new_from_is_what_the_range_before_has_too(read, clip, overlap, new):
    """Seen to fail when the overlap that was asked for is put out, which the last range exceeds."""
    seen, found = [], []
    for index in range(len(new)):
        images, _, first, num_ranges, new_from, _ = read(clip, index, 9, overlap)
        assert num_ranges == len(new) and numbers(images, 23) == list(range(first, first + 9))
        seen += numbers(images[new_from:], 23)
        found.append(new_from)
    assert seen == list(range(23)) and found == new


def test_a_file_of_the_host_gives_the_frames_that_the_host_sees(read, from_file, from_pictures, tmp_path):
    """Save Video stores frames out of order; colours may differ by how chroma is spread, so these are grey."""
    path = str(tmp_path / "saved.mp4")
    from_pictures(greys(40), Fraction(24000, 1001)).save_to(path)
    whole = from_file(path).get_components().images
    for index in range(5):
        images, _, first, num_ranges, _, fps = read(from_file(path), index, 9)
        assert num_ranges == 5 and fps == pytest.approx(23.976, abs=1e-3)
        torch.testing.assert_close(images, whole[first : first + 9], rtol=0, atol=0.02)


def test_what_create_video_made_is_read_without_encoding_it(read, from_pictures):
    """Seen to fail when its file is asked for, which is H.264."""
    frames = torch.rand(23, 48, 64, 3, generator=torch.Generator().manual_seed(0))
    images, part, first, *_ = read(from_pictures(frames), 1, 9)
    assert torch.equal(images, frames[9:18]) and first == 9
    assert read(from_pictures(frames.flip(0)), 1, 9)[1].source != part.source


def test_a_video_in_memory_is_read_like_a_file(read, clip, from_file):
    video = from_file(io.BytesIO(Path(clip.get_stream_source()).read_bytes()))
    assert torch.equal(read(video, 2)[0], read(clip, 2)[0])


@pytest.mark.parametrize(
    ("start", "seconds"), [(0, 0.5), (0.25, 0), (0.3, 0.41), (-0.5, 0), (0.25, 99)], ids=lambda number: str(number)
)
def test_a_trim_is_honoured(read, clip, start, seconds):
    """The frames are those that the host sees. Seen to fail when the trim's start is not added."""
    trimmed = clip.as_trimmed(start, seconds, strict_duration=False)
    wanted = numbers(trimmed.get_components().images, 23)
    seen, index, num_ranges = [], 0, 1
    while index < num_ranges:
        images, part, _, num_ranges, new_from, _ = read(trimmed, index, 5)
        seen += numbers(images[new_from:], 23)
        index += 1
    assert seen == wanted and part.num_frames == len(wanted) < 23
    assert part.source != read(clip, 0)[1].source


def test_a_trim_without_frames_is_refused(read, clip):
    with pytest.raises(ValueError, match="the trim of the video leaves no frame"):
        read(clip.as_trimmed(30, 0, strict_duration=False), 0)


def test_a_range_past_the_last_is_refused_with_their_number(read, clip):
    with pytest.raises(ValueError, match="there is no range 3: the video has 3, 0 to 2; begin again with 0"):
        read(clip, 3)


def test_a_range_that_does_not_fit_is_refused_with_one_that_does(pack, read, clip):
    """Seen to fail without the limit."""
    frame = pack.part("nodes.host.images").image_gib((1, 48, 64, 3))
    said = r"set range_frames to 5, or raise image_limit_gib"
    with pytest.raises(ValueError, match=said):
        read(clip, 0, 9, image_limit_gib=8 * frame)
    assert read(clip, 0, 9, image_limit_gib=9 * frame)[0].shape[0] == 9


def test_hdr_is_refused(read, from_file, from_pictures, tmp_path):
    from_pictures(greys(5)).save_to(str(tmp_path / "hdr.mp4"), color_space="HDR PQ")
    with pytest.raises(ValueError, match=r"hdr\.mp4 is HDR \(PQ\): convert it to SDR"):
        read(from_file(str(tmp_path / "hdr.mp4")), 0, 5)


def test_what_is_no_video_is_refused_in_a_sentence(read, from_file, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"hello" * 100)
    with pytest.raises(ValueError, match=r"clip\.mp4 is not a video that can be read"):
        read(from_file(str(tmp_path / "clip.mp4")), 0)


def test_a_file_is_counted_once_and_anew_when_it_changed(pack, read, clip, monkeypatch):
    """Seen to fail when it is remembered by its name alone."""
    frames = pack.part("nodes.host.frames")
    counted, count = [], frames.index_video
    monkeypatch.setattr(frames, "index_video", lambda source: (counted.append(source), count(source))[1])
    frames._index_of_file.cache_clear()
    assert read(clip, 0)[3] == read(clip, 1)[3] == 3
    assert len(counted) == 1
    path = clip.get_stream_source()
    write(path, find_format("h264-mp4"), greys(9))
    assert read(clip, 0)[3] == 1


def test_only_the_range_is_decoded_and_every_frame_is_progress(pack, read, clip, progress, monkeypatch):
    frames = pack.part("nodes.host.frames")
    asked, read_frames = [], frames.frames_of
    monkeypatch.setattr(frames, "frames_of", lambda *what: (asked.append(what[1:]), read_frames(*what))[1])
    read(clip, 1)
    assert asked == [(9, 9)]
    assert [told[:2] for told in (progress[0], progress[-1])] == [(1, 9), (9, 9)]  # the host leaves out some between


def test_cancel_stops_the_reading(pack, read, clip, monkeypatch):
    """Seen to fail without the check."""
    import comfy.model_management as mm

    frames = pack.part("nodes.host.frames")
    seen, read_frames = [], frames.frames_of

    def cancelled(*what):
        for frame in read_frames(*what):
            seen.append(frame)
            if len(seen) == 3:
                mm.interrupt_current_processing()
            yield frame

    monkeypatch.setattr(frames, "frames_of", cancelled)
    with pytest.raises(mm.InterruptProcessingException):
        read(clip, 0)
    assert len(seen) == 3


@pytest.fixture
def put(pack):
    """Run Ranges to Video: what it puts out, and what it shows."""

    def run(images, part, name="a/up", known="h264-mp4"):
        done = pack.part("nodes.video.ranges_to_video").RangesToVideo.execute(images, part, name, known)
        return done.result[0], done.ui

    return run


def double(images):
    """An upscaler."""
    return images.repeat_interleave(2, 1).repeat_interleave(2, 2)


@pytest.mark.parametrize("overlap", [0, 3])
def test_a_video_goes_out_and_comes_back_with_every_frame_once(read, put, clip, output, overlap):
    """Seen to fail when the frames that the range before has too are kept."""
    num_ranges = read(clip, 0, 9, overlap)[3]
    for index in range(num_ranges):
        images, part, *_ = read(clip, index, 9, overlap)
        video, shown = put(double(images), part)
        assert shown["text"][0].startswith(f"range {index + 1} of {num_ranges} is written")
        assert ("images" in shown) == (index == num_ranges - 1)
    path = output / "a" / "up.mp4"
    assert video.get_stream_source() == str(path)
    assert shown["images"] == [{"filename": "up.mp4", "subfolder": "a", "type": "output"}]
    info = probe(path)
    assert (info.num_frames, info.width, info.height, info.fps) == (23, 128, 96, 24)
    assert numbers(frames_of(path), 23) == list(range(23))


def test_until_the_last_range_is_there_nodes_behind_are_left_out_in_silence(read, put, clip, output):
    """Seen to fail with a message, which the host shows as an error."""
    for index, left in ((2, "2 to go, the next has range_index 0"), (0, "1 to go, the next has range_index 1")):
        images, part, *_ = read(clip, index)
        video, shown = put(images, part)
        assert type(video).__name__ == "ExecutionBlocker" and video.message is None
        assert shown["text"][0].endswith(left)
    images, part, *_ = read(clip, 1)
    assert put(images, part)[0].get_frame_count() == 23


def doubled(images):
    """An interpolator: twice as many pictures, and the last frame once."""
    between = (images[:-1] + images[1:]) / 2
    return torch.cat([torch.stack([images[:-1], between], 1).flatten(0, 1), images[-1:]])


def test_an_interpolator_between_doubles_the_rate_and_the_time_stays(read, put, clip, output):
    """Seen to fail at the seams, where a picture was there twice, and with the rate of the source."""
    for index in range(3):
        images, part, *_ = read(clip, index, 9, 1)
        _, shown = put(doubled(images), part)
        assert f"range {index + 1} of 3 is written, with 2 times as many pictures: 48 a second; " in shown["text"][0]
    assert shown["text"][0].endswith("45 frames")
    info = probe(output / "a" / "up.mp4")
    assert (info.num_frames, info.fps) == (45, 48)
    assert numbers(frames_of(output / "a" / "up.mp4"), 45) == list(range(45))
    with pytest.raises(ValueError, match="pictures for each frame: 2, and here 1"):
        put(read(clip, 0, 9, 1)[0], part)


def test_an_interpolator_needs_ranges_that_share_a_frame(read, put, clip, output):
    images, part, *_ = read(clip, 0)
    with pytest.raises(ValueError, match=r"between frames 8 and 9 would be missing.*set overlap to 1"):
        put(doubled(images), part)
    assert not list(output.rglob("*"))


def test_pictures_of_another_number_are_refused(read, put, clip, output):
    """An upscaler that drops what does not fit, and two videos behind each other. Seen to fail without the check."""
    images, part, *_ = read(clip, 0)
    for wrong in (images[:8], images.repeat(2, 1, 1, 1)):
        with pytest.raises(ValueError, match=rf"{len(wrong)} pictures came back for range 0, which has 9 frames"):
            put(wrong, part)
    assert not list(output.rglob("*"))


def test_another_video_of_the_same_name_is_refused_and_the_first_one_stays(read, put, clip, from_pictures, output):
    """Equal in size, length and rate: only its frames differ. Seen to fail without the source in the record."""
    for index in range(3):
        put(*read(clip, index)[:2])
    before = (output / "a" / "up.mp4").read_bytes()
    images, part, *_ = read(from_pictures(greys(23).flip(0)), 0)
    with pytest.raises(ValueError, match=r"holds ranges of something else \(video: clip\.mp4 .*, and here pict"):
        put(images, part)
    assert (output / "a" / "up.mp4").read_bytes() == before


def test_a_format_that_no_browser_plays_is_written_and_not_shown(read, put, from_file, output, tmp_path):
    video = from_file(write(tmp_path / "clip.mov", find_format("prores-422hq"), greys(5)))
    images, part, *_ = read(video, 0, 5)
    video, shown = put(images, part, "up.mov", "prores-422hq")
    assert list(shown) == ["text"] and video.get_stream_source() == str(output / "up.mov")
    assert numbers(frames_of(output / "up.mov"), 5) == list(range(5))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../../up", "outside"),
        ("up_%date%", "leave % out"),
        ("", "has no name"),
        ("a/.mp4", "no name"),
        ("..", "no name"),
    ],
)
def test_names_that_cannot_be_one_video_are_refused(read, put, clip, output, name, said):
    images, part, *_ = read(clip, 0)
    with pytest.raises(Exception, match=said):
        put(images, part, name)
    assert not list(output.rglob("*"))


def test_a_size_that_the_format_cannot_hold_is_refused_with_one_that_it_can(read, put, clip, output):
    images, part, *_ = read(clip, 0)
    with pytest.raises(ValueError, match=r"width 63 is not a multiple of 2.*use 62 or 64"):
        put(images[:, :, :63], part)


def test_cancel_leaves_nothing_of_the_range(pack, read, put, clip, output, progress):
    """Seen to fail without the check."""
    import comfy.model_management as mm

    put(*read(clip, 0)[:2])
    images, part, *_ = read(clip, 1)
    mm.interrupt_current_processing()
    with pytest.raises(mm.InterruptProcessingException):
        put(images, part)
    assert sorted(path.name for path in (output / "a" / "up.ranges").iterdir()) == ["ranges.json", "seg-00000.mp4"]


def test_on_a_server_a_queue_of_runs_walks_through_a_video(server):
    """The shipped workflow with Save Video behind it, as often as there are ranges, then once too often."""
    to_api = pytest.importorskip("comfy_cli.workflow_to_api", reason="comfy-cli is not installed").convert_ui_to_api
    workflow = json.loads((ROOT / "workflows" / "HiStream 09 Video to an upscaler.json").read_text(encoding="utf-8"))
    (server.folder / "input").mkdir(exist_ok=True)
    write(server.folder / "input" / "video.mp4", find_format("h264-mp4"), greys(23))
    prompt = to_api(workflow, server.get("/object_info"))
    ids = {node["class_type"]: key for key, node in prompt.items()}
    reader, joiner = prompt[ids["HiStreamVideoFrames"]]["inputs"], ids["HiStreamRangesToVideo"]
    reader |= {"range_frames": 9, "overlap": 2}
    behind = {"video": [joiner, 0], "filename_prefix": "video/saved", "format": "auto", "codec": "auto"}
    prompt["99"] = {"class_type": "SaveVideo", "inputs": behind}
    folder = server.folder / "output" / "video"
    for index in range(3):
        reader["range_index"] = index
        run = server.run(prompt)
        assert run.error == "" and run.outputs[joiner]["text"][0].startswith(f"range {index + 1} of 3 is written")
        assert ("99" in run.outputs) == (index == 2)
    assert run.outputs[joiner]["images"] == [{"filename": "upscaled.mp4", "subfolder": "video", "type": "output"}]
    with av.open(str(folder / "upscaled.mp4")) as container:
        assert json.loads(container.metadata["prompt"])[joiner]["class_type"] == "HiStreamRangesToVideo"
    assert (probe(folder / "upscaled.mp4").num_frames, probe(folder / "upscaled.mp4").width) == (23, 128)
    assert numbers(frames_of(folder / "upscaled.mp4"), 23) == list(range(23))
    reader["range_index"] = 3
    assert "the video has 3, 0 to 2; begin again with 0" in server.run(prompt).error


def test_on_a_server_what_was_deleted_is_written_again(server):
    """Seen to fail where the host may take the node's result from its cache."""
    (server.folder / "input").mkdir(exist_ok=True)
    write(server.folder / "input" / "deleted.mp4", find_format("h264-mp4"), greys(9))
    prompt = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": "deleted.mp4"}},
        "2": {
            "class_type": "HiStreamVideoFrames",
            "inputs": {"video": ["1", 0], "range_index": 0, "range_frames": 9, "overlap": 0},
        },
        "3": {
            "class_type": "HiStreamRangesToVideo",
            "inputs": {"images": ["2", 0], "range": ["2", 1], "name": "deleted", "format": "h264-mp4"},
        },
    }
    output = server.folder / "output"
    for _ in range(2):
        assert server.run(prompt).error == ""
        assert probe(output / "deleted.mp4").num_frames == 9
        shutil.rmtree(output / "deleted.ranges")
        (output / "deleted.mp4").unlink()
