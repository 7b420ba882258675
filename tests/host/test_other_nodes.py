"""Whatever other nodes put on a MODEL works, is refused in a sentence that names the node, or is said to do nothing.

Each row of docs/other-nodes.md is a row of these lists: the host's own nodes as they are, and for nodes of other packs
stand-ins that do the same to a MODEL. The next node is one line more.
"""

import importlib
import logging
import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "other-nodes.md"


def of_the_host(file: str, name: str, *settings):
    """Put a node of the host on a MODEL."""

    def put(model):
        node = getattr(importlib.import_module(f"comfy_extras.{file}"), name)
        if hasattr(node, "define_schema"):
            return node.execute(model, *settings).result[0]
        return getattr(node(), node.FUNCTION)(model, *settings)[0]

    return put


def like(name: str, *settings):
    """Put the stand-in of a pack's node on a MODEL."""
    return lambda model: getattr(importlib.import_module("other_nodes"), name)().apply(model, *settings)


def leftover_flag(model):
    """A node that asks for the negative prompt at CFG 1 too, which is not there."""
    model = model.clone()
    model.disable_model_cfg1_optimization()
    return model


def split_over_gpus(model):
    """The host's MultiGPU node, on a computer with another GPU: a second MODEL beside the first."""
    model = model.clone()
    model.set_additional_models("multigpu", [model.clone()])
    return model


def sparse_attention(*, now: bool):
    """The host's Block Sparse Attention: its function is there, or comes at the first step."""
    return lambda model: importlib.import_module("nodes_sparse_attention").BlockSparseAttention().apply(model, now=now)


REFUSED = [
    ("EasyCache", of_the_host("nodes_easycache", "EasyCacheNode", 0.2, 0.15, 0.95, False), "EasyCacheNode .* skips"),
    ("LazyCache", of_the_host("nodes_easycache", "LazyCacheNode", 0.2, 0.15, 0.95, False), "LazyCacheNode .* skips"),
    ("TeaCache", like("StepCacheAroundCalls"), "StepCacheAroundCalls .* wraps every call"),
    ("CFGZeroStar", of_the_host("nodes_cfg", "CFGZeroStar"), "CFGZeroStar .* negative prompt"),
    ("CFGZeroStarAndInit", like("ZeroStarGuidance"), "ZeroStarGuidance .* negative prompt"),
    ("RescaleCFG", of_the_host("nodes_model_advanced", "RescaleCFG", 0.7), "RescaleCFG .* negative prompt"),
    ("APG", of_the_host("nodes_apg", "APG", 1.0, 5.0, 0.0), "APG .* negative prompt"),
    ("Mahiro", of_the_host("nodes_mahiro", "Mahiro"), "Mahiro .* negative prompt"),
    ("PerturbedAttentionGuidance", of_the_host("nodes_pag", "PerturbedAttentionGuidance", 3.0),
     "PerturbedAttentionGuidance .* more than once"),
    ("SkipLayerGuidanceDiT",
     of_the_host("nodes_slg", "SkipLayerGuidanceDiT", 3.0, 0.01, 0.15, "0", "", 0.0),
     "SkipLayerGuidanceDiT .* more than once"),
    ("SkipLayerGuidanceDiTSimple", of_the_host("nodes_slg", "SkipLayerGuidanceDiTSimple", 0.0, 1.0, "0"),
     "SkipLayerGuidanceDiTSimple .* negative prompt"),
    ("NAGuidance", of_the_host("nodes_nag", "NAGuidance", 5.0, 0.5, 1.5), "NAGuidance .* attention patches"),
    ("WanVideoNAG", like("NegativeInAttention"), r"NegativeInAttention replaced .*cross_attn\.forward"),
    ("WanContextWindowsManual",
     of_the_host("nodes_context_windows", "WanContextWindowsManualNode",
                 81, 30, "standard_uniform", 1, False, "pyramid", True),
     "Context Windows .* window of its own"),
    ("ScaleROPE", of_the_host("nodes_rope", "ScaleROPE", 1.0, 0.0, 1.0, 0.0, 2.0, 0.0), "position"),
    ("ModelSamplingAuraFlow", of_the_host("nodes_model_advanced", "ModelSamplingAuraFlow", 1.73),
     "ModelSampling.* changes what the network is asked"),
    ("ModelSamplingDiscrete", of_the_host("nodes_model_advanced", "ModelSamplingDiscrete", "v_prediction", False),
     "ModelSamplingDiscrete .* changes what the network is asked"),
    ("MultiGPU", split_over_gpus, "MultiGPU .* one prompt"),
    ("Compile Model of TeaCache", like("WholeNetworkCompiled"), "use TorchCompileModel"),
    ("BlockSparseAttention", sparse_attention(now=True), "BlockSparseAttention .* the first chunk alone .*seen_keys"),
    ("sparse attention from the first step on", sparse_attention(now=False), "BlockSparseAttention .* first chunk"),
]  # fmt: skip
REFUSED_AT_THE_FIRST_CALL = [
    ("a step cache by a wrapper", like("StepCacheByWrapper"), r"StepCacheByWrapper on this MODEL failed \(.*size"),
    ("CFGOverride", of_the_host("nodes_custom_sampler", "CFGOverride", 4.0, 0.0, 1.0), "CFGOverride .* sets CFG to 4"),
    ("guidance for some steps", like("GuidanceForSomeSteps"), "GuidanceForSomeSteps .* sets CFG to 4"),
    ("two calls", like("TwoCalls"), "TwoCalls .* more than once"),
]
DOES_NOTHING = [
    ("ModelSamplingSD3", of_the_host("nodes_model_advanced", "ModelSamplingSD3", 8.0),
     "ModelSamplingSD3 .* does nothing here: noise, steps and time shift are those of HiStream"),
    ("ModelNoiseScale", of_the_host("nodes_model_advanced", "ModelNoiseScale", 1.1),
     "a node like ModelSamplingSD3 on this MODEL does"),
    ("DifferentialDiffusion", of_the_host("nodes_differential_diffusion", "DifferentialDiffusion"),
     "DifferentialDiffusion on this MODEL does nothing here: there is no noise mask"),
    ("FreeNoise by itself", like("NoiseShuffled"), "NoiseShuffled on this MODEL does nothing here: noise"),
    ("an option alone", like("OptionAlone"), "set enhance_weight on this MODEL, which does nothing here"),
]  # fmt: skip
SAME_VIDEO = [
    ("FeedForward chunks", like("FeedForwardInPieces")),
    ("attention of another node", like("AttentionChosen")),
    ("Model Attention Backend", like("AttentionBackend")),
    ("a feed-forward of later hosts", like("FoldedFeedForward")),
    ("previewers", like("Watched")),
    ("a leftover flag", leftover_flag),
]
OTHER_VIDEO = [
    ("EpsilonScaling", of_the_host("nodes_eps", "EpsilonScaling", 1.05)),
    ("a scaled answer", like("AnswerScaled", 0.9)),
    ("ModelComputeDtype", of_the_host("nodes_model_advanced", "ModelComputeDtype", "bf16")),
]


