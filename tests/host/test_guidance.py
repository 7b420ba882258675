"""Negative prompts inside a real ComfyUI: CFG through the host's guider and from the MODEL, and NAG.

The engine's own guided run over the host's module is what `tests/laws/test_guidance.py` compares with a reference.
"""

import pytest
import torch

from histream_core.plan.guidance import Guidance
from histream_core.runs.store.journal import read_manifest


@pytest.fixture
def negative(positive):
    return [[torch.randn_like(positive[0][0], generator=torch.Generator().manual_seed(2)), {}]]


@pytest.fixture
def guided(pack, load_wan):
    """Sample with the SAMPLER twin under a guider of the host, with seed 3."""
    import comfy.samplers

    nodes, steps = pack.part("nodes.sampling.anchor_window_sampler"), pack.part("nodes.sampling.step_schedule")

    def run(latent, positive, negative, cfg, *, mode="histream", model=None):
        model = model or load_wan()
        schedule, sigmas = steps.StepSchedule.execute(mode).result
        [twin] = nodes.AnchorWindowSamplerSelect.execute(model, schedule).result
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        blank = latent["samples"]
        return guider.sample(blank, blank, twin, sigmas, disable_pbar=True, seed=3)

    return run


@pytest.fixture
def settings(pack):
    """The MODEL with options of Dual-Resolution Cache."""
    return lambda model, **options: (
        pack.part("nodes.model.dual_resolution_cache").DualResolutionCache.execute(model, **options).result[0]
    )


@pytest.fixture
def by_the_core(pack):
    """Make the same video by the engine, over the module that the host has loaded; `others` follow as in a timeline."""
    parts = (
        "network.cache.tiers",
        "network.forward",
        "plan.guidance",
        "stream.noise",
        "stream.prompts",
        "stream.stream",
    )
    tiers, forward, guidances, noise, prompts, streams = (pack.part(f"histream_core.{part}") for part in parts)
    values, host = pack.part("nodes.settings"), pack.part("nodes.host.sampler")

    def run(model, latent, positive, negative, *, mode="histream", others=(), **options):
        guidance, module = guidances.Guidance(**options), model.model.diffusion_model
        settings = values.ModelSettings(guidance=guidance)
        plan = host.ChunkSampler(settings, values.StepChoice(mode), values.WindowChoice()).plan(latent["samples"].shape)
        found = [prompts.Prompt(forward.Text(positive[0][0]))]
        found += [prompts.Prompt(forward.Text(text[0][0]), chunk, recache=True) for text, chunk in others]
        denoise, caches = forward.Denoiser(module, guidance=guidance), tiers.make_caches(plan, module)
        led = prompts.led_away(found, negative[0][0])
        stream = streams.Stream(plan, denoise, caches, noise.SeededNoise(3), led)
        return model.model.process_latent_out(torch.cat(list(stream.chunks()), dim=2))

    return run


@pytest.mark.parametrize(("mode", "free"), [("histream", 1e12), ("histream-plus", 0)], ids=["one batch", "one by one"])
def test_cfg_of_the_hosts_guider_is_the_engines(
    by_the_core, guided, load_wan, latent, positive, negative, mode, free, monkeypatch
):
    """Whether the host asks for both prompts at once or for one after the other. Seen to fail with one cache."""
    model = load_wan()
    monkeypatch.setattr(type(model), "get_free_memory", lambda self, device: free)
    got = guided(latent(9), positive, negative, 3.0, mode=mode, model=model)
    wanted = by_the_core(model, latent(9), positive, negative, mode=mode, cfg=3.0)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    assert (got - guided(latent(9), positive, negative, 1.0, mode=mode)).abs().max() > 0.01


def test_at_cfg_1_a_negative_prompt_changes_no_bit(guided, sample, load_wan, latent, positive, negative):
    assert torch.equal(guided(latent(9), positive, negative, 1.0), sample(load_wan(), positive, latent(9)))


def test_a_timeline_has_one_negative_prompt(pack, by_the_core, guided, load_wan, latent, positive, negative):
    """Seen to fail where the prompts of a timeline go on without it."""
    host, timeline = pack.part("nodes.host.timeline"), pack.part("histream_core.stream.timeline")
    other = [[torch.randn_like(positive[0][0], generator=torch.Generator().manual_seed(5)), {}]]
    cues = (timeline.Cue(0.0, "one"), timeline.Cue(1.3, "other"))
    written = host.with_timeline(host.Timeline(cues, (positive, other)))
    model = load_wan()
    got = guided(latent(12), written, negative, 3.0, model=model)
    wanted = by_the_core(model, latent(12), positive, negative, others=[(other, 2)], cfg=3.0)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="a negative prompt holds for the whole video"):
        guided(latent(9), positive, written, 3.0)


