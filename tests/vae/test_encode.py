"""Law 6 for the encoder.

Seen to fail: waiting frames dropped between calls, and time halved without the frame before (the cut tests), views
instead of copies of the waiting frames (the byte test), one history for both sides of a failed call (the retry test).
"""

import copy

import pytest
import torch
from laws import reference_vae

from histream_core.vae import decode
from histream_core.vae.decode import StreamingDecoder, causal_kernels
from histream_core.vae.encode import StreamingEncoder, encode_picture, encoder_cache_bytes
from histream_core.vae.model import LATENT_MEAN, LATENT_STD, WanVAE
from histream_core.vae.taehv import TAEHV

CUTS = [[17], [1] * 17, [1, 4, 4, 4, 4], [4, 4, 4, 5], [2, 7, 3, 5], [5, 12], [16, 1]]


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return WanVAE(dim=4).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(2, 3, 17, 16, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_encode_in_any_cut_equals_encode_at_once(vae, pixels, cut):
    encoder = StreamingEncoder(vae, normalised=False)
    latents = torch.cat([encoder.encode(part) for part in pixels.split(cut, dim=2)], dim=2)
    assert latents.shape == (2, 16, 5, 2, 4)
    torch.testing.assert_close(latents, reference_vae.encode(vae.state_dict(), pixels), rtol=0, atol=1e-5)


def test_slices_of_large_frames_change_nothing(vae, pixels, monkeypatch):
    whole = StreamingEncoder(vae).encode(pixels)
    monkeypatch.setattr(decode, "SMALL", 0)
    torch.testing.assert_close(StreamingEncoder(vae).encode(pixels), whole, rtol=0, atol=1e-5)


def test_every_cut_gives_the_same_bits(vae, pixels):
    whole = StreamingEncoder(vae).encode(pixels)
    for cut in CUTS:
        encoder = StreamingEncoder(vae)
        assert torch.equal(torch.cat([encoder.encode(part) for part in pixels.split(cut, dim=2)], dim=2), whole)


def test_kernels_without_a_past_run_as_2d_and_keep_nothing(pixels):
    """Seen to fail when no kernel counts as still."""
    torch.manual_seed(0)
    vae = WanVAE(dim=4).requires_grad_(False).double()
    for kernel in causal_kernels(vae.encoder.downsamples):
        kernel.weight[:, :, :-1] = 0
    encoder = StreamingEncoder(vae, dtype=torch.float64, normalised=False)
    latents = torch.cat([encoder.encode(part) for part in pixels.double().split([2, 7, 8], dim=2)], dim=2)
    wanted = reference_vae.encode(vae.state_dict(), pixels.double())
    torch.testing.assert_close(latents, wanted.float(), rtol=0, atol=1e-6)
    kept = encoder._history.frames.keys() & set(causal_kernels(vae.encoder.downsamples))
    assert all(kernel.stride[0] == 2 for kernel in kept)


def test_the_order_of_temporal_layers_is_read_off_the_vae(pixels):
    torch.manual_seed(0)
    vae = WanVAE(dim=4, temporal_downsample=(True, True, False)).requires_grad_(False)
    encoder = StreamingEncoder(vae, normalised=False)
    latents = torch.cat([encoder.encode(part) for part in pixels.split([6, 11], dim=2)], dim=2)
    torch.testing.assert_close(latents, reference_vae.encode(vae.state_dict(), pixels), rtol=0, atol=1e-5)


def test_later_pixels_never_change_earlier_latents(vae, pixels):
    other = pixels.clone()
    other[:, :, 9:] *= -1
    a, b = (StreamingEncoder(vae).encode(x) for x in (pixels, other))
    assert torch.equal(a[:, :, :3], b[:, :, :3])
    assert not torch.equal(a[:, :, 3:], b[:, :, 3:])


def test_latents_come_out_normalised(vae, pixels):
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (LATENT_MEAN, LATENT_STD))
    raw = StreamingEncoder(vae, normalised=False).encode(pixels)
    torch.testing.assert_close(StreamingEncoder(vae).encode(pixels), (raw - mean) / std)


def test_frames_that_do_not_fill_four_wait_and_give_no_latent(vae, pixels):
    encoder = StreamingEncoder(vae)
    assert encoder.encode(pixels[:, :, :4]).shape[2] == 1
    assert encoder.encode(pixels[:, :, 4:5]).shape[2] == 1
    assert encoder.encode(pixels[:, :, 5:7]).shape == (2, 16, 0, 2, 4)


