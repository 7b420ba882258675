"""Inputs that cannot work are refused in one sentence, before the first step, and the host goes on working."""

import json
import re
import time
from pathlib import Path

import pytest
import torch
from wrong_values import AHEAD, KEPT, WRONG, WRONG_FOR_THE_HOST, graph


@pytest.fixture
def refused(pack, sample, load_wan, positive, latent):
    """Expect a refusal that says `said`; afterwards the sampler still works."""
    ran = []
    host_run = pack.part("nodes.host.run")
    forward = host_run.HostRun.forward

    def check(said, model=None, conditioning=None, wanted=None, schedule=None):
        with pytest.raises(ValueError, match=said) as error:
            sample(model or load_wan(), conditioning or positive, wanted or latent(3), schedule)
        assert "\n" not in str(error.value)
        assert torch.isfinite(sample(load_wan(), positive, latent(3))).all()

    host_run.HostRun.forward = lambda self, *args, **kwargs: ran.append(1) or forward(self, *args, **kwargs)
    yield check
    host_run.HostRun.forward = forward


def test_no_frames_are_refused(refused):
    refused("ask for at least 1 frame", wanted={"samples": torch.zeros(1, 16, 0, 8, 8)})


def test_nan_latents_are_refused(refused):
    refused("the LATENT contains NaN", wanted={"samples": torch.full((1, 16, 3, 8, 8), torch.nan)})


def test_latents_with_content_are_refused(refused):
    refused("the LATENT is not empty", wanted={"samples": torch.ones(1, 16, 3, 8, 8)})


def test_a_mask_is_refused(refused, latent):
    refused("noise mask", wanted=latent(3) | {"noise_mask": torch.ones(1, 3, 8, 8)})


def test_several_prompts_at_once_are_refused(refused, positive):
    refused("holds 2 prompts", conditioning=positive * 2)


def test_prompts_that_do_not_fit_the_batch_are_refused(refused, positive, latent):
    refused(
        "2 prompts of the CONDITIONING do not fit 3 videos",
        conditioning=[[positive[0][0].repeat(2, 1, 1), {}]],
        wanted=latent(3, batch=3),
    )


@pytest.mark.parametrize(
    ("key", "said"),
    [("control", "a ControlNet"), ("hooks", "hooks"), ("concat_latent_image", "an image"), ("mask", "a mask")],
)
def test_conditioning_that_would_be_ignored_is_refused(pack, positive, key, said):
    check = pack.part("nodes.host.checks").check_conditioning
    with pytest.raises(ValueError, match=said):
        check([{"cross_attn": positive[0][0], key: object()}], 1, 32)


def test_text_of_another_models_encoder_is_refused(refused):
    refused("has 48 channels but the model reads 32", conditioning=[[torch.zeros(1, 4, 48), {}]])


def test_a_model_that_is_no_wan_is_refused(refused, comfyui):
    import comfy.model_patcher

    class Other(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.diffusion_model = torch.nn.Linear(1, 1)

    cpu = torch.device("cpu")
    refused("the MODEL is a Linear", comfy.model_patcher.ModelPatcher(Other(), cpu, cpu))


def test_image_to_video_weights_are_refused(refused, comfyui, wan_weights):
    import comfy.sd

    weights = {key: value.clone() for key, value in wan_weights.items()}
    weights["patch_embedding.weight"] = torch.randn(96, 36, 1, 2, 2)
    weights["img_emb.proj.0.weight"] = torch.randn(4)
    config = json.dumps({"transformer": {"num_heads": 2, "text_dim": 32, "freq_dim": 32, "model_type": "t2v"}})
    model = comfy.sd.load_diffusion_model_state_dict(weights, metadata={"config": config})
    refused("takes 36 latent channels", model)


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        (lambda m: m.set_model_patch_replace(lambda *_: None, "dit", "double_block", 0), "block patches"),
        (lambda m: m.set_model_attn1_patch(lambda *_: None), "attention patches"),
        (lambda m: m.set_model_rope_options(1, 0, 1, 0, 1, 0), "position"),
        (lambda m: m.add_object_patch("diffusion_model.blocks.0.self_attn.forward", len), "self_attn.forward"),
        (lambda m: m.add_object_patch("diffusion_model.rope_embedder", len), "rope_embedder"),
    ],
    ids=["block", "attention", "rope", "forward", "embedder"],
)
def test_patches_that_would_be_ignored_are_refused(refused, load_wan, patch, said):
    """Seen to fail without check_options: the patch is silently left out."""
    model = load_wan().clone()
    patch(model)
    refused(said, model)


