"""Streaming VAE Decode inside a real ComfyUI, with a tiny VAE of random weights."""

import errno
import io
import os
import re
from types import SimpleNamespace

import pytest
import torch
from clips import probe
from sounds import sound_file, sound_packets


@pytest.fixture
def filled() -> dict:
    """A LATENT of two videos, 5 latent frames of 64x48 pixels."""
    return {"samples": torch.randn(2, 16, 5, 6, 8, generator=torch.Generator().manual_seed(7))}


@pytest.fixture
def decode(pack):
    return pack.part("nodes.video.streaming_vae_decode").StreamingVAEDecode.execute


def test_the_frames_are_those_of_the_hosts_own_decode(decode, vae, filled, output):
    """Seen to fail when the decoder is reset before each latent frame."""
    wanted = vae.decode(filled["samples"])
    _, images, _ = decode(filled, vae, "a/b", images=True).result
    assert images.shape == (2 * 17, 48, 64, 3)
    torch.testing.assert_close(images, wanted.flatten(0, 1), rtol=0, atol=1e-5)


def test_on_a_cpu_the_same_weights_decode_in_faster_modules_and_exist_once(pack, vae):
    """Seen to fail when the weights are copied."""
    ours, theirs = pack.part("nodes.host.vae").vae_module(vae), vae.first_stage_model
    assert ours is not theirs
    wanted = {key: value.data_ptr() for key, value in theirs.state_dict().items()}
    assert {key: value.data_ptr() for key, value in ours.state_dict().items()} == wanted


def test_where_weights_are_not_plain_the_hosts_modules_decode(pack, decode, vae, filled, output, monkeypatch):
    """On a graphics card the host moves and casts them, so its own modules must be called."""
    monkeypatch.setattr(pack.part("nodes.host.vae"), "vae_module", lambda vae: vae.first_stage_model)
    _, images, _ = decode(filled, vae, "a/b", images=True).result
    torch.testing.assert_close(images, vae.decode(filled["samples"]).flatten(0, 1), rtol=0, atol=1e-5)


def test_kernels_without_a_past_are_2d_in_the_hosts_modules_too(pack, decode, vae, filled, output, monkeypatch):
    """Seen to fail when no kernel counts as still: then the history keeps frames for all of them."""
    part = pack.part("histream_core.vae.decode")
    module = vae.first_stage_model
    kernels = part.causal_kernels(module.decoder.upsamples[8:])
    before = [kernel.weight.clone() for kernel in kernels]
    monkeypatch.setattr(pack.part("nodes.host.vae"), "vae_module", lambda vae: module)
    full, size = part.vae_cache_bytes(module, 48, 64), filled["samples"].shape
    needed = pack.part("nodes.host.decode").decode_bytes(vae, size)
    try:
        for kernel in kernels:
            kernel.weight.data[:, :, :-1] = 0
        _, images, _ = decode(filled, vae, "a/b", images=True).result
        torch.testing.assert_close(images, vae.decode(filled["samples"]).flatten(0, 1), rtol=0, atol=1e-5)
        assert part.vae_cache_bytes(module, 48, 64) < full / 2
        assert pack.part("nodes.host.decode").decode_bytes(vae, size) < needed
    finally:
        for kernel, weight in zip(kernels, before, strict=True):
            kernel.weight.data.copy_(weight)


def test_every_video_of_a_batch_is_a_file_on_disk_that_plays(decode, vae, filled, output):
    result = decode(filled, vae, "a/b", fps=12)
    files = sorted(output.glob("a/*.mp4"))
    assert [file.name for file in files] == ["b_00001_.mp4", "b_00002_.mp4"]
    assert [video.get_stream_source() for video in result.result[0]] == [str(file) for file in files]
    for file in files:
        info = probe(file)
        assert (info.num_frames, info.width, info.height, info.fps) == (17, 64, 48, 12)
    assert result.ui.as_dict()["images"] == [
        {"filename": file.name, "subfolder": "a", "type": "output"} for file in files
    ]