def test_encoded_latents_decode_with_the_same_flag(vae, pixels):
    for normalised in (True, False):
        latents = StreamingEncoder(vae, normalised=normalised).encode(pixels)
        decoded = StreamingDecoder(vae, normalised=normalised).decode(latents)
        assert decoded.shape == pixels.shape
        reference = reference_vae.decode(vae.state_dict(), reference_vae.encode(vae.state_dict(), pixels))
        torch.testing.assert_close(decoded, reference, rtol=0, atol=2e-5)


def test_a_failed_encode_can_be_tried_again(vae, pixels):
    encoder = StreamingEncoder(vae)
    first = encoder.encode(pixels[:, :, :6])

    def fail(*_):
        raise MemoryError("out of memory")

    hook = vae.encoder.head[2].register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        encoder.encode(pixels[:, :, 6:])
    hook.remove()
    rest = encoder.encode(pixels[:, :, 6:])
    assert torch.equal(torch.cat([first, rest], dim=2), StreamingEncoder(vae).encode(pixels))


def test_the_bytes_of_a_history_are_known_before(vae, pixels):
    """Also without values, as a plan is made; seen to fail with two frames for a layer that halves time."""
    encoder = StreamingEncoder(vae)
    encoder.encode(pixels)
    wanted = encoder_cache_bytes(copy.deepcopy(vae).to("meta"), *pixels.shape[-2:])
    assert encoder.cache_bytes == wanted * len(pixels)


def test_history_does_not_grow_and_keeps_no_caller_memory_alive(vae, pixels):
    encoder = StreamingEncoder(vae)
    sizes = []
    for part in pixels.split([9, 4, 4], dim=2):
        encoder.encode(part)
        sizes.append(encoder.cache_bytes)
    assert len(set(sizes)) == 1
    encoder.encode(pixels[:, :, :7])
    kept = [*encoder._history.frames.values(), encoder._waiting]
    assert all(x.untyped_storage().nbytes() == x.nbytes for x in kept)


def test_pixels_that_cannot_be_right_are_refused_and_leave_nothing_behind(vae, pixels):
    encoder = StreamingEncoder(vae)
    first = encoder.encode(pixels[:, :, :5])
    nan = pixels[:, :, 5:9].clone()
    nan[0, 0, 0, 0, 0] = float("nan")
    odd = pixels[:, :, 5:9, :15]
    for bad, message in ((nan, "NaN"), (odd, "use 8 or 16"), (pixels[:, :, 5:9, :8], "reset"), (pixels[0], "B, 3, F")):
        with pytest.raises(ValueError, match=message):
            encoder.encode(bad)
    rest = encoder.encode(pixels[:, :, 5:])
    assert torch.equal(torch.cat([first, rest], dim=2), StreamingEncoder(vae).encode(pixels))


def test_half_precision_weights_are_refused_unless_asked_for(pixels):
    vae = WanVAE(dim=4).requires_grad_(False).bfloat16()
    with pytest.raises(ValueError, match="leave dtype out"):
        StreamingEncoder(vae)
    assert StreamingEncoder(vae, dtype=None).encode(pixels).dtype == torch.float32


def test_a_first_frame_can_be_held_for_a_whole_chunk(vae, pixels):
    image = (pixels[0, :, 0].movedim(0, -1) + 1) / 2
    one, held = encode_picture(vae, image), encode_picture(vae, image, hold=3)
    assert (one.shape, held.shape) == ((1, 16, 1, 2, 4), (1, 16, 3, 2, 4))
    torch.testing.assert_close(held[:, :, :1], one)
    nine = pixels[:1, :, :1].expand(-1, -1, 9, -1, -1)
    torch.testing.assert_close(held, StreamingEncoder(vae).encode(nine), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "hold", "sentence"), [((2, 8, 8, 3), 1, "one picture"), ((8, 8, 3), 0, "held for 0")]
)
def test_what_is_no_first_frame_is_refused(vae, shape, hold, sentence):
    with pytest.raises(ValueError, match=sentence):
        encode_picture(vae, torch.zeros(shape), hold=hold)


def test_a_vae_in_bfloat16_encodes_in_float32(vae):
    """Seen to fail with the weights' own precision."""
    rounded = copy.deepcopy(vae).bfloat16()
    picture = torch.rand(32, 32, 3)
    latent = encode_picture(rounded, picture)
    assert latent.dtype == torch.float32
    assert next(rounded.parameters()).dtype == torch.bfloat16
    assert torch.equal(latent, encode_picture(copy.deepcopy(rounded).float(), picture))


def test_a_decoder_alone_encodes_no_first_frame():
    with pytest.raises(ValueError, match="the VAE is a TAEHV, which is here for decoding alone"):
        encode_picture(TAEHV(), torch.rand(32, 32, 3))
