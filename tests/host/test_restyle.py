"""Video to Video inside a real ComfyUI: over /prompt the bytes of the command line, stopped and resumed, refusals."""

import contextlib
import io
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from clips import probe, shapes
from safetensors.torch import load_file
from sounds import sound_file, sound_packets
from test_decode import host_taehv

from histream_core import cli
from histream_core.video.formats import find_format
from histream_core.video.writers import open_writer

MODEL, CLIP, VAE = (["1", index] for index in range(3))
PROMPT = "a red circle moving right on white"


def clip(path, count=30, *, size=(48, 64), fps=24000 / 1001, sound=None, format="h264-mp4"):
    """A clip of moving shapes in a file."""
    with open_writer(path, find_format(format, None), size=size, fps=fps, sound=sound) as writer:
        writer.write(shapes(count, size[1], size[0]))
    return path


@pytest.fixture
def load_video(comfyui):
    """VIDEO of a file, as Load Video makes it."""
    from comfy_api.latest import InputImpl

    return lambda path, **trim: InputImpl.VideoFromFile(path if isinstance(path, io.BytesIO) else str(path), **trim)


@pytest.fixture
def nodes(pack, output):
    """The nodes by short names; runs lie under the output folder of this test."""
    names = {
        "video.video_output": "VideoOutputNode",
        "video.video_to_video": "VideoToVideo",
        "runs.resume_run": "ResumeRun",
        "runs.extend_run": "ExtendRun",
        "runs.branch_run": "BranchRun",
    }
    parts = {file: pack.part(f"nodes.{file}") for file in names}
    found = {file.split(".")[1]: getattr(parts[file], name).execute for file, name in names.items()}
    return SimpleNamespace(**found, output=output)


@pytest.fixture
def restyle(nodes, load_wan, vae, positive, load_video):
    """Restyle a file with seed 3; returns what the node gives out."""

    def run(path, *, prompt=None, model=None, folder=None, format="ffv1", **inputs):
        settings = {"format": format} | ({"bit_depth": "8"} if format == "ffv1" else {})
        output = nodes.video_output(folder, **settings).result[0] if folder else None
        model = model or load_wan()
        return nodes.video_to_video(
            model, prompt or positive, vae, load_video(path), 3, **{"output": output} | inputs
        ).result

    return run


@pytest.fixture
def stop(pack, monkeypatch):
    """Press Cancel when the network is about to make this call; calls are counted from 1."""
    import comfy.model_management as mm

    host_run = pack.part("nodes.host.run")
    denoise, calls = host_run.HostRun.denoise, []

    @contextlib.contextmanager
    def at(call):
        def count(self, *args):
            calls.append(1)
            if len(calls) == call:
                mm.interrupt_current_processing()
            return denoise(self, *args)

        with monkeypatch.context() as changed, pytest.raises(mm.InterruptProcessingException):
            changed.setattr(host_run.HostRun, "denoise", count)
            yield

    return at


def latents(folder) -> list[torch.Tensor]:
    return [load_file(path)["latent"] for path in sorted((folder / "chunks").iterdir())]


def made(folder) -> list[bytes]:
    """Latents, segments and cuts of a run; their checksums also tell of the weights, which hosts load otherwise."""
    segments = sorted((folder / "segments").glob("seg-*.m*"))
    found = [path.read_bytes() for path in [*segments, folder / "cuts.json"]]
    return [latent.numpy().tobytes() for latent in latents(folder)] + found


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory):
    """A server whose attention is PyTorch's, as on GPUs: the host's default on a CPU rounds otherwise."""
    with start_server(tmp_path_factory.mktemp("comfyui"), "--use-pytorch-cross-attention") as running:
        yield running


