"""Memory Plan and Drift Meter inside a real ComfyUI, and the anchor match through its nodes."""

import re
from types import SimpleNamespace

import pytest
import torch
from clips import shapes

from histream_core.runs.store.journal import read_manifest
from histream_core.stream.anchor_match import statistics_of
from histream_core.video.pixels import to_uint8
from histream_core.video.reading import frames_of

GB = 2**30


@pytest.fixture
def plan_text(pack, load_wan, latent):
    """The text of the Memory Plan for the tiny model, 64 x 64."""
    node = pack.part("nodes.model.memory_plan").MemoryPlan

    def run(wanted=None, model=None, **inputs) -> str:
        made = node.execute(model or load_wan(), wanted or latent(9), **inputs)
        [text] = made.result
        assert made.ui.as_dict() == {"text": (text,)}
        return text

    return run


@pytest.fixture
def video_of(output):
    """A VIDEO of these frames, in a file."""
    from comfy_api.latest import InputImpl

    from histream_core.video.formats import find_format
    from histream_core.video.writers import open_writer

    def make(frames, fps=16):
        path = output / "clip.mkv"
        with open_writer(path, find_format("ffv1", None), size=(frames.shape[2], frames.shape[1]), fps=fps) as writer:
            writer.write(frames)
        return InputImpl.VideoFromFile(str(path))

    return make


def of_card(text: str, card: str) -> str:
    """The plan's first line about a card of that size."""
    return next(line for line in text.splitlines() if line.startswith(f"  {card} GB: "))


def test_the_plan_names_size_parts_cards_this_computer_and_disk(plan_text):
    text = plan_text()
    verdict, video, *_ = text.splitlines()
    assert re.fullmatch(r"Fits as it is set: \d+\.\d GB of [\d.]+ GB", verdict)
    assert video.startswith("64x64, 33 frames (2.1 s at 16 fps) in 3 chunks; 16 network calls, ")
    for word in ("weights: ", "keys and values, kv_memory full: ", "memory of the VAE: ", "on the disk: nothing"):
        assert word in text
    assert of_card(text, "24").startswith("  24 GB: the defaults, ")
    assert text.count("costs: nothing") == 5, "four cards and this computer"


def test_the_plan_counts_what_a_run_is_refused_by(pack, plan_text, load_wan, vae, latent, monkeypatch):
    """Seen to fail with the figures of another VAE."""
    import comfy.model_management as mm

    describe, memory = pack.part("histream_core.runs.describe"), pack.part("nodes.host.memory")
    model = load_wan()
    backend = pack.part("nodes.host.backend").HostBackend(model, vae)
    sampler = pack.part("nodes.sampling.anchor_window_sampler").chunk_sampler(model, None, (-1, -1, -1), 0.0, None)
    plan = sampler.plan(latent(9)["samples"].shape)
    cost = memory.cost_of(model, vae, plan)
    assert cost.vae_width == vae.first_stage_model.dim == 8
    monkeypatch.setattr(mm, "get_total_memory", lambda device: cost.peak_bytes + 1.2 * GB)
    describe.check_memory(backend, plan)
    monkeypatch.setattr(mm, "get_total_memory", lambda device: cost.peak_bytes + 0.8 * GB)
    with pytest.raises(ValueError, match=r"are needed and [\d.]+ GB are there"):
        describe.check_memory(backend, plan)


def test_on_the_cpu_main_memory_is_no_tier_and_weights_have_nowhere_else_to_go(plan_text):
    text = plan_text()
    assert "kv_memory lean: " in text
    assert "kv_memory cpu" not in text
    assert "weights wait" not in text


def test_on_a_gpu_the_plan_proposes_what_fits_there(pack, plan_text, load_wan, latent, monkeypatch):
    """Seen to fail with a card that is always of 24 GB."""
    import comfy.model_management as mm

    monkeypatch.setattr(mm, "is_device_cpu", lambda device: False)
    monkeypatch.setattr(mm, "get_total_memory", lambda device: 8 * GB)
    text = plan_text(latent(9, 832, 480))
    here = text.split("what runs here, on cpu with\n")[1].splitlines()
    assert here[0] == of_card(text, "8")
    assert re.match(r"  8 GB: .*, [0-7]\.\d GB; costs: ", here[0])
    assert "kv_memory cpu: " in text


@pytest.mark.parametrize(
    ("folder", "name", "found"),
    [
        ("vae", "taew2_1.safetensors", True),
        ("vae_approx", "lighttaew2_1.pth", True),
        ("vae_approx", "taew2_1.safetensors", False),
        ("vae", "lighttaew2_1.pth", False),
    ],
)
def test_a_taehv_is_proposed_only_where_load_vae_finds_its_file(
    pack, plan_text, latent, monkeypatch, folder, name, found
):
    """Seen to fail where the folder does not count: Load VAE does not offer the third, and cannot load the last."""
    files = {"vae": [], "vae_approx": [], folder: [name]}
    monkeypatch.setattr(pack.part("nodes.host.memory").folder_paths, "get_filename_list", files.get)
    assert ("a taehv VAE file" in plan_text(latent(9, 3840, 2176))) is found


