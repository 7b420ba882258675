"""The latent upsampler of Ultra Flash, on random weights: a plain reference, and the published code where it is."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from histream_core.cost.cost import Cost
from histream_core.network.model import WAN_1_3B
from histream_core.plan import find_preset, make_plan
from histream_core.plan.schedule import Scale
from histream_core.vae.upsampler import LatentUpsampler, Sizes

PUBLISHED = os.environ.get("HISTREAM_ULTRA_FLASH")
"""The path of Ultra Flash's ultra_latent_up_v1.py, for who has it (github.com/xin1u/UltraFlash, Apache-2.0)."""

LATENT = torch.randn(2, 4, 7, 3, 5, generator=torch.Generator().manual_seed(1))


def upsampler(channels=4, width=6, num_blocks=3, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LatentUpsampler(channels, width, num_blocks).requires_grad_(False)


def reference(w, latent):
    """The whole clip at once, a block after the other over all frames, from the tensors by their names."""

    def conv(x, name):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    frames = latent.shape[2]
    x = F.relu(F.pixel_shuffle(conv(latent.transpose(1, 2).flatten(0, 1), "pre_shuffle.0"), 2))
    for block in range(sum(key.endswith("conv.0.bias") for key in w)):
        by_clip = x.unflatten(0, (-1, frames))
        before = torch.cat([by_clip[:, :1], by_clip[:, :-1]], dim=1).flatten(0, 1)
        name = f"blocks.{block}.conv"
        y = F.relu(conv(torch.cat([x, before], dim=1), f"{name}.0"))
        x = F.relu(conv(F.relu(conv(y, f"{name}.2")), f"{name}.4") + x)
    return conv(x, "final").unflatten(0, (-1, frames)).transpose(1, 2)


def test_it_is_the_plain_reference():
    """Seen to fail with zeros before the first frame, and with the output of a block in its memory."""
    network = upsampler()
    larger, memory = network(LATENT)
    assert larger.shape == (2, 4, 7, 6, 10)
    assert [x.shape for x in memory] == [(2, 6, 6, 10)] * 3
    torch.testing.assert_close(larger, reference(network.state_dict(), LATENT), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cuts", [(1, 6), (3, 3, 1), (1,) * 7])
def test_any_cut_gives_the_same_bits(cuts):
    """Seen to fail with a memory that is dropped."""
    network, memory, parts = upsampler(), (), []
    for part in LATENT.split(cuts, dim=2):
        larger, memory = network(part, memory)
        parts.append(larger)
    assert torch.equal(torch.cat(parts, dim=2), network(LATENT)[0])


def test_a_frame_depends_on_as_many_before_it_as_it_says():
    network = upsampler()
    _, memory = network(LATENT)
    _, again = network(LATENT[:, :, -network.reach :])
    assert all(torch.equal(one, other) for one, other in zip(memory, again, strict=True))
    _, less = network(LATENT[:, :, 1 - network.reach :])
    assert not torch.equal(memory[-1], less[-1])


def test_names_and_sizes_are_those_of_the_published_configuration():
    """Written out from its code: 16 channels, 128 within, 8 blocks, 4.8 million parameters."""
    conv = [f"{layer}.{part}" for layer in (0, 2, 4) for part in ("weight", "bias")]
    names = ["pre_shuffle.0.weight", "pre_shuffle.0.bias", "final.weight", "final.bias"]
    names += [f"blocks.{block}.conv.{name}" for block in range(8) for name in conv]
    with torch.device("meta"):
        network = LatentUpsampler()
    assert sorted(network.state_dict()) == sorted(names)
    assert sum(x.numel() for x in network.parameters()) == 4_814_352
    assert network.sizes == Sizes()
    assert LatentUpsampler.of_sizes(network.state_dict()).sizes == Sizes()


def test_its_memory_is_in_the_memory_plan():
    plan = make_plan(find_preset("self-forcing"), "histream", size=(1920, 1088), num_latent_frames=21)
    with torch.device("meta"):
        network = LatentUpsampler().bfloat16()
    low = torch.empty(1, 16, 1, *plan.grids[Scale.LOW], dtype=torch.bfloat16, device="meta")
    _, memory = network(low)
    held = sum(x.nbytes for x in (*network.parameters(), *memory))
    plain, costs = (Cost(WAN_1_3B, plan, upsampler=sizes) for sizes in (None, Sizes()))
    assert (plain.upsampler_bytes, costs.upsampler_bytes) == (0, held)
    assert costs.peak_bytes - plain.peak_bytes == costs.sampling_bytes - plain.sampling_bytes == held


@pytest.mark.skipif(not PUBLISHED, reason="HISTREAM_ULTRA_FLASH does not name the published code")
@pytest.mark.parametrize("sizes", [(4, 6, 3), (16, 128, 8)])
def test_it_is_the_published_code(sizes):
    spec = importlib.util.spec_from_file_location("ultra_flash", Path(PUBLISHED or ""))
    assert spec and spec.loader
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    network = upsampler(*sizes)
    names = dict(zip(("in_channels", "mid_channels", "num_blocks"), sizes, strict=True))
    other = theirs.UltraLatentUpsampler(**names, memory_init="replicate", default_parallel=False)
    other.load_state_dict(network.state_dict(), strict=True)
    latent = torch.randn(1, sizes[0], 5, 3, 5)
    with torch.no_grad():
        assert torch.equal(network(latent)[0], other(latent))
        first, caches = other(latent[:, :, :2], parallel=False, return_caches=True)
        rest, _ = other(latent[:, :, 2:], parallel=False, caches=caches, return_caches=True)
    assert torch.equal(network(latent)[0], torch.cat([first, rest], dim=2))
