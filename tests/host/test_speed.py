"""HiStream Speed inside a real ComfyUI: what is chosen computes, is said, and belongs to a kept run."""

import logging

import pytest
import torch


@pytest.fixture
def speed(pack):
    """The output of the node for these choices."""

    def choose(**chosen):
        return pack.part("nodes.model.speed").SpeedNode.execute(**({"attention": "auto"} | chosen)).result[0]

    return choose


@pytest.fixture
def make(pack, load_wan, positive, latent):
    """A video of seed 3 with a HISTREAM_SPEED."""
    node = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler

    def run(speed=None, model=None, frames=7):
        return node.execute(model or load_wan(), positive, latent(frames), 3, speed=speed).result[0]["samples"]

    return run


def distance(got, wanted):
    assert torch.isfinite(got).all()
    return float((got - wanted).norm() / wanted.norm())


def test_the_defaults_and_the_hosts_own_attention_change_nothing(speed, make):
    """Seen to fail with PyTorch's attention as the default."""
    wanted = make()
    assert torch.equal(make(speed()), wanted)
    assert torch.equal(make(speed(attention="host")), wanted)
    assert 0 < distance(make(speed(attention="sdpa")), wanted) < 1e-5


def test_what_is_in_use_is_said_once_for_each_run(pack, speed, make, caplog):
    import comfy.ldm.modules.attention as attention

    name = attention.optimized_attention.__name__.removeprefix("attention_")
    caplog.set_level(logging.INFO, logger="histream")
    for choice, said in (
        ({}, f"attention host ({name}), linears plain"),
        ({"attention": "sdpa", "linears": "fp8"}, "attention sdpa, linears fp8, emulated"),
    ):
        caplog.clear()
        make(speed(**choice))
        [line] = [record.message for record in caplog.records if "computing with" in record.message]
        assert line.startswith(f"computing with {said}")


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_hosts_fused_kernels_change_last_bits_alone(speed, make, load_wan, dtype):
    """30 frames move the anchor, whose un-rotated keys must not be overwritten."""
    options = {} if dtype is None else {"dtype": dtype}
    wanted = make(model=load_wan(**options), frames=30)
    got = make(speed(elementwise="fused"), model=load_wan(**options), frames=30)
    assert distance(got, wanted) < (1e-4 if dtype is None else 0.1)


def test_the_hosts_fused_kernels_are_those_that_compute(pack, speed, make, monkeypatch):
    import comfy_kitchen

    calls = []
    for name in ("adaln", "apply_rope1", "apply_rope1_"):
        kernel = getattr(comfy_kitchen, name)
        monkeypatch.setattr(comfy_kitchen, name, lambda *a, kernel=kernel, name=name: calls.append(name) or kernel(*a))
    make(frames=3)
    assert not calls
    make(speed(elementwise="fused"), frames=3)
    assert [calls.count(name) for name in ("adaln", "apply_rope1", "apply_rope1_")] == [16, 8, 8]


def test_fp8_products_are_near_and_have_the_lora_in_them(speed, make, load_wan, lora):
    """Seen to fail with weights that are taken from the modules, where a LoRA may not be yet."""
    fp8 = speed(linears="fp8")
    plain, rounded = make(), make(fp8)
    assert 0 < distance(rounded, plain) < 0.3
    with_lora = make(fp8, model=lora(load_wan()))
    assert distance(with_lora, make(model=lora(load_wan()))) < distance(with_lora, rounded)


def test_every_product_of_every_layer_is_in_fp8(pack, speed, make, monkeypatch):
    """Whatever the host calls it by: it folds the activation into the second product of the feed-forward."""
    linears, shapes = pack.part("histream_core.network.ops.linears"), []
    fp8_linear = linears.fp8_linear
    monkeypatch.setattr(linears, "fp8_linear", lambda x, *rest: shapes.append(x.shape) or fp8_linear(x, *rest))
    make(speed(linears="fp8"), frames=3)
    assert len(shapes) == 8 * 2 * 4


def test_what_is_not_installed_is_refused_by_the_node(pack, speed, monkeypatch):
    monkeypatch.setattr(pack.part("histream_core.network.ops.attention"), "find_spec", lambda module: None)
    with pytest.raises(ValueError, match="attention sage is not installed: install sageattention"):
        speed(attention="sage")