def test_with_a_video_output_the_disk_counts_and_chunks_are_decoded_at_once(pack, plan_text, latent, monkeypatch):
    import comfy.model_management as mm

    monkeypatch.setattr(mm, "is_device_cpu", lambda device: False)
    [choice] = pack.part("nodes.video.video_output").VideoOutputNode.execute("shots/run", "prores-422hq", fps=24).result
    memory, asked = pack.part("nodes.host.memory"), []
    ways = memory.ways
    monkeypatch.setattr(
        memory, "ways", lambda *args, **options: asked.append(options["apart"]) or ways(*args, **options)
    )
    large = latent(9, 1920, 1088)
    text = plan_text(large, output=choice)
    assert " s at 24 fps) in" in text
    assert re.search(r"on the disk, about: latents \d.*, segments \d.*, video \d.*, together .* are free", text)
    plan_text(large)
    assert asked == [False, True]


def test_the_verdict_is_of_this_computer_and_its_disk(pack, plan_text, latent, monkeypatch):
    """Seen to fail without the disk."""
    import comfy.model_management as mm

    memory = pack.part("nodes.host.memory")
    monkeypatch.setattr(mm, "get_total_memory", lambda device: 2 * GB)
    [choice] = pack.part("nodes.video.video_output").VideoOutputNode.execute("shots/run", "prores-422hq").result
    small, large = latent(9), latent(9, 1920, 1088)
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    first = plan_text(large, output=choice).splitlines()[0]
    assert first.startswith("Does not fit: the least at this size is ")
    assert re.search(r"The disk is too small: \d+\.\d GB are needed, and 0\.0 GB are free$", first)
    assert "disk" not in plan_text(small).splitlines()[0]


SIZES = [((32, 32), 256, 256), ((64, 48), None, 64), ((960, 544), None, 512), ((8, 8), 960, 512)]


def test_a_preview_is_as_large_as_the_video_and_at_most_512(pack):
    """The host scales it to the number. Seen to fail with 512 for a video of 256."""
    from PIL import Image

    as_preview = pack.part("nodes.host.preview").as_preview
    for size, video_size, shown in SIZES:
        assert as_preview(Image.new("RGB", size), video_size)[2] == shown


def test_a_size_that_is_cropped_costs_what_is_made(plan_text, latent):
    assert plan_text(latent(3, 64, 80)).splitlines()[1:] == plan_text(latent(3, 64, 96)).splitlines()[1:]


def test_the_drift_meter_draws_what_changes_and_keeps_it_as_a_file(pack, video_of, output, progress):
    """Seen to fail with the plot of another video."""
    meter = pack.part("nodes.video.drift_meter").DriftMeter
    frames = torch.stack([shapes(1, 64, 96)[0] * (1 - 0.3 * index / 47) for index in range(48)])
    made = meter.execute(video_of(frames))
    image, text = made.result
    [saved] = made.ui.as_dict()["images"]
    path = output / saved["subfolder"] / saved["filename"]
    [picture] = frames_of(path)
    assert torch.allclose(picture, image[0], atol=1e-6)
    assert re.match(r"in second 2: colour off by \d\.\d%, brightness by -\d+\.\d%, sharpness \d+%", text)
    assert progress[-1][:2] == (48, 48)
    calm = meter.execute(video_of(frames[:1].expand(48, -1, -1, -1)))
    assert "brightness by +0.0%" in calm.result[1]
    assert len(list(path.parent.iterdir())) == 2


def test_a_video_too_short_to_drift_is_refused_and_nothing_is_written(pack, video_of, output):
    meter = pack.part("nodes.video.drift_meter").DriftMeter
    with pytest.raises(ValueError, match="less than two seconds"):
        meter.execute(video_of(shapes(9, 64, 96)))
    assert [path.name for path in output.iterdir()] == ["clip.mkv"]


@pytest.fixture
def make(pack, load_wan, positive, latent, vae):
    """The LATENT of 9 frames with an anchor match; kept where `output` is given."""
    sampler = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler

    def run(weight, **inputs):
        made = sampler.execute(load_wan(), positive, latent(9), 3, vae=vae, anchor_match=weight, **inputs)
        return made.result[0]["samples"]

    return run


def test_the_anchor_match_of_the_node_reaches_every_later_chunk(make):
    free, held = make(0.0), make(1.0)
    assert torch.equal(held[:, :, :3], free[:, :, :3])
    first, last = (statistics_of(part) for part in (held[:, :, :3], held[:, :, 6:]))
    assert torch.allclose(first.std, last.std, rtol=1e-3)
    assert not torch.allclose(statistics_of(free[:, :, 6:]).std, last.std, rtol=1e-2)


def test_a_kept_run_has_the_match_among_its_settings_and_is_another_one_without(pack, make, output):
    """Seen to fail where the plan of the nodes leaves it out."""
    [choice] = pack.part("nodes.video.video_output").VideoOutputNode.execute("shots/run", "ffv1").result
    kept = make(0.5, output=choice)
    assert torch.allclose(kept, make(0.5), atol=1e-4)
    assert read_manifest(output / "shots" / "run_00001").plan.anchor_match == 0.5
    make(0.0, output=choice)
    assert read_manifest(output / "shots" / "run_00002").plan.anchor_match == 0
    make(0.5, output=choice)
    assert not (output / "shots" / "run_00003").exists()


def test_pictures_of_the_plot_are_those_of_the_engine(pack):
    drift, engine = pack.part("nodes.host.drift"), pack.part("histream_core.lab.charts.drift")
    seconds = pack.part("histream_core.lab.judge.drift_meter").meter(list(shapes(40, 32, 48)), 8)
    plot = engine.drift_plot(seconds)
    assert (to_uint8(drift.to_image(plot))[0] == plot).all()