@pytest.mark.parametrize("options", [{"cfg": 3.0}, {"nag": 6.0}], ids=str)
def test_the_model_can_carry_the_negative_prompt(
    by_the_core, sample, settings, load_wan, latent, positive, negative, options
):
    """For the artist's node. Seen to fail where the host's forward is not told of the plan's guidance."""
    model = settings(load_wan(), negative=negative, **options)
    got = sample(model, positive, latent(9))
    wanted = by_the_core(model, latent(9), positive, negative, **options)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    assert (got - sample(load_wan(), positive, latent(9))).abs().max() > 0.01


def test_nag_takes_the_guiders_negative_prompt(guided, settings, sample, load_wan, latent, positive, negative):
    """CFG 1 and its negative prompt in the guider, NAG on the MODEL. Seen to fail with the MODEL's before it."""
    model = settings(load_wan(), negative=positive, nag=6.0)
    wanted = sample(settings(load_wan(), negative=negative, nag=6.0), positive, latent(9))
    assert torch.equal(guided(latent(9), positive, negative, 1.0, model=model), wanted)


def test_a_kept_run_keeps_its_guidance(pack, output, settings, load_wan, vae, latent, positive, negative):
    """Resumed by a MODEL without it, it is what it was. Seen to fail where the MODEL decides."""
    import comfy.model_management as mm

    nodes, runs = pack.part("nodes.sampling.anchor_window_sampler"), pack.part("nodes.runs.resume_run")
    host_run = pack.part("nodes.host.run").HostRun
    [choice] = pack.part("nodes.video.video_output").VideoOutputNode.execute("run", format="ffv1", bit_depth="8").result
    model, calls, denoise = settings(load_wan(), negative=negative, cfg=3.0), iter(range(1000)), host_run.denoise

    def stopping(self, *args):
        if next(calls) == 12:
            mm.interrupt_current_processing()
        return denoise(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_run, "denoise", stopping)
        with pytest.raises(mm.InterruptProcessingException):
            nodes.AnchorWindowSampler.execute(model, positive, latent(9), 3, vae=vae, output=choice)
    assert read_manifest(output / "run_00001").plan.guidance == Guidance(cfg=3.0)
    resumed = runs.ResumeRun.execute(load_wan(), vae, "run_00001").result[0]["samples"]
    plain = nodes.AnchorWindowSampler.execute(model, positive, latent(9), 3).result[0]["samples"]
    assert torch.equal(resumed, plain)


def test_what_cannot_be_combined_is_refused(guided, settings, load_wan, latent, positive, negative):
    """Before the first step, with what would work."""
    with pytest.raises(ValueError, match="CFG 3 leads away from a negative prompt, and there is none: connect one"):
        settings(load_wan(), cfg=3.0)
    with pytest.raises(ValueError, match="a negative prompt is connected, and cfg and nag are 1: set nag to 5"):
        settings(load_wan(), negative=negative)
    with pytest.raises(ValueError, match=r"CFG is 3 on the MODEL .* and 1 in the guider: set it to 3 in a CFGGuider"):
        guided(latent(9), positive, negative, 1.0, model=settings(load_wan(), negative=negative, cfg=3.0))
    with pytest.raises(ValueError, match=r"CFG 3 and NAG 5 both lead away .*: set one of them to 1"):
        guided(latent(9), positive, negative, 3.0, model=settings(load_wan(), negative=negative, nag=5.0))
    with pytest.raises(ValueError, match=r"CFG 0.5 cannot be: use 1 for none"):
        guided(latent(9), positive, negative, 0.5)


def test_a_memory_plan_counts_the_second_caches(pack, settings, load_wan, latent, negative):
    plan = pack.part("nodes.sampling.anchor_window_sampler").chunk_sampler
    memory = pack.part("nodes.host.memory").cost_of
    costs = [
        memory(model, None, plan(model, None, (-1, -1, -1), 0.0, None).plan(latent(9)["samples"].shape))
        for model in (load_wan(), settings(load_wan(), negative=negative, cfg=3.0))
    ]
    assert costs[1].kv_bytes == 2 * costs[0].kv_bytes
    assert costs[1].flops > 1.9 * costs[0].flops
