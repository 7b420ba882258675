"""The small decoder: streamed as at once, from a file, against a naive one over the whole clip."""

import pytest
import torch
import torch.nn.functional as F
from tiny_vae import make_taehv

from histream_core.vae.decode import StreamingDecoder
from histream_core.vae.model import LATENT_MEAN, LATENT_STD, WanVAE
from histream_core.vae.taehv import TAEHV, StreamingTAEHV, is_taehv, taehv_cache_bytes

CUTS = [[7], [1] * 7, [3, 3, 1], [2, 4, 1]]


def reference(w, latents):
    """The published network over all frames at once: [B, 16, T, H, W] to [B, 3, 4T - 3, 8H, 8W] in [0, 1]."""

    def conv(x, name):
        weight = w[f"decoder.{name}.weight"]
        b = x.shape[0]
        y = F.conv2d(x.flatten(0, 1), weight, w.get(f"decoder.{name}.bias"), padding=weight.shape[-1] // 2)
        return y.unflatten(0, (b, -1))

    def block(x, n):
        y = torch.cat([x, F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]], dim=2)
        y = conv(F.relu(conv(F.relu(conv(y, f"{n}.conv.0")), f"{n}.conv.2")), f"{n}.conv.4")
        return F.relu(y + x)

    x = F.relu(conv(torch.tanh(latents.transpose(1, 2) / 3) * 3, "1"))
    for level, start in enumerate((3, 9, 15)):
        for n in range(start, start + 3):
            x = block(x, n)
        x = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
        x = conv(x, f"{start + 4}.conv")
        x = x.unflatten(2, (1 if level == 0 else 2, -1)).flatten(1, 2)
        x = conv(x, f"{start + 5}")
    return conv(F.relu(x), "22").transpose(1, 2)[:, :, 3:]


@pytest.fixture(scope="module")
def vae():
    return make_taehv()


@pytest.fixture(scope="module")
def latents():
    return torch.randn(2, 16, 7, 3, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_in_any_cut_it_is_the_whole_clip(latents, cut):
    """Seen to fail with a history that is not kept, and with all four frames of the first latent frame."""
    vae = make_taehv().double()
    decoder = StreamingTAEHV(vae)
    pixels = torch.cat([decoder.decode(part) for part in latents.double().split(cut, dim=2)], dim=2)
    assert pixels.shape == (2, 3, 25, 24, 32)
    wanted = reference(vae.state_dict(), latents.double()) * 2 - 1
    torch.testing.assert_close(pixels, wanted, rtol=0, atol=1e-12)


def test_latents_come_to_it_as_its_weights_were_trained(latents):
    """Raw for lighttaew2_1, as sampled for taew2_1. Seen to fail with the other way round."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (LATENT_MEAN, LATENT_STD))
    raw = latents * std + mean
    plain, light = make_taehv(), make_taehv(raw_latents=True)
    wanted = reference(plain.state_dict(), latents) * 2 - 1
    of_raw = reference(plain.state_dict(), raw) * 2 - 1
    for vae, normalised, given, found in (
        (plain, True, latents, wanted),
        (plain, False, raw, wanted),
        (light, True, latents, of_raw),
        (light, False, raw, of_raw),
    ):
        pixels = StreamingTAEHV(vae, normalised=normalised).decode(given)
        torch.testing.assert_close(pixels, found, rtol=0, atol=1e-5)


def test_its_memory_is_one_frame_for_each_block(vae, latents):
    decoder = StreamingTAEHV(vae)
    for part in latents.split(2, dim=2):
        decoder.decode(part)
        assert decoder.cache_bytes == taehv_cache_bytes(vae, 24, 32, dtype=torch.float32, batch=2)
    with torch.device("meta"):
        published = TAEHV()
    assert taehv_cache_bytes(published, 1088, 1920) == pytest.approx(0.35e9, rel=0.01)
    assert sum(p.numel() for p in published.parameters()) == pytest.approx(9.84e6, rel=0.01)


def test_a_stream_can_be_entered_in_the_middle_and_brought_back(vae):
    """Seen to fail with a memory of half as many frames."""
    latents = torch.randn(1, 16, 14, 2, 2, generator=torch.Generator().manual_seed(2))
    whole = StreamingTAEHV(vae).decode(latents)
    decoder = StreamingTAEHV(vae)
    assert decoder.memory_frames == 8
    decoder.warm_up(latents[:, :, 4:12], start=4)
    state = {name: x.clone() for name, x in decoder.snapshot().items()}
    assert torch.equal(decoder.decode(latents[:, :, 12:]), whole[:, :, 1 + 4 * 11 :])
    decoder.restore(state, latents)
    assert torch.equal(decoder.decode(latents[:, :, 12:]), whole[:, :, 1 + 4 * 11 :])
    decoder.warm_up(latents[:, :, 8:12], start=8)
    assert not torch.equal(decoder.decode(latents[:, :, 12:]), whole[:, :, 1 + 4 * 11 :])


def test_a_file_may_hold_an_encoder_and_more_growth_than_wan_has(vae):
    weights = dict(vae.state_dict())
    more = torch.cat([torch.randn_like(weights["decoder.7.conv.weight"]), weights["decoder.7.conv.weight"]])
    found = TAEHV.from_state_dict(weights | {"encoder.0.weight": torch.zeros(1), "decoder.7.conv.weight": more})
    assert all(torch.equal(x, weights[key]) for key, x in found.state_dict().items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("decoder.22.bias"), r"decoder\.22\.bias"),
        (lambda w: w.pop("decoder.1.weight"), "not a TAEHV decoder"),
        (lambda w: w.update({"decoder.9.conv.0.bias": torch.zeros(2)}), r"decoder\.9\.conv\.0\.bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(vae, change, said):
    weights = dict(vae.state_dict())
    change(weights)
    with pytest.raises(ValueError, match=said):
        TAEHV.from_state_dict(weights)


def test_it_is_told_from_the_full_vae(vae):
    assert is_taehv(vae)
    assert not is_taehv(WanVAE(dim=4))
    assert StreamingDecoder(WanVAE(dim=4)).memory_frames == 38
