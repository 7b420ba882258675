"""Load Model and Demo Model inside a real ComfyUI."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

METADATA = {"config": json.dumps({"transformer": {"num_heads": 2, "text_dim": 32, "freq_dim": 32}})}


@pytest.fixture
def folder(pack, tmp_path):
    """A folder that the host finds models in."""
    import folder_paths

    before = folder_paths.folder_names_and_paths["diffusion_models"]
    folder_paths.folder_names_and_paths["diffusion_models"] = ([str(tmp_path)], before[1])
    yield tmp_path
    folder_paths.folder_names_and_paths["diffusion_models"] = before


@pytest.fixture
def load(pack):
    return lambda name, **options: pack.part("nodes.model.load_model").LoadModel.execute(name, **options).result[0]


def test_a_published_container_loads_and_samples_as_the_plain_file(
    load, folder, wan_weights, sample, load_wan, positive, latent
):
    save_file(wan_weights, folder / "plain.safetensors", metadata=METADATA)
    wanted = sample(load_wan(), positive, latent(3))
    got = sample(load("plain.safetensors", preset="self-forcing"), positive, latent(3))
    assert torch.equal(got, wanted)


def test_a_training_checkpoint_of_two_dictionaries_loads(load, folder, comfyui):
    """Two dictionaries and a wrapper's prefix, as trainers write them, on which the host's own loader fails."""
    from histream_core.network.model import WanConfig, WanModel

    weights = WanModel(WanConfig(dim=128, ffn_dim=64, num_heads=1, num_layers=1)).state_dict()
    wrapped = {f"model._fsdp_wrapped_module.{key}": value for key, value in weights.items()}
    torch.save({"generator": wrapped, "generator_ema": wrapped}, folder / "self_forcing_dmd.pt")
    model = load("self_forcing_dmd.pt", preset="self-forcing")
    got = model.model.diffusion_model.blocks[0].self_attn.q.weight
    assert torch.equal(got.float(), weights["blocks.0.self_attn.q.weight"])


def test_a_file_with_everything_and_metadata_of_a_trainer_loads_and_names_what_is_ignored(load, folder, caplog):
    """The host parses metadata itself, and fails on what is no JSON. Seen to fail with all of them handed on."""
    from histream_core.network.model import WanConfig, WanModel

    weights = WanModel(WanConfig(dim=128, ffn_dim=64, num_heads=1, num_layers=1)).state_dict()
    whole = {f"model.diffusion_model.{key}": x for key, x in weights.items()}
    beside = {"vae.decoder.middle.0.residual.0.gamma": torch.ones(2), "model.diffusion_model.model_type": torch.ones(1)}
    save_file(whole | beside, folder / "all.safetensors", metadata={"config": "mine", "_quantization_metadata": "{"})
    got = load("all.safetensors").model.diffusion_model.blocks[0].self_attn.q.weight
    assert torch.equal(got.float(), weights["blocks.0.self_attn.q.weight"])
    assert all(word in caplog.text for word in ("ignored", "model_type", "vae (1 tensors)", "config"))


def test_the_preset_that_was_found_travels_with_the_model_and_can_be_overridden(pack, load, folder, wan_weights):
    settings = pack.part("nodes.host.sampler").model_settings
    save_file(wan_weights, folder / "x.safetensors", metadata=METADATA | {"histream_preset": "longlive"})
    model = load("x.safetensors")
    assert settings(model).preset == "longlive"
    assert settings(load("x.safetensors", preset="causvid")).preset == "causvid"
    patched = pack.part("nodes.model.dual_resolution_cache").DualResolutionCache.execute(model, ntk_high=5.0).result[0]
    assert (settings(patched).preset, settings(patched).ntk_high) == ("longlive", 5.0)
    assert settings(model).ntk_high is None


def test_a_span_is_a_clamped_rule_for_times_as_on_the_command_line(pack, load, folder, wan_weights):
    save_file(wan_weights, folder / "x.safetensors", metadata=METADATA)
    cache, find = pack.part("nodes.model.dual_resolution_cache").DualResolutionCache, pack.part("nodes.host.sampler")
    preset = pack.part("histream_core.plan.presets").find_preset("streamdiffusionv2")
    model = load("x.safetensors")

    def rule(**options):
        found = find.model_settings(cache.execute(model, **options).result[0]).temporal_policy(preset)
        return found.kind, found.span

    assert rule() == (preset.temporal().kind, preset.span)
    assert rule(span=3) == rule(span=3, temporal_positions="clamped") == ("clamped", 3)
    with pytest.raises(ValueError, match=r"absolute positions have no span: .* or span 3 to 0$"):
        rule(span=3, temporal_positions="absolute")


def test_fp8_is_what_is_kept_when_asked_for(load, folder, wan_weights, sample, positive, latent):
    save_file(wan_weights, folder / "x.safetensors", metadata=METADATA)
    model = load("x.safetensors", weight_dtype="fp8_e4m3fn")
    assert model.model.diffusion_model.blocks[0].self_attn.q.weight.dtype == torch.float8_e4m3fn
    assert torch.isfinite(sample(model, positive, latent(3))).all()


class Code:
    """An object whose pickle runs code when it is loaded carelessly."""

    def __reduce__(self):
        return exec, ("import histream_core; histream_core.was_executed = True",)


def write_bad(kind: str, path, weights) -> None:
    if kind == "not a checkpoint":
        path.write_text("hello")
    elif kind == "truncated":
        save_file(weights, path)
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "code":
        path.write_bytes(pickle.dumps(Code(), protocol=2))
    elif kind == "a VAE":
        save_file({"decoder.middle.0.residual.0.gamma": torch.zeros(1)}, path)
    elif kind == "incomplete":
        save_file({key: value for key, value in weights.items() if "blocks.1.ffn" not in key}, path, metadata=METADATA)
    elif kind == "empty":
        path.write_bytes(b"")


@pytest.mark.parametrize("kind", ["not a checkpoint", "truncated", "code", "a VAE", "incomplete", "empty"])
@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_a_file_that_is_no_wan_model_is_one_clear_line(
    load, folder, wan_weights, kind, ending, sample, load_wan, positive, latent
):
    """Seen to fail when the file is not checked: whatever the host makes of it."""
    import histream_core

    path = folder / f"bad{ending}"
    write_bad(kind, path, wan_weights)
    with pytest.raises(ValueError, match="bad") as error:
        load(path.name)
    assert "\n" not in str(error.value)
    assert not hasattr(histream_core, "was_executed")
    assert torch.isfinite(sample(load_wan(), positive, latent(3))).all()


def test_a_file_that_is_not_there_is_refused(load, folder):
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        load("gone.safetensors")


def test_the_demo_model_makes_a_video_through_the_hosts_own_text_encode(pack, output):
    """Seen to fail when the tokens are cut to another length than in training."""
    from comfy_extras.nodes_hunyuan import EmptyHunyuanLatentVideo

    import nodes

    model, clip, vae = pack.part("nodes.model.demo_model").DemoModel.execute().result
    demo = pack.part("histream_core.demo")
    (positive,) = nodes.CLIPTextEncode().encode(clip, demo.PROMPT)
    assert torch.equal(positive[0][0], demo.load_text_encoder().encode(demo.PROMPT))
    empty = EmptyHunyuanLatentVideo.execute(256, 256, 9, 1).result[0]
    got = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler.execute(
        model, positive, empty, 0, vae=vae
    )
    pack.part("nodes.video.streaming_vae_decode").StreamingVAEDecode.execute(got.result[0], vae, "demo")
    assert (output / "demo_00001_.mp4").stat().st_size > 1000


def test_inside_the_host_the_demo_makes_what_the_engine_makes_without_one(pack, comfyui):
    """Equal latents with and without a host, except for rounding: there is one engine."""
    from histream_core import demo
    from histream_core.demo.sentence import completed
    from histream_core.network.cache.tiers import make_caches
    from histream_core.network.forward import Denoiser, Text
    from histream_core.plan.make import make_plan
    from histream_core.plan.presets import PRESETS
    from histream_core.stream.noise import SeededNoise
    from histream_core.stream.prompts import Prompt
    from histream_core.stream.stream import Stream

    model, clip, _ = pack.part("nodes.model.demo_model").DemoModel.execute().result
    positive = clip.encode_from_tokens_scheduled(clip.tokenize(demo.PROMPT))
    empty = {"samples": torch.zeros(1, 16, 5, 32, 32)}
    sampler = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler
    got = model.model.process_latent_in(sampler.execute(model, positive, empty, 7).result[0]["samples"])

    plan = make_plan(PRESETS["demo"], "histream", size=(256, 256), num_latent_frames=5)
    module = demo.load_transformer()
    text = Text(demo.load_text_encoder().encode(completed(demo.PROMPT, 7)))
    stream = Stream(plan, Denoiser(module), make_caches(plan, module), SeededNoise(7), [Prompt(text)])
    torch.testing.assert_close(got, torch.cat(list(stream.chunks()), dim=2), rtol=1e-2, atol=1e-2)


def test_the_seed_decides_what_a_prompt_leaves_open_as_it_does_for_the_command(pack):
    """Each video of a batch has its own; what another node made of the prompt stays. Seen to fail with one for all."""
    timeline, make_plan = pack.part("nodes.host.timeline"), pack.part("histream_core.plan.make").make_plan
    demo, completed = pack.part("histream_core.demo"), pack.part("histream_core.demo.sentence").completed
    clip, encoder = pack.part("nodes.model.demo_model").DemoModel.execute().result[1], demo.load_text_encoder()
    preset = pack.part("histream_core.plan.presets").find_preset("demo")
    plan = make_plan(preset, "histream", size=(256, 256), num_latent_frames=3)
    positive = clip.encode_from_tokens_scheduled(clip.tokenize(demo.PROMPT))

    def told(positive, seed, batch=1):
        return timeline.prompts_in(positive, plan, timeline.Audience(64, batch, seed=seed))[1][0].text.context

    for seed in range(6):
        staged = [encoder.encode(completed(demo.PROMPT, seed + item)) for item in range(2)]
        assert torch.equal(told(positive, seed, 2), torch.cat(staged))
    assert len({told(positive, seed).sum() for seed in range(6)}) > 3
    assert torch.equal(told(positive, None), encoder.encode(demo.PROMPT))
    zeroed = [[torch.zeros_like(positive[0][0]), positive[0][1]]]
    assert not told(zeroed, 3).any()


def test_words_that_the_demo_does_not_know_are_named(pack, caplog):
    clip = pack.part("nodes.model.demo_model").DemoModel.execute().result[1]
    clip.tokenize("a red dragon moves right")
    positive = clip.encode_from_tokens_scheduled(clip.tokenize("a red dragon moves right"))
    assert "does not know dragon" in pack.part("nodes.host.timeline").notes_of(positive)[0]


ASKED = {
    "a yellow square moves left on a purple background": "not trained on a purple background; backgrounds are blue",
    "a black circle moves up on a white background": "not trained on a black shape",
    "a red circle moves right on a blue background": "",
}


@pytest.mark.parametrize(("prompt", "said"), ASKED.items())
def test_what_the_demo_was_not_trained_on_is_said_before_the_first_step(pack, caplog, monkeypatch, prompt, said):
    """By the sampler, which has the words on its CONDITIONING, also from a timeline."""
    model, clip, _ = pack.part("nodes.model.demo_model").DemoModel.execute().result
    run = pack.part("nodes.host.run").HostRun
    monkeypatch.setattr(run, "forward", lambda *_, **__: pytest.fail("a step came first") if not told else stop())
    told = []

    def stop():
        raise InterruptedError

    log = pack.part("nodes.host.log")
    monkeypatch.setattr(log, "keep", lambda lines: told.append("\n".join(lines)))
    timeline = pack.part("nodes.sampling.prompt_timeline").PromptTimeline.execute(clip, f"[0] {prompt}")
    assert said in timeline.ui.as_dict()["text"][0]
    for positive in (clip.encode_from_tokens_scheduled(clip.tokenize(prompt)), timeline.result[0]):
        told.clear()
        with pytest.raises(InterruptedError):
            pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler.execute(
                model, positive, {"samples": torch.zeros(1, 16, 1, 32, 32)}, 0
            )
        assert len(told) == 1 and said in told[0] and bool(told[0]) == bool(said)


def test_the_demo_model_at_another_size_is_said(pack, caplog):
    model, clip, _ = pack.part("nodes.model.demo_model").DemoModel.execute().result
    positive = clip.encode_from_tokens_scheduled(clip.tokenize("a red circle moves right on a blue background"))
    sampler = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler
    sampler.execute(model, positive, {"samples": torch.zeros(1, 16, 1, 8, 8)}, 0)
    assert "trained at 256x256 alone, and at 64x64" in caplog.text


def test_a_sampler_of_the_host_is_refused_on_the_demo_model_alone(pack, load_wan):
    """It would make an empty picture. Seen to make one, in 4 and in 20 steps."""
    from comfy_extras.nodes_hunyuan import EmptyHunyuanLatentVideo

    import nodes

    model, clip, _ = pack.part("nodes.model.demo_model").DemoModel.execute().result
    empty = EmptyHunyuanLatentVideo.execute(32, 32, 1, 1).result[0]
    positive = clip.encode_from_tokens_scheduled(clip.tokenize("a red circle"))
    with pytest.raises(ValueError, match=r"Demo Model .* connect it to the Anchor-Window Sampler"):
        nodes.common_ksampler(model, 0, 1, 1.0, "euler", "simple", positive, positive, empty)
    other, text = load_wan(), [[torch.zeros(1, 4, 32), {}]]
    assert torch.isfinite(
        nodes.common_ksampler(other, 0, 1, 1.0, "euler", "simple", text, text, empty)[0]["samples"]
    ).all()


def test_an_empty_latent_is_not_decoded(pack, output):
    """Seen to fail with a file of one colour."""
    vae = pack.part("nodes.model.demo_model").DemoModel.execute().result[2]
    with pytest.raises(ValueError, match="the LATENT is empty, as before a sampler: connect"):
        pack.part("nodes.video.streaming_vae_decode").StreamingVAEDecode.execute(
            {"samples": torch.zeros(1, 16, 3, 8, 8)}, vae, "x"
        )
    assert not list(output.rglob("*.mp4"))


def test_lines_that_are_kept_stand_above_every_later_one_of_their_node_alone(pack, monkeypatch):
    """Seen to fail where the next line takes the place of a warning."""
    from types import SimpleNamespace

    log, shown, running = pack.part("nodes.host.log"), [], ["1"]
    instance = SimpleNamespace(client_id="me", send_progress_text=lambda text, node, _: shown.append((node, text)))
    monkeypatch.setattr(log.server.PromptServer, "instance", instance, raising=False)
    monkeypatch.setattr(log, "get_executing_context", lambda: SimpleNamespace(node_id=running[0]))
    log.keep(["not trained"])
    log.tell("chunk 1")
    running[0] = "2"
    log.tell("chunk 1")
    log.keep([])
    log.tell("chunk 2")
    assert shown == [("1", "not trained"), ("1", "not trained\nchunk 1"), ("2", "chunk 1"), ("2", "chunk 2")]


@pytest.fixture
def both_sets(wan_weights):
    """Weights of a tiny SGF+ model as its public code names them, and a core model that holds them."""
    from histream_core.network.model import WanConfig, WanModel
    from histream_core.weights.key_names import published_name

    config = WanConfig.from_state_dict(wan_weights, METADATA)
    model = WanModel(config).requires_grad_(False)
    model.load_state_dict(wan_weights)
    model.second = WanModel(config).requires_grad_(False)
    generator = torch.Generator().manual_seed(8)
    for x in model.second.parameters():
        x.copy_(torch.randn(x.shape, generator=generator) * 0.1)
    return {published_name(key): x.clone() for key, x in model.state_dict().items()}, model


def test_an_sgf_plus_file_samples_as_the_core_does_and_its_second_set_counts(
    pack, load, folder, both_sets, sample, positive, latent, wan_weights
):
    """Seen to fail with the first set in cache passes, and with text keys of the first set in those."""
    import tiny

    weights, core = both_sets
    save_file(weights, folder / "x.safetensors", metadata=METADATA)
    model = load("x.safetensors")
    settings = pack.part("nodes.host.sampler").model_settings(model)
    assert (settings.preset, settings.second) == ("sgf-plus", True)
    got = sample(model, positive, latent(9))
    plan = tiny.plan_of(tiny.find_preset("sgf-plus"), "histream", num_frames=9)
    prompt = tiny.Prompt(tiny.Text(positive[0][0]))
    wanted = tiny.video(plan, model=core, seed=3, prompts=[prompt])
    torch.testing.assert_close(got, model.model.process_latent_out(wanted), atol=1e-4, rtol=1e-4)
    save_file(wan_weights, folder / "one.safetensors", metadata=METADATA)
    alone = sample(load("one.safetensors", preset="sgf"), positive, latent(9))
    assert torch.equal(got[:, :, :3], alone[:, :, :3])  # the first chunk sees nothing that was written
    assert not torch.allclose(got[:, :, 3:], alone[:, :, 3:], atol=1e-2)


def test_a_lora_reaches_the_first_set_alone_which_is_said_and_both_sets_are_in_the_fingerprint(
    pack, load, folder, both_sets, sample, positive, latent, lora, caplog
):
    """Seen to fail without the warning."""
    weights, _ = both_sets
    save_file(weights, folder / "x.safetensors", metadata=METADATA)
    fingerprint = pack.part("nodes.host.fingerprint").fingerprint_model
    model = load("x.safetensors")
    changed = lora(model)
    plain = sample(model, positive, latent(6))
    assert "first of its two sets" not in caplog.text
    assert not torch.equal(sample(changed, positive, latent(6)), plain)
    assert "a LoRA on this MODEL changes the first of its two sets of weights" in caplog.text
    other = {key: x * 1.5 if "memory_" in key else x for key, x in weights.items()}
    save_file(other, folder / "y.safetensors", metadata=METADATA)
    assert len({fingerprint(found) for found in (model, changed, load("y.safetensors"))}) == 3


def test_sgf_plus_is_refused_where_its_second_set_would_not_be_used(
    pack, load, folder, both_sets, sample, positive, latent, wan_weights
):

    weights, _ = both_sets
    save_file(weights, folder / "x.safetensors", metadata=METADATA)
    with pytest.raises(ValueError, match="take the preset sgf-plus"):
        sample(load("x.safetensors", preset="self-forcing"), positive, latent(6))
    save_file(wan_weights, folder / "one.safetensors", metadata=METADATA)
    with pytest.raises(ValueError, match="which this model does not have"):
        sample(load("one.safetensors", preset="sgf-plus"), positive, latent(6))
    other = pack.part("nodes.host.sampler")
    with pytest.raises(ValueError, match=r"SGF\+.* connect the MODEL to the Anchor-Window Sampler"):
        other.check_other_sampler(other.model_settings(load("x.safetensors")))


def test_a_converted_lora_of_peft_is_read_by_the_host(pack, comfyui, load_wan, tmp_path):
    """CineScale's names. Seen to fail with the file as it is: the host knows no key of it."""
    import comfy.lora
    import comfy.lora_convert
    import comfy.utils

    from histream_core.weights.convert import convert

    keys = ("blocks.0.self_attn.q", "blocks.1.cross_attn.v", "blocks.1.ffn.2")
    shapes = {"A": (4, 96), "B": (96, 4)}
    weights = {f"{key}.lora_{part}.default.weight": torch.ones(shapes[part]) for key in keys for part in "AB"}
    weights["blocks.1.ffn.2.lora_A.default.weight"] = torch.ones(4, 64)
    torch.save(weights, tmp_path / "t2v_1.3b_ntk20.ckpt")
    convert(tmp_path / "t2v_1.3b_ntk20.ckpt", tmp_path / "a.safetensors")
    names = comfy.lora.model_lora_keys_unet(load_wan().model, {})

    def known(found):
        return {str(key) for key in comfy.lora.load_lora(comfy.lora_convert.convert_lora(dict(found)), names)}

    assert not known(weights)
    found = comfy.utils.load_torch_file(str(tmp_path / "a.safetensors"))
    assert known(found) == {f"diffusion_model.{key}.weight" for key in keys}
