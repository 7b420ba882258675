"""The pictures of scenes, read from a folder, and a VAE that is trained on them."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from histream_core.demo.scenes import THINGS
from histream_core.lab.judge.pictures import read_pictures
from histream_core.vae.model import WanVAE
from training import train_vae, vae_forward
from training.checkpoint import read


@pytest.fixture
def folder(tmp_path):
    """Half-transparent white pictures with a hole, by the names of the package's files."""
    picture = np.full((32, 32, 4), (255, 255, 255, 128), np.uint8)
    picture[8:16, 8:16, 3] = 0
    found = tmp_path / "assets"
    found.mkdir()
    for name, _ in THINGS.values():
        Image.fromarray(picture).save(found / f"{name}.webp", lossless=True, exact=True)
    return found


def test_colours_are_multiplied_by_the_opacity_of_the_file(folder):
    """Seen to fail when a file is read without its opacity."""
    found = read_pictures(folder)
    assert set(found) == set(THINGS)
    cat = found["cat"]
    assert cat.shape == (4, 32, 32)
    assert cat[:, 0, 0].tolist() == pytest.approx([128 / 255] * 4, abs=0.01)
    assert cat[:, 10, 10].tolist() == [0, 0, 0, 0]


def test_a_picture_that_is_not_there_is_named_with_what_to_do(folder):
    (folder / "1f431.webp").unlink()
    with pytest.raises(FileNotFoundError, match=r"1f431.webp is not there, which shows a cat: npm pack"):
        read_pictures(folder)


def test_the_loss_counts_what_latents_lose_when_they_are_halved():
    """Flat ones lose nothing; halved ones are decoded at half size. Seen to fail without either term."""
    torch.manual_seed(0)
    vae, half = WanVAE(dim=2).requires_grad_(False), torch.nn.AvgPool3d((1, 2, 2))
    vae_forward.initialise(vae)
    pixels, noise = torch.rand(1, 3, 5, 64, 64) * 2 - 1, torch.zeros(1, 16, 2, 8, 8)
    flat, scattered = torch.randn(1, 16, 2, 1, 1).expand(noise.shape), torch.randn(noise.shape)
    lost = []
    for z in (flat, scattered):
        loss = [train_vae.losses(vae, pixels, z, noise, *weights)["loss"] for weights in ((0, 0), (3, 0), (0, 2))]
        shown, smooth = (other - loss[0] for other in loss[1:])
        error = vae_forward.decode(vae, half(z)) - half(pixels)
        torch.testing.assert_close(shown, 3 * (error.abs().mean() + 2 * error.square().mean()))
        lost.append(float(smooth) / 2)
    assert lost[0] < 1e-6 and lost[1] > 0.5


@pytest.mark.slow
def test_a_vae_goes_on_from_another_with_scenes(folder, tmp_path, capsys):
    """Seen to fail when the weights that it begins with stay as they are."""
    torch.manual_seed(0)
    weights = WanVAE(dim=2).state_dict()
    save_file(weights, tmp_path / "vae.safetensors")
    words = ["--begin", tmp_path / "vae.safetensors", "--pictures", folder, "--steps", 2, "--out", tmp_path / "run"]
    train_vae.main([*map(str, words)])
    assert "the same of scenes: " in capsys.readouterr().out
    trained = read(tmp_path / "run" / "checkpoint.pt")["vae"]
    assert any(not torch.equal(trained[name], weights[name]) for name in weights)