def test_a_model_that_makes_nan_is_named_at_its_first_chunk(refused, load_wan, latent):
    """Half precision can overflow. Seen to fail without check_finite: a black video at the end."""
    model = load_wan()
    model.model.diffusion_model.head.head.bias.data.fill_(torch.nan)
    refused("chunk 1 of 2 contains NaN", model, wanted=latent(6))


def test_a_node_that_skips_steps_is_refused(refused, load_wan):
    """Seen to fail without the check in HostRun.denoise: the caches would hold an older pass."""
    from comfy.patcher_extension import WrappersMP

    model = load_wan().clone()
    model.add_wrapper_with_key(
        WrappersMP.DIFFUSION_MODEL, "lazy", lambda executor, x, *args, **kwargs: torch.zeros_like(x)
    )
    refused("skipped a step", model)


def test_a_node_that_changes_the_prompt_on_the_way_is_refused(refused, load_wan):
    """Seen to fail without the comparison: the change is silently left out."""
    from comfy.patcher_extension import WrappersMP

    def louder(executor, x, timestep, context, *args, **kwargs):
        return executor(x, timestep, context * 2, *args, **kwargs)

    model = load_wan().clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "louder", louder)
    refused("changes the CONDITIONING", model)


def test_the_twin_on_a_plain_model_refuses_content_too(pack, load_wan, positive, latent):
    import comfy.samplers

    nodes, schedule = (
        pack.part("nodes.sampling.anchor_window_sampler"),
        pack.part("nodes.sampling.step_schedule").StepSchedule,
    )
    guider = comfy.samplers.CFGGuider(load_wan())
    guider.inner_set_conds({"positive": positive})
    twin, sigmas = nodes.AnchorWindowSamplerSelect.execute(load_wan()).result[0], schedule.execute("histream").result[1]
    full = latent(3)["samples"] + 1
    with pytest.raises(ValueError, match="not empty"):
        guider.sample(full, full, twin, sigmas, disable_pbar=True, seed=0)


def test_sigmas_of_another_schedule_are_refused(pack, load_wan, positive, latent):
    import comfy.samplers

    twin = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSamplerSelect.execute(load_wan()).result[0]
    guider = comfy.samplers.CFGGuider(load_wan())
    guider.inner_set_conds({"positive": positive})
    blank = latent(3)["samples"]
    with pytest.raises(ValueError, match=r"1, 0\.9375, 0\.8333, 0\.625, 0: connect SIGMAS"):
        guider.sample(blank, blank, twin, torch.tensor([1.0, 0.5, 0.0]), disable_pbar=True, seed=0)


def test_a_table_that_cannot_be_read_is_refused(pack):
    with pytest.raises(ValueError, match="1000L 750L"):
        pack.part("nodes.sampling.step_schedule").StepSchedule.execute("custom", steps="1000 500")


def test_custom_steps_that_are_none_are_refused(pack):
    """Seen to fail where the steps of another mode take their place without a word."""
    schedule = pack.part("nodes.sampling.step_schedule").StepSchedule
    with pytest.raises(ValueError, match="steps is empty: write some, such as 1000L"):
        schedule.execute("custom", steps=" ")
    schedule.execute("histream", steps=" ")


@pytest.mark.parametrize("prefix", ["../x", "a/../../x", "/x"])
def test_a_file_outside_the_output_folder_is_refused_in_one_line(pack, output, prefix):
    """Seen to fail with the words of the host, which are three lines with full paths."""
    new_file = pack.part("nodes.host.run_folders").new_file
    with pytest.raises(
        ValueError, match=r"the name .* is outside ComfyUI's output folder: write a name like video/HiStream"
    ) as error:
        new_file(prefix, (64, 64))
    assert "\n" not in str(error.value)
    folder, name, counter, subfolder = new_file("a/%width%/x", (64, 48))
    assert (folder.relative_to(output).as_posix(), name, counter, subfolder) == ("a/64", "x", 1, "a/64")