def test_every_latent_frame_is_progress_with_a_picture(decode, vae, filled, output, progress):
    decode(filled, vae, "a/b")
    assert [(value, total) for value, total, _ in progress] == [(n, 10) for n in range(1, 11)]
    assert progress[-1][2][1].size == (64, 48)


def test_it_says_how_far_it_is_and_in_the_end_what_it_took(pack, decode, vae, filled, output, monkeypatch):
    """In one line, for which there is room above the player. Seen to fail with lines that count the frames of one video
    for those of all, and with a summary of three lines under the node."""
    told = []
    monkeypatch.setattr(pack.part("nodes.host.log"), "tell", told.append)
    *_, summary = decode(filled, vae, "a/b", fps=12).result
    assert told[0] == "loading the VAE, 0 of 34 frames"
    pace = r"\d\.\d\d s for each, (about \d+ s left, )?slowest: (decode|write)"
    assert re.fullmatch(rf"video 1 of 2, latent frame 2 of 5, 1 of 34 frames, {pace}", told[1])
    assert any(re.fullmatch(rf"video 2 of 2, latent frame 5 of 5, 30 of 34 frames, {pace}", line) for line in told)
    assert re.fullmatch(rf"all decoded, 34 of 34 frames, {pace}", told[-1])
    first, second, third = summary.splitlines()
    assert first == "b_00001_.mp4, b_00002_.mp4: 64x48, 17 frames, h264-mp4 at 12 frames per second"
    assert re.fullmatch(r"34 frames in \d+ s, \d\.\d\d s for each", second)
    assert re.fullmatch(r"decode [\d.]+ s, encode and write [\d.]+ s; slowest: (decode|write)", third)


def test_cancel_leaves_a_file_that_plays(pack, decode, vae, filled, output, progress, monkeypatch):
    """And no time is left. Seen to fail when InterruptProcessingException is not in keep_on."""
    import comfy.model_management as mm
    import comfy.utils

    told = []
    monkeypatch.setattr(pack.part("nodes.host.log"), "tell", told.append)

    def cancel(value, total, preview, node_id=None):
        if value == 3:
            mm.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(cancel)
    with pytest.raises(mm.InterruptProcessingException):
        decode(filled, vae, "a/b")
    [file] = output.glob("a/*")
    assert probe(file).num_frames == 9
    assert re.fullmatch(r"stopped: video 1 of 2, latent frame 4 of 5, 9 of 34 frames, \d\.\d\d s for each", told[-1])


def test_images_above_the_limit_are_refused_with_the_number(pack, decode, vae, output, monkeypatch):
    monkeypatch.setattr(pack.part("nodes.host.decode"), "decode_to_disk", None)
    latent = {"samples": torch.ones(1, 16, 21, 136, 240)}
    with pytest.raises(ValueError, match=r"would take 1\.9 GiB of memory and the limit is 1 GiB"):
        decode(latent, vae, "a/b", images=True, image_limit_gib=1)
    assert not list(output.rglob("*"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.mul(torch.nan), "NaN"),
        (lambda x: x[:, :4], r"shape \[2, 4, 5, 6, 8\]"),
        (lambda x: x[:, :, :0], r"shape \[2, 16, 0, 6, 8\]"),
    ],
)
def test_latents_that_cannot_be_decoded_are_refused_and_nothing_is_left(decode, vae, filled, output, change, said):
    with pytest.raises(ValueError, match=said):
        decode({"samples": change(filled["samples"])}, vae, "a/b")
    assert not list(output.rglob("*"))


def test_another_vae_is_refused(decode, filled, output):
    class Other:
        first_stage_model = torch.nn.Identity()

    with pytest.raises(ValueError, match=r"Identity, not a Wan 2\.1 VAE"):
        decode(filled, Other(), "a/b")


def test_a_folder_that_cannot_be_made_is_one_clear_line(decode, vae, filled, output):
    (output / "a").write_text("in the way")
    with pytest.raises(OSError, match="a"):
        decode(filled, vae, "a/b")


