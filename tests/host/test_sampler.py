"""The samplers inside a real ComfyUI, on tiny random weights.

Law 3: with full history, at one resolution and with the same noise, the engine makes what the host's own
autoregressive sampler makes, bit for bit.
"""

import re
from types import SimpleNamespace

import pytest
import torch


def host_video(model, positive, latent, sigmas, *, seed=5, chunk_frames=3):
    """The video of the host's SamplerARVideo; needs a CausalWanModel."""
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
    host, settings = pack.part("nodes.host.sampler"), pack.part("nodes.settings")
    table = " ".join(f"{1000 * sigma:.17g}H" for sigma in sigmas[:-1].double().tolist())
    sampler = host.ChunkSampler(
        settings=settings.ModelSettings(ntk_high=1.0, temporal="absolute"),
        steps=settings.StepChoice(mode="history", table=table, shift_low=1, shift_high=1),
        window=settings.WindowChoice(**window),
    )
    backend = pack.part("nodes.host.backend")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "SeededNoise", lambda seed: noise)
        return backend.sample_latent(model, positive, latent, sampler, 0).latent["samples"]


@pytest.mark.parametrize("causal", [False, True], ids=["WanModel", "CausalWanModel"])
def test_full_history_at_one_resolution_is_the_hosts_sampler_bit_for_bit(pack, load_wan, positive, latent, causal):
    sigmas = torch.tensor([1.0, 0.9375, 0.8333, 0.625, 0.0])
    noise, wanted = host_video(load_wan(causal=True), positive, latent(9), sigmas)
    got = our_video(pack, load_wan(causal=causal), positive, latent(9), sigmas, host_noise(noise))
    assert wanted.abs().mean() > 0.1
    assert torch.equal(got, wanted)


def test_with_a_lora_it_is_still_the_hosts_sampler_bit_for_bit(pack, load_wan, lora, positive, latent):
    """Seen to fail when `attach` loses the patches of the MODEL."""
    sigmas = torch.tensor([1.0, 0.9375, 0.8333, 0.625, 0.0])
    noise, plain = host_video(load_wan(causal=True), positive, latent(6), sigmas)
    _, wanted = host_video(lora(load_wan(causal=True)), positive, latent(6), sigmas)
    got = our_video(pack, lora(load_wan()), positive, latent(6), sigmas, host_noise(noise))
    assert (wanted - plain).abs().max() > 1e-3
    assert torch.equal(got, wanted)


def test_a_lora_is_gone_again_for_the_model_without_it(sample, load_wan, lora, positive, latent):
    model = load_wan()
    before = sample(model, positive, latent())
    assert not torch.equal(sample(lora(model), positive, latent()), before)
    assert torch.equal(sample(model, positive, latent()), before)


def test_quantised_weights_run_and_stay_near_the_full_ones(sample, load_wan, positive, latent):
    """fp8 weights are computed with in another dtype, and the caches must be of that one.

    Seen to fail when the caches take the weights' own dtype.
    """
    full = sample(load_wan(), positive, latent())
    for dtype, tolerance in ((torch.float8_e4m3fn, 0.3), (torch.bfloat16, 0.1)):
        got = sample(load_wan(dtype=dtype), positive, latent())
        assert torch.isfinite(got).all()
        assert 0 < (got - full).norm() / full.norm() < tolerance


def test_layers_of_another_loader_do_the_work(sample, load_wan, positive, latent):
    """Packs for GGUF files bring layers of their own; the forward of every one must be what computes.

    Seen to fail when `_project` multiplies by `attention.q.weight` itself.
    """
    import comfy.ops

    used = set()

    class NotingOps(comfy.ops.manual_cast):
        class Linear(comfy.ops.manual_cast.Linear):
            def forward(self, *args, **kwargs):
                used.add(self)
                return super().forward(*args, **kwargs)

    wanted = sample(load_wan(), positive, latent())
    model = load_wan(custom_operations=NotingOps)
    assert torch.equal(sample(model, positive, latent()), wanted)
    unused = [
        name
        for name, layer in model.model.diffusion_model.named_modules()
        if isinstance(layer, NotingOps.Linear) and layer not in used and not name.endswith("ffn.2")
    ]
    assert not unused  # the host folds the activation into ffn.2, which it calls by a function of its own


