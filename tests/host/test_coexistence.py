"""Beside other nodes and packs, and however ComfyUI was started: it works the same, or says why not."""

import pytest
import torch
from wrong_values import graph


@pytest.fixture
def low_vram(comfyui, monkeypatch):
    """From the call on, the host keeps all but a few weights where they are, as `--lowvram` does on a GPU.

    Comes back with a list to which every load adds how many layers were left to be moved when they are needed.
    """
    import comfy.model_patcher

    load, left = comfy.model_patcher.ModelPatcher.load, []

    def little(self, device_to=None, lowvram_model_memory=0, **options):
        load(self, device_to, lowvram_model_memory=64_000, **(options | {"full_load": False}))
        left.append(sum(getattr(m, "comfy_cast_weights", False) for m in self.model.modules()))

    def begin() -> list[int]:
        monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "load", little)
        return left

    return begin


def test_every_lora_of_a_stack_counts(sample, load_wan, lora, positive, latent):
    once, twice = sample(lora(load_wan()), positive, latent()), sample(lora(lora(load_wan())), positive, latent())
    plain = sample(load_wan(), positive, latent())
    assert (once - plain).abs().max() > 1e-3
    assert (twice - once).abs().max() > 1e-3


@pytest.mark.parametrize("with_lora", [False, True], ids=["plain", "lora"])
def test_with_low_vram_the_video_is_the_same(sample, load_wan, lora, positive, latent, low_vram, with_lora):
    """Weights, and a LoRA on them, come as they are needed. Seen to fail where parameters are read past the layers."""
    models = [lora(load_wan()) if with_lora else load_wan() for _ in range(2)]
    wanted = sample(models[0], positive, latent())
    left = low_vram()
    assert torch.equal(sample(models[1], positive, latent()), wanted)
    assert left[0] > 10


def test_every_fast_feature_of_the_host_leaves_the_cpu_alone(sample, load_wan, positive, latent, monkeypatch):
    """`--fast` is for GPUs. Seen to fail with features that cannot be had there."""
    from comfy.cli_args import PerformanceFeature, args

    wanted = sample(load_wan(), positive, latent())
    monkeypatch.setattr(args, "fast", set(PerformanceFeature))
    assert torch.equal(sample(load_wan(), positive, latent()), wanted)


def test_a_server_with_every_flag_that_a_cpu_allows_makes_the_video(start_server, tmp_path):
    """Weights in fp8, the VAE in bf16, pictures in float16, another attention, no cache between nodes, and `--fast`.

    Seen to fail with caches of the weights' own dtype.
    """
    kinds = ("--fp8_e4m3fn-unet", "--bf16-vae", "--fp16-intermediates")
    longer = {"empty": {"length": 21}, "decode": {"images": True}}
    with start_server(tmp_path, "--fast", "--use-split-cross-attention", "--cache-none", *kinds) as server:
        run = server.run(graph(longer, seed=1))
        assert (run.error, len(run.outputs)) == ("", 1)
        assert "model weight dtype torch.float8_e4m3fn" in server.read_log()
    assert next(tmp_path.glob("output/video/*.mp4")).stat().st_size > 1000


@pytest.mark.parametrize("name", ["EasyCacheNode", "LazyCacheNode"])
def test_the_hosts_step_caches_are_refused_where_they_skip(pack, sample, load_wan, positive, latent, name):
    """And the next run without them works. Seen to fail without the check in HostRun.denoise."""
    import comfy_extras.nodes_easycache as nodes

    [model] = getattr(nodes, name).execute(load_wan(), 3.0, 0.0, 1.0, False).result
    with pytest.raises(ValueError, match=r"remove (it|that node)"):
        sample(model, positive, latent(13))
    assert torch.isfinite(sample(load_wan(), positive, latent())).all()


@pytest.mark.parametrize("free", [1e12, 0], ids=["one batch", "a batch each"])
def test_a_guider_of_several_prompts_is_refused_in_any_batches(pack, load_wan, positive, latent, free, monkeypatch):
    """CFG above 1, by a guider that does not say so. Seen to fail with a TypeError where each prompt has its batch."""
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG

    schedule, sigmas = pack.part("nodes.sampling.step_schedule").StepSchedule.execute("histream").result
    twin = (
        pack.part("nodes.sampling.anchor_window_sampler")
        .AnchorWindowSamplerSelect.execute(load_wan(), schedule)
        .result[0]
    )
    model = load_wan()
    guider = Guider_DualCFG(model)
    guider.set_conds(positive, positive, positive)
    guider.set_cfg(4.0, 4.0)
    monkeypatch.setattr(type(model), "get_free_memory", lambda self, device: free)
    blank = latent(3)["samples"]
    with pytest.raises(ValueError, match=r"the guider asks for .* prompt.*: set CFG to 1, or use BasicGuider"):
        guider.sample(blank, blank, twin, sigmas, disable_pbar=True, seed=0)


def test_previews_of_another_pack_do_not_disturb(sample, load_wan, positive, latent, progress, monkeypatch):
    """VideoHelperSuite puts a previewer in the host's place that gives frames as tensors and sends its own pictures.

    Seen to fail where its frames are taken for pictures.
    """
    import latent_preview

    class AnimatedPreviewer(latent_preview.LatentPreviewer):
        def decode_latent_to_preview(self, x0):
            return torch.zeros(1, 8, 8, 3)

        def decode_latent_to_preview_image(self, preview_format, x0):
            return None

    monkeypatch.setattr(latent_preview, "get_previewer", lambda device, latent_format: AnimatedPreviewer())
    sample(load_wan(), positive, latent())
    assert sum(preview is not None for _, _, preview in progress) >= 3


def test_modules_of_other_packs_with_our_names_are_in_nobodys_way(start_server, tmp_path):
    """Packs that put themselves on sys.path, with modules called nodes, utils and histream_core.

    Seen to fail with an import that is not relative.
    """
    other = tmp_path / "custom_nodes" / "a_other_pack"
    other.mkdir(parents=True)
    for name in ("utils", "histream_core", "settings", "host"):
        (other / f"{name}.py").write_text("raise RuntimeError('this is the module of another pack')\n")
    (other / "nodes.py").write_text("NAME = 'of another pack'\n")
    (other / "__init__.py").write_text(
        "import sys, os, types\n"
        "sys.path.append(os.path.dirname(__file__))\n"
        "for name in ('histream_core', 'settings', 'host'):\n"
        "    sys.modules.setdefault(name, types.ModuleType(name))\n"
        "NODE_CLASS_MAPPINGS = {}\n"
    )
    with start_server(tmp_path) as server:
        assert server.run(graph(seed=1)).error == ""
        log = server.read_log()
        assert "of another pack" not in log