def test_a_full_disk_is_one_clear_line_leaves_nothing_and_the_next_run_works(
    pack, decode, vae, filled, output, monkeypatch
):
    """Seen to fail when an OSError is in keep_on."""
    file, room = pack.part("histream_core.files.disk").File, [4000]
    write = file.write

    def fill(self, data):
        room[0] -= len(data)
        if room[0] < 0 and not self.dropping:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, data)

    monkeypatch.setattr(file, "write", fill)
    with pytest.raises(OSError, match="No space left on device; free space or choose another folder") as refusal:
        decode(filled, vae, "a/b")
    assert "\n" not in str(refusal.value)
    assert not [path for path in output.rglob("*") if path.is_file()]
    monkeypatch.undo()
    decode(filled, vae, "a/b")
    assert [probe(path).num_frames for path in sorted(output.glob("a/*.mp4"))] == [17, 17]


def test_a_video_output_chooses_folder_format_and_rate(pack, decode, vae, filled, output):
    """Seen to fail with the node's own widgets."""
    make = pack.part("nodes.video.video_output").VideoOutputNode.execute
    [choice] = make("c/master", "prores-422hq", fps=24).result
    videos, *_ = decode(filled, vae, "a/b", output=choice).result
    assert [video.get_stream_source() for video in videos] == [str(output / f"c/master_0000{n}_.mov") for n in (1, 2)]
    assert (probe(videos[0].get_stream_source()).num_frames, probe(videos[0].get_stream_source()).fps) == (17, 24)
    [choice] = make("c/pictures", "png16").result
    blocked, *_ = decode(filled, vae, "a/b", output=choice).result
    assert "folder of pictures" in blocked[0].message
    assert len(list((output / "c" / "pictures_00002_").iterdir())) == 17


def test_a_disk_without_room_is_refused_before_decoding(pack, decode, vae, filled, output, monkeypatch):
    """Seen to fail without `check_space`."""
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    monkeypatch.setattr(pack.part("nodes.host.decode"), "decode_latent", None)
    with pytest.raises(OSError, match="free space, choose another folder"):
        decode(filled, vae, "a/b")
    assert not [path for path in output.rglob("*") if path.is_file()]


def test_an_output_folder_that_is_not_there_yet_is_made(decode, vae, filled, output):
    """A fresh ComfyUI has none. Seen to fail when its free space is read before it exists."""
    output.rmdir()
    decode(filled, vae, "a/b")
    assert len(list(output.glob("a/*.mp4"))) == 2


def test_the_sound_of_a_video_output_goes_into_every_video_of_a_batch_within_its_trim(
    pack, decode, vae, filled, output, tmp_path_factory
):
    """Seen to fail where the choice is not passed on to the writer, and where a trim is not honoured."""
    from comfy_api.latest import InputImpl

    path = sound_file(tmp_path_factory.mktemp("input") / "voice.m4a", 3)
    packets = sound_packets(path)
    make = pack.part("nodes.video.video_output").VideoOutputNode.execute
    video = InputImpl.VideoFromFile(io.BytesIO(path.read_bytes()))
    for sound, heard in ((video, (0, 17 / 16)), (video.as_trimmed(1.0, 0.5), (1, 1.5))):
        [choice] = make("c/loud", sound=sound).result
        videos, *_ = decode(filled, vae, "a/b", output=choice).result
        wanted = [data for data, time in packets if heard[0] <= time < heard[1]]
        found = [[data for data, _ in sound_packets(made.get_stream_source())] for made in videos]
        assert found == [wanted, wanted]
        assert [probe(made.get_stream_source()).num_frames for made in videos] == [17, 17]


def host_taehv(*, float16=False):
    """A VAE of the host around a small decoder of random weights and the published sizes."""
    import comfy.sd
    from comfy.taesd.taehv import TAEHV

    torch.manual_seed(3)
    weights = {
        key: torch.randn(x.shape) / x[0].numel() ** 0.5 if x.ndim > 1 else torch.zeros(x.shape)
        for key, x in TAEHV(latent_channels=16).state_dict().items()
    }
    return comfy.sd.VAE(sd={key: x.half() if float16 else x for key, x in weights.items()})


