"""Decoders by choice: strips that fade into each other, another memory layout, which decoder a VAE gets."""

from itertools import pairwise

import pytest
import torch
from tiny_vae import make_taehv, make_vae

from histream_core.vae import decoders
from histream_core.vae.decode import StreamingDecoder, lay_out_channels_last, vae_cache_bytes
from histream_core.vae.decoders import OVERLAP, TiledDecoder, decoder_cache_bytes, fade_in, open_decoder, strip_ranges
from histream_core.vae.model import WanVAE
from histream_core.vae.taehv import StreamingTAEHV, taehv_cache_bytes


@pytest.fixture(scope="module")
def latents():
    return torch.randn(1, 16, 5, 2, 40, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("cells", [16, 40, 120, 240])
@pytest.mark.parametrize("strips", [1, 2, 3])
def test_strips_cover_a_side_and_share_what_fades(cells, strips):
    """Seen to fail with half the overlap on one side only."""
    if strips > max(1, cells // (2 * OVERLAP)):
        with pytest.raises(ValueError, match=f"use at most {max(1, cells // (2 * OVERLAP))}"):
            strip_ranges(cells, strips)
        return
    found = strip_ranges(cells, strips)
    assert (found[0].start, found[-1].stop) == (0, cells)
    shared = [len(set(a) & set(b)) for a, b in pairwise(found)]
    assert shared == [OVERLAP] * (strips - 1)
    assert not any(set(a) & set(b) for a, b in zip(found, found[2:], strict=False))


@pytest.mark.parametrize("turned", [False, True])
def test_a_picture_cut_into_strips_comes_back_as_it_was(turned):
    """Seen to fail with a strip that is copied a pixel off, and with shares that do not add up to one."""
    picture = torch.rand(1, 3, 2, 16, 320, dtype=torch.double)
    picture = picture.transpose(-1, -2).contiguous() if turned else picture
    found = torch.full_like(picture, torch.nan)
    for cells in strip_ranges(40, 2):
        part = picture.narrow(-2 if turned else -1, cells.start * 8, len(cells) * 8)
        fade_in(found, part, cells.start * 8)
    torch.testing.assert_close(found, picture, rtol=0, atol=1e-15)


def test_far_from_a_fade_strips_are_whole_decodes_of_themselves(latents):
    vae = make_vae()
    whole = TiledDecoder([StreamingDecoder(vae) for _ in range(2)])
    pixels = torch.cat([whole.decode(part) for part in latents.split([1, 3, 1], dim=2)], dim=2)
    first, second = strip_ranges(40, 2)
    left = StreamingDecoder(vae).decode(latents[..., : first.stop])
    right = StreamingDecoder(vae).decode(latents[..., second.start :])
    assert torch.equal(pixels[..., : second.start * 8], left[..., : second.start * 8])
    assert torch.equal(pixels[..., first.stop * 8 :], right[..., (first.stop - second.start) * 8 :])
    assert not torch.equal(pixels, StreamingDecoder(vae).decode(latents))


def test_only_the_strip_at_work_has_its_memory_on_the_device(latents, monkeypatch):
    """Seen to fail without `park`."""
    decoder, done = open_decoder(make_vae(), strips=2), []
    for name in ("fetch", "decode", "park"):
        act = getattr(StreamingDecoder, name)

        def note(self, *args, name=name, act=act):
            done.append((name, decoder.decoders.index(self)))
            return act(self, *args)

        monkeypatch.setattr(StreamingDecoder, name, note)
    decoder.decode(latents[:, :, :3])
    decoder.decode(latents[:, :, 3:])
    assert done == 2 * [(name, strip) for strip in (0, 1) for name in ("fetch", "decode", "park")]


@pytest.mark.slow
def test_a_stream_of_strips_can_be_entered_in_the_middle_and_brought_back():
    vae = make_vae()
    x = torch.randn(1, 16, 44, 1, 32, generator=torch.Generator().manual_seed(3))
    whole, decoder, other = (open_decoder(vae, strips=2) for _ in range(3))
    wanted = whole.decode(x)[:, :, 1 + 4 * 42 :]
    decoder.warm_up(x[:, :, 4:43], start=4)
    state = {name: tensor.clone() for name, tensor in decoder.snapshot().items()}
    assert torch.equal(decoder.decode(x[:, :, 43:]), wanted)
    other.restore(state, x)
    assert torch.equal(other.decode(x[:, :, 43:]), wanted)


def test_the_bytes_of_strips_are_those_of_the_largest():
    with torch.device("meta"):
        vae = WanVAE()
    assert decoder_cache_bytes(vae, 1088, 1920) == vae_cache_bytes(vae, 1088, 1920)
    assert decoder_cache_bytes(vae, 1088, 1920, strips=3) == vae_cache_bytes(vae, 1088, 88 * 8)
    assert decoder_cache_bytes(vae, 1920, 1088, strips=3) == vae_cache_bytes(vae, 1088, 88 * 8)
    small = make_taehv()
    assert decoder_cache_bytes(small, 48, 64) == taehv_cache_bytes(small, 48, 64)


def test_a_vae_gets_its_decoder_and_another_layout_changes_the_last_bits_only(latents):
    """Seen to fail with weights that are laid out the other way round."""
    small = open_decoder(make_taehv(), raw_latents=True)
    assert type(small) is StreamingTAEHV and small.raw_latents
    assert type(open_decoder(make_vae())) is StreamingDecoder
    for make in (make_vae, make_taehv):
        plain = open_decoder(make()).decode(latents)
        vae = make()
        decoder = open_decoder(vae, channels_last=True)
        pixels = torch.cat([decoder.decode(part) for part in latents.split([2, 3], dim=2)], dim=2)
        torch.testing.assert_close(pixels, plain, rtol=0, atol=1e-5)
        assert all(torch.equal(a, b) for a, b in zip(make().parameters(), vae.parameters(), strict=True))
    kernel = vae.decoder[8].weight
    assert kernel.is_contiguous(memory_format=torch.channels_last) and not kernel.is_contiguous()


def test_every_kernel_is_laid_out_also_one_of_a_single_pixel():
    """The strides of a 1x1 kernel choose another convolution. Seen to fail with `contiguous`, which leaves them."""
    vae = make_vae()
    lay_out_channels_last(vae)
    single = [conv.weight for conv in vae.modules() if type(conv) is torch.nn.Conv2d and conv.kernel_size == (1, 1)]
    assert single
    for weight in single:
        channels = weight.shape[1]
        assert weight.stride() == (channels, 1, channels, channels)


def test_a_strip_that_fails_ends_the_stream(latents, monkeypatch):
    decoder = open_decoder(make_vae(), strips=2)
    decoder.decode(latents[:, :, :3])
    monkeypatch.setattr(decoders.StreamingDecoder, "_decode_frame", None)
    with pytest.raises(TypeError):
        decoder.decode(latents[:, :, 3:])
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="reset"):
        decoder.decode(latents[:, :, 3:])
    decoder.reset()
    assert decoder.decode(latents).shape == (1, 3, 17, 16, 320)


@pytest.mark.parametrize(("torch_version", "cudnn", "slow"), [
    ("2.9.1+cu128", 91002, True), ("2.9.0+cu130", 91500, False), ("2.10.0+cu130", 91002, False),
    ("2.9.1+cpu", None, False),
])  # fmt: skip
def test_a_torch_that_decodes_slowly_is_told_of_once_for_each_decoder(monkeypatch, caplog, torch_version, cudnn, slow):
    """For core's own modules on CUDA. Seen to fail without the sentence, and with it on a CPU."""
    monkeypatch.setattr(torch, "__version__", torch_version)
    monkeypatch.setattr(torch.version, "cuda", "12.8" if cudnn else None)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: cudnn)
    for on_cuda, told in ((False, 0), (True, int(slow))):
        monkeypatch.setattr(decoders, "is_on_cuda", lambda vae, on_cuda=on_cuda: on_cuda)
        caplog.clear()
        open_decoder(make_vae())
        open_decoder(make_taehv())
        assert len(caplog.records) == told
    assert not slow or ("9.15" in caplog.text and "9.10" in caplog.text)