def test_the_attention_that_a_user_chose_is_used_and_knows_its_block(pack, sample, load_wan, positive, latent):
    """Seen to fail when transformer_options are not handed to optimized_attention."""
    blocks = []

    def override(attend, *args, **kwargs):
        blocks.append(kwargs["transformer_options"]["block_index"])
        return attend(*args, **kwargs)

    model = load_wan()
    wanted = sample(model, positive, latent())
    patched = model.clone()
    patched.model_options["transformer_options"]["optimized_attention_override"] = override
    assert torch.equal(sample(patched, positive, latent()), wanted)
    assert set(blocks) == {0, 1}


def test_it_needs_nothing_but_model_conditioning_and_latent(pack, load_wan, positive, latent):
    node = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler
    wanted = latent(frames=5)
    got = node.execute(load_wan(), positive, wanted, seed=3).result[0]["samples"]
    assert got.shape == wanted["samples"].shape
    assert torch.isfinite(got).all() and got.std() > 0.1
    assert torch.equal(node.execute(load_wan(), positive, wanted, seed=3).result[0]["samples"], got)
    assert not torch.equal(node.execute(load_wan(), positive, wanted, seed=4).result[0]["samples"], got)


def test_every_video_of_a_batch_is_its_own_and_the_first_is_the_single_one(sample, load_wan, positive, latent):
    one, two = sample(load_wan(), positive, latent()), sample(load_wan(), positive, latent(batch=2))
    torch.testing.assert_close(two[:1], one, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(two[1], two[0], atol=0.1)


def test_the_sampler_twin_makes_the_same_video_and_uses_only_the_seed(pack, sample, load_wan, positive, latent):
    """Seen to fail when the noise depends on the NOISE that is given."""
    from comfy_extras.nodes_custom_sampler import BasicGuider, RandomNoise, SamplerCustomAdvanced

    schedule, sigmas = pack.part("nodes.sampling.step_schedule").StepSchedule.execute("histream-plus").result
    nodes = pack.part("nodes.sampling.anchor_window_sampler")
    for settings in (None, pack.part("nodes.settings").ModelSettings()):
        model = load_wan() if settings is None else pack.part("nodes.host.sampler").attach(load_wan(), settings)
        wanted = nodes.AnchorWindowSampler.execute(model, positive, latent(), 11, schedule).result[0]["samples"]
        twin = nodes.AnchorWindowSamplerSelect.execute(model, schedule).result[0]
        guider = BasicGuider.execute(model, positive).result[0]
        noise = RandomNoise.execute(11).result[0]
        got = SamplerCustomAdvanced.execute(noise, guider, twin, sigmas, latent()).result[0]["samples"]
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("frames", [9, 30])
def test_exact_memory_tiers_give_the_same_video_bit_for_bit_and_fp8_nearly(
    pack, sample, load_wan, positive, latent, frames
):
    """The longer one moves its anchor. Seen to fail with a `kv_memory` that does not reach the caches: fp8 is equal."""
    node = pack.part("nodes.model.dual_resolution_cache").DualResolutionCache
    made = {
        kv: sample(node.execute(load_wan(), kv_memory=kv).result[0], positive, latent(frames))
        for kv in ("full", "lean", "cpu", "fp8")
    }
    assert torch.equal(made["full"], sample(load_wan(), positive, latent(frames)))
    assert torch.equal(made["lean"], made["full"])
    assert torch.equal(made["cpu"], made["full"])
    assert 0 < (made["fp8"] - made["full"]).norm() / made["full"].norm() < 0.1


@pytest.mark.parametrize("kv", ["full", "lean", "cpu", "fp8"])
@pytest.mark.parametrize("twin", [False, True], ids=["node", "twin"])
def test_the_host_is_asked_for_one_chunk_and_the_caches(pack, load_wan, positive, latent, monkeypatch, twin, kv):
    """Seen to fail without the caches in the sum, for the twin with the whole video in it, and with the bytes of the
    full cache in every tier."""
    import comfy.sampler_helpers
    import comfy.samplers

    names = ("host.sampler", "host.caches", "settings")
    host, host_caches, settings = (pack.part(f"nodes.{name}") for name in names)
    asked = []
    estimate = comfy.sampler_helpers.estimate_memory
    monkeypatch.setattr(
        comfy.sampler_helpers,
        "estimate_memory",
        lambda model, shape, conds: asked.append((model, shape)) or estimate(model, shape, conds),
    )
    window = settings.WindowChoice(local_frames=40)  # large enough to tell the tiers apart
    sampler = host.ChunkSampler(settings.ModelSettings(kv=kv), settings.StepChoice(), window)
    made = []
    make_caches = host_caches.make_caches
    monkeypatch.setattr(host_caches, "make_caches", lambda *a, **k: made.append(make_caches(*a, **k)) or made[-1])
    if twin:
        guider = comfy.samplers.CFGGuider(host.attach(load_wan(), settings.ModelSettings()))
        guider.inner_set_conds({"positive": positive})
        blank = latent(frames=60)["samples"]
        sigmas = host.first_chunk_sigmas(sampler.plan(blank.shape).chunks[0].steps)
        result = guider.sample(blank, blank, comfy.samplers.KSAMPLER(sampler), sigmas, disable_pbar=True, seed=0)
        assert result.shape == blank.shape
    else:
        pack.part("nodes.host.backend").sample_latent(load_wan(), positive, latent(frames=60), sampler, 0)
    [(model, shape)] = asked
    caches = sum(cache.nbytes for cache in made[-1].values())
    by_frame = model.model.memory_required([2, 16, 1, 8, 8])
    assert shape[2] < 60
    assert (shape[2] - 3) * by_frame >= caches > (shape[2] - 4) * by_frame


def test_room_for_the_caches_is_not_made_by_unloading_the_model_itself(
    pack, sample, load_wan, positive, latent, monkeypatch
):
    """Seen to fail when free_memory is not told what to keep."""
    import comfy.model_management as mm

    host_run = pack.part("nodes.host.run")
    other = load_wan()
    mm.load_models_gpu([other])
    loaded = []
    denoise = host_run.HostRun.denoise

    def look(run, *args):
        loaded.append([known.model for known in mm.current_loaded_models])
        assert run.guider.model_patcher in loaded[-1]
        return denoise(run, *args)

    monkeypatch.setattr(host_run.HostRun, "denoise", look)
    monkeypatch.setattr(host_run, "kv_bytes", lambda *args, **sizes: 2**60)
    sample(load_wan(), positive, latent(3))
    assert other not in loaded[-1]


def test_a_vae_gives_previews_in_true_colours_and_stays_loaded(pack, load_wan, vae, positive, latent, progress):
    """Seen to fail when the normalised latent is decoded."""
    import comfy.model_management as mm

    sampler = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler
    loaded = []
    denoise = pack.part("nodes.host.run").HostRun.denoise

    def look(*args):
        loaded.append(any(known.model is vae.patcher for known in mm.current_loaded_models))
        return denoise(*args)

    pack.part("nodes.host.run").HostRun.denoise = look
    try:
        made = sampler.execute(load_wan(), positive, latent(3), 3, vae=vae).result[0]["samples"]
    finally:
        pack.part("nodes.host.run").HostRun.denoise = denoise
    wanted = vae.decode(made[:, :, 2:3])[0, 0].mul(255)
    shown = torch.frombuffer(bytearray(progress[-1][2][1].tobytes()), dtype=torch.uint8).view(64, 64, 3)
    assert (shown - wanted).abs().max() < 1.01
    assert all(loaded)


def test_previews_of_a_large_video_are_decoded_small_and_alone(pack, vae):
    """1080p decoded whole for a preview takes gigabytes. Seen to fail without the resize, and without the reset."""
    host_vae, preview = pack.part("nodes.host.vae"), pack.part("nodes.host.preview")
    decoder, decoded = host_vae.open_host_decoder(vae, normalised=False), []

    def decode(latents, decode=decoder.decode):
        decoded.append(tuple(latents.shape))
        return decode(latents)

    decoder.decode = decode
    latents = torch.randn(1, 16, 2, 34, 160)
    pictures = preview.stills(decoder, latents)
    assert decoded == [(1, 16, 1, 14, 64)] * 2
    assert pictures[1].tobytes() == preview.stills(decoder, latents[:, :, 1:])[0].tobytes()
    assert [picture.size for picture in pictures] == [(512, 112)] * 2


def test_progress_counts_every_step_and_plays_each_finished_chunk_while_the_next_is_made(
    pack, load_wan, positive, latent, progress
):
    """The end of a chunk at once, then its pictures in turn. Seen to fail when cache passes are counted too, and with
    one picture for each chunk."""
    node = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler
    node.execute(load_wan(), positive, latent(frames=7), seed=3)
    assert {total for _, total, _ in progress} == {12}
    assert [value for value, _, preview in progress if preview] == [4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 12]
    end, *played = [preview[1] for _, _, preview in progress if preview][:5]
    assert end.size == (8, 8)
    first, second, third, again = (picture.tobytes() for picture in played)
    assert len({first, second, third}) == 3
    assert (again, end.tobytes()) == (first, third)


def test_a_taehv_in_vae_approx_gives_previews_in_its_colours(pack, load_wan, positive, latent, progress, small_file):
    """Without a VAE. Seen to fail where the file is not looked for, and with latents as they are between nodes."""
    from histream_core.vae.decoders import open_decoder
    from histream_core.weights.loading import load_vae

    sampler = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler
    model = load_wan()
    made = sampler.execute(model, positive, latent(3), 3).result[0]["samples"]
    decoder = open_decoder(load_vae(small_file), normalised=False)
    wanted = decoder.decode(made[:, :, 2:3])[0, :, 0].movedim(0, -1).add(1).div(2).clamp(0, 1).mul(255)
    shown = torch.frombuffer(bytearray(progress[-1][2][1].tobytes()), dtype=torch.uint8).view(64, 64, 3)
    assert (shown - wanted).abs().max() < 1.01


def test_previews_of_the_demo_model_are_in_true_colours(pack):
    """Without a VAE, as at a SAMPLER. Seen to fail by the linear map that is made for latents of Wan."""
    model, _, vae = pack.part("nodes.host.load").load_demo_model()
    latents = torch.randn(1, 16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pictures = pack.part("nodes.host.preview").chunk_previewer(model)(latents)
    wanted = vae.decode(model.model.process_latent_out(latents))[0, 0].mul(255)
    shown = torch.frombuffer(bytearray(pictures[0].tobytes()), dtype=torch.uint8).view(64, 64, 3)
    assert (shown - wanted).abs().max() < 2


def test_a_file_that_is_no_taehv_costs_a_warning_and_not_the_run(
    pack, load_wan, positive, latent, progress, small_file, caplog
):
    small_file.write_bytes(b"no weights")
    sampler = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler
    sampler.execute(load_wan(), positive, latent(3), 3)
    assert progress[-1][2][1].size == (8, 8)
    assert "previews are a guess" in caplog.text


@pytest.fixture
def small_file(comfyui, tmp_path):
    """A TAEHV of random weights where the host looks for one."""
    import folder_paths
    from safetensors.torch import save_file
    from tiny_vae import make_taehv

    path = tmp_path / "taew2_1.safetensors"
    save_file({key: x.half() for key, x in make_taehv().state_dict().items()}, path)
    folders, kinds = folder_paths.folder_names_and_paths["vae_approx"]
    folder_paths.folder_names_and_paths["vae_approx"] = ([*folders, str(tmp_path)], kinds)
    yield path
    folder_paths.folder_names_and_paths["vae_approx"] = (folders, kinds)
    folder_paths.filename_list_cache.pop("vae_approx")


def test_the_line_goes_to_the_page_that_runs_the_graph_and_to_no_other(pack, monkeypatch):
    """Seen to fail without the client's id: every open page showed it at its node of that number."""
    log, sent = pack.part("nodes.host.log"), []
    page = SimpleNamespace(client_id="mine", send_progress_text=lambda *args: sent.append(args))
    monkeypatch.setattr(log.server.PromptServer, "instance", page, raising=False)
    monkeypatch.setattr(log, "get_executing_context", lambda: SimpleNamespace(node_id="6"))
    log.tell("chunk 1 of 3")
    assert sent == [("chunk 1 of 3", "6", "mine")]


@pytest.fixture
def told(pack, monkeypatch):
    """The lines under the node."""
    lines = []
    monkeypatch.setattr(pack.part("nodes.host.log"), "tell", lines.append)
    return lines


def test_the_line_under_the_node_says_chunk_step_frames_seconds_and_what_is_left(
    pack, load_wan, positive, latent, told
):
    """Seen to fail without `pace.begin`."""
    node = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler
    summary = node.execute(load_wan(), positive, latent(frames=7, batch=2), seed=3).result[3]
    assert told[0] == "chunk 1 of 3, step 1 of 4, 0 of 25 frames"
    assert re.fullmatch(r"chunk 1 of 3, step 3 of 4, 0 of 25 frames, about \d+ s of sampling left", told[2])
    assert any(re.match(r"chunk 2 of 3, step 1 of 4, 9 of 25 frames, \d+\.\d\d s for each, about", x) for x in told)
    assert re.fullmatch(r"all chunks sampled, 25 of 25 frames, \d+\.\d\d s for each", told[-1])
    first, how, took, kernels, memory = summary.splitlines()
    assert first == "a LATENT of 2 videos: 64x64, 25 frames, 3 chunks, 12 steps"
    assert how == "preset self-forcing, mode histream, seed 3"
    assert re.fullmatch(r"\d+ s, \d+\.\d\d s for each frame, decoding not counted", took)
    assert kernels.startswith("attention host (")
    assert re.fullmatch(r"keys and values 0\.00 GB \(full\)", memory)


def test_behind_a_run_that_was_cancelled_no_time_is_left(pack, sample, load_wan, positive, latent, told, monkeypatch):
    """Nor is there a line where nothing was told yet. Seen to fail where the last line stays."""
    import comfy.model_management as mm

    host_run = pack.part("nodes.host.run").HostRun
    denoise, calls = host_run.denoise, []

    def stop(self, *args):
        calls.append(1)
        if len(calls) == 4:
            mm.interrupt_current_processing()
        return denoise(self, *args)

    monkeypatch.setattr(host_run, "denoise", stop)
    with pytest.raises(mm.InterruptProcessingException):
        sample(load_wan(), positive, latent(frames=7))
    assert told[-2].endswith(" of sampling left")
    assert told[-1] == "stopped: chunk 1 of 3, step 4 of 4, 0 of 25 frames"
    told.clear()
    with pytest.raises(ValueError, match="is not empty"):
        sample(load_wan(), positive, {"samples": torch.ones(1, 16, 7, 8, 8)})
    assert not told


def test_cancel_stops_within_a_step_and_the_next_run_works(pack, sample, load_wan, positive, latent):
    """Seen to fail when the network call is in a try with a bare except."""
    import comfy.model_management as mm

    model, layers = load_wan(), []
    wanted = sample(model, positive, latent())

    def cancel(attend, *args, **kwargs):
        layers.append(kwargs["transformer_options"]["block_index"])
        if len(layers) == 6:
            mm.interrupt_current_processing()
        return attend(*args, **kwargs)

    patched = model.clone()
    patched.model_options["transformer_options"]["optimized_attention_override"] = cancel
    with pytest.raises(mm.InterruptProcessingException):
        sample(patched, positive, latent())
    assert len(layers) == 6
    assert torch.equal(sample(model, positive, latent()), wanted)
    assert not [key for key in model.model_options["transformer_options"].get("wrappers", {}) if key]