def test_over_the_server_a_restyled_video_is_that_of_the_command_line(server, tmp_path, capsys):
    """Seen to fail with another strength. Frames, rate and sound are the source's, and the node shows a player."""
    name = "restyle.mp4"
    source = clip(server.folder / "input" / name, sound=str(sound_file(tmp_path / "sound.m4a", 1.0)))
    inputs = {"model": MODEL, "positive": ["2", 0], "vae": VAE, "video": ["3", 0], "seed": 5, "strength": 0.75}
    run = server.run({
        "1": {"class_type": "HiStreamDemoModel", "inputs": {}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": CLIP, "text": PROMPT}},
        "3": {"class_type": "LoadVideo", "inputs": {"file": name}},
        "4": {"class_type": "HiStreamVideoToVideo", "inputs": inputs},
    })  # fmt: skip
    assert run.error == ""
    assert [file["filename"] for file in run.outputs["4"]["images"]] == ["video.mp4"]
    folder = server.folder / "output" / "histream" / "restyled_00001"
    words = ["--model", "demo", "--device", "cpu", "--prompt", PROMPT, "--seed", "5", "--strength", "0.75"]
    assert cli.main(["v2v", str(source), *words, "--run-dir", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert made(folder) == made(tmp_path / "run")
    info = probe(folder / "video.mp4")
    assert (info.num_frames, info.width, info.height) == (30, 48, 64)
    assert info.fps == pytest.approx(24000 / 1001)
    wanted = [data for data, _ in sound_packets(source)]
    assert [data for data, _ in sound_packets(folder / "video.mp4")] == wanted


def test_a_restyled_video_has_the_frames_rate_size_and_sound_of_its_source(restyle, nodes, tmp_path):
    """Whatever the Video Output says of rate and crop. Seen to fail with the rate of the Video Output."""
    source = clip(tmp_path / "in.mp4", 14, sound=str(sound_file(tmp_path / "sound.m4a", 0.5)))
    samples, video, run, summary = restyle(source, folder="shots/v2v", strength=0.75, motion=0.1)
    assert run == "shots/v2v_00001"
    info = probe(video.get_stream_source())
    assert (info.num_frames, info.width, info.height) == (14, 48, 64)
    assert info.fps == pytest.approx(24000 / 1001)
    assert samples["samples"].shape == (1, 16, 5, 8, 8)
    heard = [data for data, _ in sound_packets(video.get_stream_source())]
    assert heard == [data for data, _ in sound_packets(source)]
    assert "restyles in.mp4, strength 0.75, up to 0.1 less where it moves" in summary.splitlines()
    _, mute, run, _ = restyle(source, sound=False, strength=0.0)
    assert run == "histream/restyled_00001"
    with pytest.raises(ValueError, match="holds no sound"):
        sound_packets(mute.get_stream_source())


def test_sound_that_does_not_fit_into_the_format_is_left_out_and_told(restyle, tmp_path, caplog):
    """Cameras write PCM. Seen to fail behind the last chunk, where nothing could be saved any more."""
    source = clip(tmp_path / "in.mkv", 5, sound=str(sound_file(tmp_path / "in.wav", 0.3, "pcm_s16le")), format="ffv1")
    _, video, *_ = restyle(source, folder="shots/pcm", format="h264-mp4")
    assert probe(video.get_stream_source()).num_frames == 5
    with pytest.raises(ValueError, match="holds no sound"):
        sound_packets(video.get_stream_source())
    assert "convert in.mkv to AAC" in caplog.text


@pytest.mark.parametrize("given", [False, True])
def test_a_cancelled_run_goes_on_by_the_node_with_the_source_it_finds_or_is_given(
    restyle, nodes, load_wan, vae, load_video, stop, tmp_path_factory, given
):
    """The file is found where it was, inside the host's folders alone. Seen to fail without the source."""
    source = clip((tmp_path_factory.mktemp("elsewhere") if given else nodes.output) / "in.mp4")
    restyle(source, folder="whole/run")
    with stop(9):
        restyle(source, folder="shots/run")
    if given:
        with pytest.raises(ValueError, match="nobody says where it is: connect it to source, from Load Video"):
            nodes.resume_run(load_wan(), vae, "shots/run")
    where = {"source": load_video(source)} if given else {}
    *_, run, _ = nodes.resume_run(load_wan(), vae, "shots/run", **where).result
    assert made(nodes.output / run) == made(nodes.output / "whole/run_00001")


def test_run_pressed_again_goes_on_and_another_source_begins_anew(restyle, nodes, stop):
    source, other = clip(nodes.output / "in.mp4"), clip(nodes.output / "other.mp4", 29)
    with stop(9):
        restyle(source, folder="shots/run")
    assert restyle(source, folder="shots/run")[2] == "shots/run_00001"
    assert restyle(other, folder="shots/run")[2] == "shots/run_00002"


def test_branches_and_extensions_keep_the_size_and_rate_of_the_source(
    restyle, nodes, load_wan, vae, load_video, tmp_path
):
    """Seen to fail with the size of the latents."""
    source = clip(nodes.output / "in.mp4", 14)
    restyle(source, folder="shots/run")
    [png] = nodes.video_output("shots/new", format="prores-422hq", fps=16).result
    *_, run, _ = nodes.branch_run(load_wan(), vae, "shots/run", from_chunk=1, seed=8, output=png).result
    first, other = latents(nodes.output / "shots/run_00001"), latents(nodes.output / run)
    assert [torch.equal(*pair) for pair in zip(first, other, strict=True)] == [True, False]
    info = probe(nodes.output / run / "video.mov")
    assert (info.num_frames, info.width, info.height) == (14, 48, 64)
    assert info.fps == pytest.approx(24000 / 1001)
    found = load_video(source)
    _, longer, _, _ = nodes.extend_run(load_wan(), vae, "shots/run_00001", 0.5, source=found).result
    info = probe(longer.get_stream_source())
    assert info.num_frames >= 14 + 12
    assert (info.fps, info.width, info.height) == (pytest.approx(24000 / 1001), 48, 64)


def test_a_source_that_cannot_be_found_again_is_refused_and_nothing_is_left(restyle, nodes, load_video, tmp_path):
    from comfy_api.latest import InputImpl
    from comfy_api.latest._util import VideoComponents

    path = clip(tmp_path / "in.mp4", 5)
    pictures = InputImpl.VideoFromComponents(VideoComponents(images=torch.rand(5, 64, 48, 3), frame_rate=Fraction(16)))
    inside, cut = load_video(io.BytesIO(path.read_bytes())), load_video(path, duration=0.1)
    for video, said in ((inside, "in no file"), (pictures, "in no file"), (cut, "is cut")):
        with pytest.raises(ValueError, match=said):
            nodes.video_to_video(None, None, None, video, 3)
    assert list(nodes.output.rglob("*")) == [tmp_path / "in.mp4"]


def test_a_run_takes_no_other_source_and_none_where_it_has_none(restyle, nodes, load_wan, vae, load_video, tmp_path):
    source, other = clip(nodes.output / "in.mp4", 5), clip(tmp_path / "other.mp4", 6)
    restyle(source, folder="shots/run")
    with pytest.raises(ValueError, match=r"other.mp4 is not the video that the run restyles: connect it to source"):
        nodes.resume_run(load_wan(), vae, "shots/run", source=load_video(other))


def test_a_vae_that_cannot_encode_is_refused_before_the_run(nodes, load_wan, positive, load_video, tmp_path):
    source = clip(tmp_path / "in.mp4", 5)
    with pytest.raises(ValueError, match=r"TAEHV, which is here for decoding alone"):
        nodes.video_to_video(load_wan(), positive, host_taehv(), load_video(source), 3)
    assert list(nodes.output.rglob("*")) == [tmp_path / "in.mp4"]


def test_without_noise_the_source_comes_back_and_the_network_is_not_called(restyle, pack, tmp_path, monkeypatch):
    """Seen to fail where a step at level 0 is taken."""
    monkeypatch.setattr(pack.part("nodes.host.run").HostRun, "denoise", None)
    assert probe(restyle(clip(tmp_path / "in.mp4", 9), strength=0.0)[1].get_stream_source()).num_frames == 9


def test_room_is_made_for_encoding_the_source(restyle, pack, tmp_path, monkeypatch):
    """Beside decoding and the caches. Seen to fail with the room of text to video."""
    asked, host_run = [], pack.part("nodes.host.run")
    make_room = host_run.make_room
    monkeypatch.setattr(host_run, "make_room", lambda size, *rest: (asked.append(size), make_room(size, *rest)))
    source = clip(tmp_path / "in.mp4", 9)
    restyle(source)
    backend = pack.part("nodes.host.backend").HostBackend
    monkeypatch.setattr(backend, "encode_bytes", lambda *_: 0)
    restyle(source, strength=0.81)
    [with_source, without] = asked
    monkeypatch.undo()
    assert with_source - without > 2**20
