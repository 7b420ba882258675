"""Files of latent upsamplers: loaded from safetensors alone, everything else refused with what to do."""

import pytest
import torch
from safetensors.torch import save_file
from tiny_weights import refused

from histream_core.vae.upsampler import LatentUpsampler
from histream_core.weights.checkpoint import read_checkpoint
from histream_core.weights.convert import convert
from histream_core.weights.loading import load_upsampler


def weights(channels=16, width=4, num_blocks=2):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LatentUpsampler(channels, width, num_blocks).state_dict()


def load(path):
    return load_upsampler(path, dtype=torch.float32)


def test_a_pickle_is_refused_and_converted(tmp_path):
    """The file as it is published, one of torch.save with the weights under "model"."""
    torch.save({"model": weights()}, tmp_path / "up.pth")
    assert "histream convert" in (said := refused(tmp_path / "up.pth", load=load)) and "up.safetensors" in said
    convert(tmp_path / "up.pth", tmp_path / "up.safetensors")
    found = load(tmp_path / "up.safetensors").state_dict()
    assert found.keys() == weights().keys()
    assert all(torch.equal(x, weights()[key]) for key, x in found.items())


def test_it_computes_in_the_type_that_is_asked_for(tmp_path):
    save_file(weights(), tmp_path / "up.safetensors")
    network = load_upsampler(tmp_path / "up.safetensors", dtype=torch.bfloat16)
    latent = torch.randn(1, 16, 2, 2, 2)
    assert {x.dtype for x in network.parameters()} == {torch.bfloat16}
    assert network(latent)[0].dtype == latent.dtype


def tripled(width=4):
    return weights() | {
        "pre_shuffle.0.weight": torch.ones(9 * width, 16, 3, 3),
        "pre_shuffle.0.bias": torch.ones(9 * width),
    }


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (lambda: weights(channels=12), "12 channels"),
        (tripled, "pre_shuffle.0.weight"),
        (lambda: weights() | {"pre_shuffle.2.weight": torch.ones(16, 4, 3, 3)}, "pre_shuffle.2.weight"),
        (lambda: weights() | {"skip_up.0.weight": torch.ones(64, 16, 3, 3)}, "skip_up.0.weight"),
        (lambda: weights() | {"blocks.1.skip.weight": torch.ones(4, 4, 1, 1)}, "blocks.1.skip.weight"),
        (lambda: {key: x for key, x in weights().items() if key != "blocks.1.conv.2.bias"}, "blocks.1.conv.2.bias"),
        (lambda: {key: x for key, x in weights().items() if "blocks" not in key}, "0 blocks"),
        (
            lambda: {"net.0.weight": torch.ones(8, 16, 3, 3), "net.2.conv.0.weight": torch.ones(8, 16, 3, 3)},
            "three stages",
        ),
    ],
)
def test_what_is_none_of_ours_is_refused(tmp_path, changed, why):
    """Four times the sides, a shortcut and another version would be loaded without an error otherwise."""
    save_file(changed(), tmp_path / "up.safetensors")
    assert why in refused(tmp_path / "up.safetensors", load=load)


def test_another_model_is_named(tmp_path):
    save_file(weights(), tmp_path / "up.safetensors")
    assert read_checkpoint(tmp_path / "up.safetensors").kind == "upsampler"
    with pytest.raises(ValueError, match="holds the latent upsampler of Ultra Flash"):
        read_checkpoint(tmp_path / "up.safetensors", kind="wan")