@pytest.mark.parametrize("name", ["a:b", "shots/what?", "run\n1", "CON/run", "shots /run", "a" * 300])
def test_a_name_that_another_system_does_not_take_is_refused_before_a_folder_is_made(pack, output, name):
    """Seen to fail on Linux, where all but the last are names, and with the system's own words for the last."""
    folders, settings = pack.part("nodes.host.run_folders"), pack.part("nodes.settings")
    for make in (folders.new_file, lambda name, size: folders.next_run(settings.VideoChoice(folder=name), size)):
        with pytest.raises(ValueError, match=r"^the name|too long for a name: use 200 bytes"):
            make(name, (64, 64))
        assert not (output / name[:100]).parent.joinpath(name[:100]).exists()


@pytest.mark.parametrize("mark", ["%date:yyyy-MM-dd%", "%date%", "%Empty Latent Image.width%", "%KSampler.seed%"])
def test_marks_that_only_the_page_replaces_are_refused_and_those_of_the_server_are_replaced(pack, output, mark):
    """Programs send them as they are. Seen to fail with a word on the colon, or with the mark as a name."""
    folders, settings = pack.part("nodes.host.run_folders"), pack.part("nodes.settings")
    for make in (folders.new_file, lambda name, size: folders.next_run(settings.VideoChoice(folder=name), size)):
        with pytest.raises(ValueError, match=r"has %.*% in it, which ComfyUI's page replaces and its server .*%year%"):
            make(f"marks/{mark}", (64, 64))
        assert not (output / "marks").exists()
    day = time.strftime("%Y-%m-%d")
    name = "%year%-%month%-%day%/%width%x%height% 100% 50%"
    assert folders.new_file(name, (64, 48))[1:] == ("64x48 100% 50%", 1, day)
    assert folders.next_run(settings.VideoChoice(folder=name), (64, 48))[1] == f"{day}/64x48 100% 50%"


@pytest.mark.parametrize("shown", ["kr/run_00001", "output/kr/run_00001", "./output/kr/run_00001", "output/kr/run"])
def test_a_run_is_found_by_the_path_that_is_shown(pack, output, shown):
    """Seen to fail with "there is no run" for all but the first."""
    folder = output / "kr" / "run_00001"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text("{}")
    name = shown.replace("output", output.name)
    folders = pack.part("nodes.host.run_folders")
    assert folders.find_run(name) == folder
    assert "kr/run_00001" in folders.list_text(str(Path(name).parent))


@pytest.fixture(scope="module")
def with_run(server):
    """The server, with one finished run in its output folder."""
    assert server.run(graph(KEPT, seed=0)).error == ""
    return server


def runs_again(server, number: int) -> bool:
    """Whether the graph without the mistake still runs; its seed is another one, so that nothing is remembered."""
    return server.run(graph(seed=1000 + number)).error == ""


@pytest.mark.parametrize(("number", "change", "said"), [(n, *row[1:]) for n, row in enumerate(WRONG)],
                         ids=[row[0] for row in WRONG])  # fmt: skip
def test_an_artist_is_told_what_is_wrong_and_what_would_work(with_run, number, change, said):
    """In one line, and the next run works without a restart."""
    error = with_run.run(graph(change, seed=number)).error
    assert re.search(said, error), error
    assert "\n" not in error
    assert runs_again(with_run, number)


@pytest.mark.parametrize(("number", "change", "said"), [(n, *row[1:]) for n, row in enumerate(WRONG_FOR_THE_HOST)],
                         ids=[row[0] for row in WRONG_FOR_THE_HOST])  # fmt: skip
def test_the_host_refuses_what_no_widget_holds_before_anything_runs(with_run, number, change, said):
    error = with_run.run(graph(change, seed=number)).error
    assert "node_errors" in error
    assert re.search(said, error), error
    assert runs_again(with_run, 100 + number)


@pytest.mark.parametrize(("number", "change", "said"), [(n, *row[1:]) for n, row in enumerate(AHEAD)],
                         ids=[row[0] for row in AHEAD])  # fmt: skip
def test_what_a_node_behind_would_refuse_is_told_before_the_first_step(with_run, number, change, said):
    """Seen to fail without `nodes/host/ahead.py`: all is sampled first, behind Resume, Extend and Branch too.

    The next run works.
    """
    run = with_run.run(graph(change, seed=200 + number))
    assert re.search(said, run.error), run.error
    assert "\n" not in run.error
    assert [node for node, *_ in run.progress if node in ("sampler", "extra")] == []
    assert runs_again(with_run, 200 + number)


def test_the_table_is_as_long_as_was_promised():
    assert len(WRONG) >= 25 and len(AHEAD) >= 20