def ids(rows) -> list[str]:
    return [row[0] for row in rows]


@pytest.fixture
def keep(pack, output, vae, positive, latent):
    """Make a kept run of two chunks."""
    video_output = pack.part("nodes.video.video_output").VideoOutputNode.execute
    sampler = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler.execute

    def run(model):
        [choice] = video_output("shots/run", format="ffv1", bit_depth="8").result
        return sampler(model, positive, latent(4), 3, vae=vae, output=choice).result

    return run


@pytest.fixture
def fingerprint(pack):
    return pack.part("nodes.host.fingerprint").fingerprint_model


@pytest.mark.parametrize(("name", "put", "said"), REFUSED, ids=ids(REFUSED))
def test_what_cannot_be_followed_is_refused_by_name_before_the_first_step(
    pack, sample, keep, output, load_wan, positive, latent, monkeypatch, name, put, said
):
    """By a kept run too, which leaves nothing behind. Seen to fail with a raw error of torch, or without a word."""
    monkeypatch.setattr(pack.part("nodes.host.run").HostRun, "denoise", lambda *args: pytest.fail("a step was made"))
    model = put(load_wan())
    for refused in (lambda: sample(model, positive, latent(4)), lambda: keep(model)):
        with pytest.raises(ValueError, match=said) as error:
            refused()
        assert "\n" not in str(error.value)
    assert not list(output.iterdir())


@pytest.mark.parametrize(("name", "put", "said"), REFUSED_AT_THE_FIRST_CALL, ids=ids(REFUSED_AT_THE_FIRST_CALL))
def test_what_only_shows_when_the_network_is_called_is_refused_by_name(
    sample, load_wan, positive, latent, name, put, said
):
    """And the same MODEL without it works. Seen to fail with a raw error of torch, or a CFG that nobody set."""
    model = load_wan()
    with pytest.raises(ValueError, match=said) as error:
        sample(put(model), positive, latent(7))
    assert "\n" not in str(error.value)
    assert torch.isfinite(sample(model, positive, latent(1))).all()


@pytest.mark.parametrize(("name", "put", "said"), DOES_NOTHING, ids=ids(DOES_NOTHING))
def test_what_does_nothing_is_said_to(sample, fingerprint, load_wan, positive, latent, caplog, name, put, said):
    """Once, and the video is the one without it; a kept run goes on with it or without. Seen to fail in silence."""
    wanted, model = sample(load_wan(), positive, latent(4)), put(load_wan())
    caplog.set_level(logging.WARNING, logger="histream")
    assert torch.equal(sample(model, positive, latent(4)), wanted)
    assert len([known for known in caplog.messages if re.search(said, known)]) == 1
    assert fingerprint(model) == fingerprint(load_wan())


@pytest.mark.parametrize(("name", "put"), SAME_VIDEO, ids=ids(SAME_VIDEO))
def test_what_only_computes_or_shows_otherwise_leaves_the_video_alone(
    sample, keep, load_wan, positive, latent, caplog, name, put
):
    caplog.set_level(logging.WARNING, logger="histream")
    wanted, model = sample(load_wan(), positive, latent(4)), put(load_wan())
    assert (sample(model, positive, latent(4)) - wanted).abs().max() < 1e-4
    assert (keep(model)[0]["samples"] - wanted).abs().max() < 1e-4
    assert not [known for known in caplog.messages if "does nothing" in known]


