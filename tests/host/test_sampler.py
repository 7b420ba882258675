"""The samplers inside a real ComfyUI, on tiny random weights.

Law 3: with full history, at one resolution and with the same noise, the engine makes what the host's own
autoregressive sampler makes, bit for bit.
"""

import pytest
import torch


def host_video(model, positive, latent, sigmas, *, seed=5, chunk_frames=3):
    """What the host's SamplerARVideo makes; needs a CausalWanModel."""
    import comfy.samplers

    noise = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(9))
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": positive})
    sampler = comfy.samplers.ksampler("ar_video", {"num_frame_per_block": chunk_frames})
    return noise, guider.sample(noise, latent["samples"], sampler, sigmas, disable_pbar=True, seed=seed)


def host_noise(noise, *, seed=5, chunk_frames=3):
    """The host's noise, step by step, as the engine asks for it."""

    def draw(chunk: int, step: int, shape: torch.Size) -> torch.Tensor:
        if step == 0:
            return noise[:, :, chunk * chunk_frames : (chunk + 1) * chunk_frames]
        torch.manual_seed(seed + chunk * 1000 + step - 1)
        return torch.randn(shape)

    return draw


def our_video(pack, model, positive, latent, sigmas, noise, **window):
    """The Anchor-Window Sampler with the whole history, one resolution, and noise from outside."""
    host, settings = pack.part("nodes.host"), pack.part("nodes.settings")
    table = " ".join(f"{1000 * sigma:.17g}H" for sigma in sigmas[:-1].double().tolist())
    sampler = host.ChunkSampler(
        settings=settings.ModelSettings(ntk_high=1.0, temporal="absolute"),
        steps=settings.StepChoice(mode="history", table=table, shift_low=1, shift_high=1),
        window=settings.WindowChoice(**window),
        noise=noise,
    )
    return host.sample_latent(model, positive, latent, sampler, seed=5)["samples"]


@pytest.mark.parametrize("causal", [False, True], ids=["WanModel", "CausalWanModel"])
def test_full_history_at_one_resolution_is_the_hosts_sampler_bit_for_bit(pack, load_wan, positive, latent, causal):
    sigmas = torch.tensor([1.0, 0.9375, 0.8333, 0.625, 0.0])
    noise, wanted = host_video(load_wan(causal=True), positive, latent(9), sigmas)
    got = our_video(pack, load_wan(causal=causal), positive, latent(9), sigmas, host_noise(noise))
    assert wanted.abs().mean() > 0.1
    assert torch.equal(got, wanted)