def test_two_nodes_that_choose_the_attention_are_refused(speed, make, load_wan):
    """One of them would be ignored in silence. Seen to fail without the check."""
    model = load_wan()
    model.model_options["transformer_options"]["optimized_attention_override"] = lambda attend, *a, **k: attend(*a, **k)
    with pytest.raises(
        ValueError, match="another node on this MODEL chooses its attention, and HiStream Speed wants sdpa"
    ):
        make(speed(attention="sdpa"), model=model)
    assert torch.equal(make(speed(attention="host"), model=model), make())


def test_on_a_hopper_gpu_auto_puts_cudnn_first_where_the_host_would_use_pytorchs(pack, speed, load_wan, monkeypatch):
    """And nowhere else: what the user chose stays."""
    import comfy.ldm.modules.attention as attention

    host_speed, model = pack.part("nodes.host.speed"), load_wan()
    for name in ("nodes.host.speed", "histream_core.network.ops.attention"):
        monkeypatch.setattr(pack.part(name), "is_hopper", lambda device: True)
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_pytorch)

    def in_use(**chosen):
        return host_speed.kernels_for(speed(**chosen), model).in_use

    assert in_use()["attention"] == "sdpa, cuDNN first"
    assert in_use(attention="host")["attention"] == "host (pytorch)"
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_sage)
    assert in_use()["attention"] == "host (sage)"
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_pytorch)
    model.model_options["transformer_options"]["optimized_attention_override"] = None
    assert in_use()["attention"] == "host (another node's)"


def test_the_sampler_twin_computes_with_it_too(pack, speed, make, load_wan, positive, latent):
    from comfy_extras.nodes_custom_sampler import BasicGuider, RandomNoise, SamplerCustomAdvanced

    fp8, model = speed(linears="fp8"), load_wan()
    sigmas = pack.part("nodes.sampling.step_schedule").StepSchedule.execute("histream").result[1]
    twin = (
        pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSamplerSelect.execute(model, speed=fp8).result[0]
    )
    guider = BasicGuider.execute(model, positive).result[0]
    noise = RandomNoise.execute(3).result[0]
    got = SamplerCustomAdvanced.execute(noise, guider, twin, sigmas, latent(7)).result[0]["samples"]
    assert torch.equal(got, make(fp8))


def test_a_kept_run_goes_on_as_it_was_begun_and_only_a_branch_can_change_it(
    pack, speed, load_wan, vae, positive, latent, output
):
    """Seen to fail with nodes that take the defaults, and with a manifest that does not tell."""
    part, fp8 = pack.part, speed(linears="fp8", attention="sdpa")
    read_manifest = part("histream_core.runs.store.journal").read_manifest
    [choice] = part("nodes.video.video_output").VideoOutputNode.execute("run", format="ffv1", bit_depth="8").result
    sampler = part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler
    sampler.execute(load_wan(), positive, latent(6), 3, vae=vae, output=choice, speed=fp8)
    manifest = read_manifest(output / "run_00001")
    assert manifest.settings.speed == speed(linears="fp8")
    assert manifest.made_with["attention"] == "sdpa"
    last = output / "run_00001" / "chunks" / "00001.safetensors"
    wanted = last.read_bytes()
    last.unlink()
    (output / "run_00001" / "segments" / "seg-00001.mkv").unlink()
    resume = part("nodes.runs.resume_run").ResumeRun.execute
    with pytest.raises(ValueError, match=r"the setting linears .plain, was fp8"):
        resume(load_wan(), vae, "run_00001", speed=speed())
    resume(load_wan(), vae, "run_00001", speed=fp8)
    assert last.read_bytes() == wanted
    part("nodes.runs.extend_run").ExtendRun.execute(load_wan(), vae, "run_00001", 0.7)
    assert read_manifest(output / "run_00002").settings.speed == speed(linears="fp8")
    part("nodes.runs.branch_run").BranchRun.execute(load_wan(), vae, "run_00001", 1, speed=speed())
    assert read_manifest(output / "run_00003").settings.speed == speed()
    assert (output / "run_00003" / "chunks" / "00001.safetensors").read_bytes() != wanted