@pytest.mark.parametrize(("name", "put"), OTHER_VIDEO, ids=ids(OTHER_VIDEO))
def test_what_changes_the_video_is_known_to_a_kept_run(
    pack, sample, keep, vae, load_wan, positive, latent, fingerprint, name, put
):
    """A run is not continued without it. Seen to fail with a fingerprint of weights and LoRAs alone."""
    plain, model = sample(load_wan(), positive, latent(4)), put(load_wan())
    made = keep(model)[0]["samples"]
    assert torch.isfinite(made).all()
    assert (made - plain).abs().max() > 1e-3
    assert fingerprint(model) == fingerprint(put(load_wan())) != fingerprint(load_wan())
    extend = pack.part("nodes.runs.extend_run").ExtendRun.execute
    with pytest.raises(ValueError, match=r"was made otherwise: the model.* changed"):
        extend(load_wan(), vae, "shots/run", 0.5)
    assert extend(put(load_wan()), vae, "shots/run", 0.5).result[2] == "shots/run_00002"


def test_settings_of_a_function_on_the_model_are_known_too(fingerprint, load_wan):
    put = {factor: like("AnswerScaled", factor)(load_wan()) for factor in (0.9, 0.8)}
    assert fingerprint(put[0.9]) != fingerprint(put[0.8])


def beside_weights(model, merged, *, factor=1.0, scale=1.0):
    """The LoRA that is merged into one MODEL beside the weights of another, by the host's bypass."""
    import comfy.weight_adapter

    model, manager = model.clone(), comfy.weight_adapter.BypassInjectionManager()
    for key, [(strength, adapter, *_)] in merged.patches.items():
        weights = tuple(x * scale if isinstance(x, torch.Tensor) else x for x in adapter.weights)
        manager.add_adapter(key, type(adapter)(adapter.loaded_keys, weights), strength=strength * factor)
    model.set_injections("bypass_lora", manager.create_injections(model.model))
    return model


def test_a_lora_beside_the_weights_is_the_lora_in_them(sample, load_wan, lora, fingerprint, positive, latent):
    """The host's bypass: layers add the LoRA while they compute. Seen to fail with a fingerprint that misses it."""
    plain, merged = load_wan(), lora(load_wan())
    beside = beside_weights(plain, merged)
    before = fingerprint(beside)
    assert before != fingerprint(plain)
    wanted = sample(merged, positive, latent(4))
    assert (sample(beside, positive, latent(4)) - wanted).abs().max() < 1e-3
    assert fingerprint(beside) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_values_of_a_lora_beside_the_weights_count(sample, load_wan, lora, fingerprint, positive, latent, dtype):
    """The host rounds them to the layer's dtype when they are put in. Seen to fail with their shapes alone."""
    plain, merged = load_wan(dtype=dtype), lora(load_wan(dtype=dtype))
    beside, again = beside_weights(plain, merged), beside_weights(plain, merged)
    before = fingerprint(beside)
    sample(beside, positive, latent(4))
    assert fingerprint(beside) == before == fingerprint(again)
    others = [beside_weights(plain, merged, scale=1.5), beside_weights(plain, merged, factor=0.5)]
    assert len({before, *map(fingerprint, others)}) == 3


def test_weights_of_another_loader_are_kept_extended_and_branched(
    pack, sample, keep, vae, load_wan, positive, latent, fingerprint
):
    """A GGUF loader's layers list tensors without content. Seen to fail with `no attribute 'temp'`."""
    import other_nodes

    operations = other_nodes.packed_operations()
    model = load_wan(custom_operations=operations)
    made, _, run, _ = keep(model)
    assert torch.equal(made["samples"], sample(model, positive, latent(4)))
    assert (made["samples"] - sample(load_wan(), positive, latent(4))).abs().max() < 0.5
    extended = pack.part("nodes.runs.extend_run").ExtendRun.execute(model, vae, run, 0.5).result[2]
    branched = pack.part("nodes.runs.branch_run").BranchRun.execute(model, vae, run, from_chunk=1, seed=9).result[2]
    assert (extended, branched) == ("shots/run_00002", "shots/run_00003")
    other = load_wan(custom_operations=operations)
    assert fingerprint(other) == fingerprint(model)
    other.model.diffusion_model.blocks[0].ffn[0].weight.data.add_(1)
    assert fingerprint(other) != fingerprint(model)


def test_every_row_stands_in_the_docs():
    """Seen to fail for a row that the page does not name."""
    page = PAGE.read_text(encoding="utf-8")
    rows = [*REFUSED, *DOES_NOTHING, *OTHER_VIDEO, *REFUSED_AT_THE_FIRST_CALL]
    named = [row[0] for row in rows if re.fullmatch(r"[A-Z]\w+", row[0])]
    assert len(named) > 20
    assert not [name for name in named if f"`{name}`" not in page]