def test_a_taehv_decodes_as_in_the_host_any_length_at_a_time(decode, filled, output):
    """Seen to fail when the first frame of every call is taken for the first of the video."""
    vae = host_taehv()
    latents = {"samples": filled["samples"][:, :, :3, :4, :4]}
    _, images, _ = decode(latents, vae, "a/b", images=True).result
    assert images.shape == (2 * 9, 32, 32, 3)
    wanted = vae.decode(latents["samples"]).flatten(0, 1).clamp(0, 1)
    assert wanted.std() > 0.1
    torch.testing.assert_close(images, wanted, rtol=0, atol=1e-4)


def test_a_taehv_in_float16_is_given_latents_as_they_are_sampled(decode, filled, output):
    """The published taew2_1 wants them so. Seen to fail with raw latents."""
    import comfy.latent_formats

    latents = filled["samples"][:1, :, :2, :4, :4]
    raw = comfy.latent_formats.Wan21().process_out(latents)
    _, images, _ = decode({"samples": raw}, host_taehv(float16=True), "a/b", images=True).result
    wanted = host_taehv().decode(latents).flatten(0, 1).clamp(0, 1)
    torch.testing.assert_close(images, wanted, rtol=0, atol=0.02)


def test_a_taehv_of_another_model_is_refused(decode, filled, output):
    import comfy.sd
    from comfy.taesd.taehv import TAEHV

    other = comfy.sd.VAE(sd=TAEHV(latent_channels=48).state_dict())
    with pytest.raises(ValueError, match="TAEHV, not a Wan"):
        decode(filled, other, "a/b")


def test_strips_and_layout_come_from_hi_stream_speed(pack, decode, vae, output):
    """Seen to fail when the choices are not handed on."""
    part, bytes_of = pack.part("histream_core.vae.decoders"), pack.part("nodes.host.decode").decode_bytes
    speed = pack.part("histream_core.plan.speed").Speed(vae_strips="2", vae_layout="channels-last")
    latents = torch.randn(1, 16, 4, 4, 32, generator=torch.Generator().manual_seed(8))
    _, whole, _ = decode({"samples": latents}, vae, "a/b", images=True).result
    _, images, _ = decode({"samples": latents}, vae, "a/b", images=True, speed=speed).result
    decoder = part.open_decoder(vae.first_stage_model, dtype=torch.float32, normalised=False, strips=2)
    wanted = pack.part("histream_core.vae.decode").to_frames(decoder.decode(latents))[0]
    torch.testing.assert_close(images, wanted, rtol=0, atol=1e-5)
    assert not torch.equal(images, whole)
    assert bytes_of(vae, latents.shape, speed) < bytes_of(vae, latents.shape)
    with pytest.raises(ValueError, match="use at most 1"):
        decode({"samples": latents[..., :16]}, vae, "a/b", speed=speed)


def test_a_file_that_another_program_makes_meanwhile_is_never_replaced(pack, decode, vae, filled, output, monkeypatch):
    """Seen to fail with the number that the host counted: two servers may share the folder."""
    (output / "a").mkdir()
    for name in ("clip_00001_.mp4", "clip_00002_.partial.mp4"):
        (output / "a" / name).write_bytes(b"dear")
    counted = output / "a", "clip", 1, "a"
    monkeypatch.setattr(pack.part("nodes.host.decode"), "new_file", lambda *_: counted)
    decode({"samples": filled["samples"][:1, :, :2]}, vae, "a/clip")
    assert sorted(path.name for path in (output / "a").iterdir()) == [
        "clip_00001_.mp4", "clip_00002_.partial.mp4", "clip_00003_.mp4",
    ]  # fmt: skip
    assert (output / "a" / "clip_00001_.mp4").read_bytes() == b"dear"
