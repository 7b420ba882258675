"""Options of decoding on the command line: the VAE's file, strips, layout, a device, and decoding ahead."""

import copy
from dataclasses import replace

import pytest
import torch
from clips import probe, read_frames
from safetensors.torch import save_file
from tiny_cli import refusal_of, render_words, result_of
from tiny_vae import make_taehv

from histream_core.cli.options.weights import demo_source
from histream_core.plan.make import make_plan
from histream_core.runs import render as road
from histream_core.runs import weights as bare
from histream_core.runs.describe import check_memory
from histream_core.vae import ahead
from histream_core.vae.taehv import TAEHV
from histream_core.weights.containers import CheckpointError
from histream_core.weights.inspection import inspect
from histream_core.weights.loading import load_vae, read_vae

SIZE = ["--size", "256x32", "--frames", "21", "--mode", "histream"]


def small_file(folder, *, dtype=torch.float32, name="taehv.safetensors"):
    weights = {key: x.to(dtype) for key, x in make_taehv().state_dict().items()}
    save_file(weights | {"encoder.0.weight": torch.zeros(4, 3, 3, 3, dtype=dtype)}, folder / name)
    return folder / name


def frames_of(result):
    return torch.stack([torch.tensor(frame) for frame in read_frames(result["file"])])


def test_a_taehv_loads_by_what_it_holds_and_takes_the_latents_of_its_file_unless_told_otherwise(tmp_path):
    """Seen to fail when the type asked for decides on the latents."""
    path = small_file(tmp_path)
    assert inspect(path)["kind"] == "taehv" and read_vae(path).kind == "taehv"
    light, plain = load_vae(path, dtype=torch.float16), load_vae(small_file(tmp_path, dtype=torch.float16, name="b"))
    assert type(light) is type(plain) is TAEHV
    assert light.raw_latents and not plain.raw_latents
    assert not load_vae(path, raw_latents=False).raw_latents
    assert torch.equal(light.decoder[1].weight, plain.decoder[1].weight)
    save_file({key: x for key, x in light.state_dict().items() if "9.conv.2" not in key}, tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"2 missing \(decoder\.9\.conv\.2"):
        load_vae(tmp_path / "c")


def test_render_decodes_with_a_taehv(weights, here, capsys):
    words = render_words(weights, *SIZE, "--out", "a.mkv", "--format", "ffv1")
    words[words.index("--vae") + 1] = str(small_file(here))
    result = result_of(words, capsys)
    assert probe(result["file"]).num_frames == 21
    assert (
        "taehv.safetensors does not say which latents it takes; it is float32, so it is given raw"
        in result["notes"][-1]
    )


@pytest.mark.slow
def test_ahead_and_another_layout_make_the_same_video_and_strips_nearly(weights, here, capsys, monkeypatch):
    """Seen to fail when ahead decodes a chunk twice, and when strips are not handed on."""
    worked = []
    work = ahead._work
    monkeypatch.setattr(ahead, "_work", lambda *args: worked.append(1) or work(*args))
    videos = {}
    for name, words in {
        "plain": [],
        "ahead": ["--decode", "ahead", "--vae-device", "cpu"],
        "layout": ["--vae-layout", "channels-last"],
        "strips": ["--vae-strips", "2"],
    }.items():
        out = ["--out", f"{name}.mkv", "--format", "ffv1"]
        videos[name] = frames_of(result_of(render_words(weights, *SIZE, *out, *words), capsys))
        assert bool(worked) == (name != "plain")
    assert torch.equal(videos["ahead"], videos["plain"])
    assert (videos["layout"].int() - videos["plain"].int()).abs().max() <= 1
    assert not torch.equal(videos["strips"], videos["plain"])


def test_what_cannot_be_is_refused_before_anything_is_computed(weights, here, capsys, monkeypatch):
    monkeypatch.setattr(road, "stream_frames", None)
    narrow = render_words(weights, "--size", "64x32", "--frames", "5", "--vae-strips", "2", "--out", "a.mp4")
    assert "2 strips are too many for 64 pixels: use at most 1" in refusal_of(narrow, capsys)
    elsewhere = render_words(weights, *SIZE, "--vae-device", "cuda:7", "--out", "a.mp4")
    assert "cannot be used here" in refusal_of(elsewhere, capsys)
    assert not any(path.suffix == ".mp4" for path in here.iterdir())


def test_a_vae_on_another_device_is_held_against_that_ones_memory(monkeypatch):
    """Seen to fail where it is counted on the network's device."""
    loaded, _ = demo_source([], torch.device("cpu")).load()
    apart = replace(loaded, vae=copy.deepcopy(loaded.vae).to("meta"))
    plan = make_plan(loaded.preset, "histream", size=(128, 128), num_latent_frames=9)
    monkeypatch.setattr(bare, "installed_memory", lambda device: 2**30 if device.type == "meta" else 2**40)
    check_memory(loaded, plan)
    with pytest.raises(ValueError, match=r"^decoding needs 1\.. GB on its device, and 1 GB are there: "):
        check_memory(apart, plan)
    monkeypatch.setattr(bare, "installed_memory", lambda device: 2**40 if device.type == "meta" else 2**30)
    with pytest.raises(ValueError, match=r"^1\.. GB are needed and 1 GB are there: .*VAE memory 0\.0 GB"):
        check_memory(apart, plan)
    check_memory(apart, plan, ignore=True)
