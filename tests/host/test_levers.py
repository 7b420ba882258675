"""Levers inside a real ComfyUI: what HiStream Speed chooses is planned, and a kept run goes on with it."""

import pytest
import torch

LEVERS = [
    {"high_keys": "last-step", "low_keys": "pooled-low"},
    {"high_keys": "clean-anchor", "cached_frames": "survivors"},
]


@pytest.fixture
def speed(pack):
    """The output of the node for these choices."""
    return lambda **chosen: pack.part("nodes.model.speed").SpeedNode.execute("auto", **chosen).result[0]


def core_video(pack, model, positive, shape, levers):
    """The video that the core makes with the host's module, without the host."""
    settings, stream, wan = (
        pack.part(name) for name in ("nodes.settings", "histream_core.stream.stream", "histream_core.network.forward")
    )
    choices = settings.ModelSettings(), settings.StepChoice(), settings.WindowChoice()
    plan, module = settings.plan_for(*choices, shape, levers=levers), model.model.diffusion_model
    caches = pack.part("histream_core.network.cache.tiers").make_caches(plan, module)
    noise, prompts = (
        pack.part("histream_core.stream.noise").SeededNoise(3),
        [pack.part("histream_core.stream.prompts").Prompt(wan.Text(positive[0][0]))],
    )
    chunks = stream.Stream(plan, wan.Denoiser(module), caches, noise, prompts).chunks()
    return model.model.process_latent_out(torch.cat(list(chunks), dim=2))


@pytest.mark.parametrize("chosen", LEVERS, ids=lambda chosen: "+".join(chosen.values()))
def test_a_video_under_levers_is_the_cores(pack, speed, load_wan, positive, latent, chosen):
    """Seen to fail with a plan that is made without them."""
    node, model = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler, load_wan()
    made = node.execute(model, positive, latent(12), 3, speed=speed(**chosen)).result[0]["samples"]
    exact = node.execute(model, positive, latent(12), 3).result[0]["samples"]
    wanted = core_video(pack, model, positive, tuple(exact.shape), speed(**chosen).levers)
    torch.testing.assert_close(made, wanted, atol=1e-4, rtol=1e-4)
    assert (made - exact).abs().max() > 1e-3


@pytest.mark.parametrize("chosen", LEVERS, ids=lambda chosen: "+".join(chosen.values()))
def test_a_kept_run_goes_on_under_its_levers_byte_for_byte(
    pack, speed, output, load_wan, vae, positive, latent, chosen
):
    """Seen to fail with clean passes in the place of last steps."""
    [choice] = pack.part("nodes.video.video_output").VideoOutputNode.execute("run", format="ffv1", bit_depth="8").result
    node = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler
    settings = {"vae": vae, "output": choice, "speed": speed(**chosen)}
    run = node.execute(load_wan(), positive, latent(12), 3, **settings).result[2]
    last = output / run / "chunks" / "00003.safetensors"
    whole = last.read_bytes()
    for path in (last, *(output / run / "segments").glob("*00003*")):
        path.unlink()
    resume = pack.part("nodes.runs.resume_run").ResumeRun.execute
    with pytest.raises(ValueError, match="leave that as it is, or begin a new run"):
        resume(load_wan(), vae, run, speed=speed())
    resume(load_wan(), vae, run)
    assert last.read_bytes() == whole
