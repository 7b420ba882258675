"""The TorchCompileModel node, and layers compiled by choice: the same video, few graphs, and failures that are told."""

import logging

import pytest
import torch

SETTINGS = {"backend": "cudagraphs"}  # on a CPU it traces, and runs what was traced as it is


@pytest.fixture(autouse=True)
def fresh(pack, monkeypatch):
    """Nothing is compiled yet."""
    torch._dynamo.reset()
    monkeypatch.setattr(pack.part("histream_core.network.compile.layers"), "_compiled", {})


@pytest.fixture
def compile_model(comfyui):
    """The host's own node."""
    from comfy_extras.nodes_torch_compile import TorchCompileModel

    return lambda model: TorchCompileModel.execute(model, **SETTINGS).result[0]


def graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def other_prompt(positive: list) -> list:
    return [[positive[0][0].flip(1), {}]]


def test_torch_compile_model_changes_nothing_but_speed(sample, load_wan, positive, latent, compile_model, caplog):
    """Equal video without it, four graphs, none anew for a second run and another prompt. Seen to fail when the
    host compiles the whole model, as the node does for other samplers: 26 graphs, and 3 more for the second run."""
    caplog.set_level(logging.WARNING)
    plain, before = load_wan(), graphs()
    model = compile_model(load_wan())
    wanted = sample(plain, positive, latent(13))
    assert torch.equal(sample(model, positive, latent(13)), wanted)
    assert graphs() - before == 4
    assert torch.equal(sample(model, positive, latent(13)), wanted)
    other = other_prompt(positive)
    assert torch.equal(sample(model, other, latent(13)), sample(plain, other, latent(13)))
    assert graphs() - before == 4
    assert not [record for record in caplog.records if "compile" in record.message]


def test_other_samplers_still_get_the_compiled_model(sample, load_wan, positive, latent, compile_model):
    """Our run takes the wrapper out of its own options alone. Seen to fail when it is taken from the MODEL."""
    from comfy.patcher_extension import WrappersMP

    model = compile_model(load_wan())
    sample(model, positive, latent(3))
    assert model.wrappers[WrappersMP.APPLY_MODEL]["torch.compile"]


def test_a_lora_is_compiled_with_the_model(sample, load_wan, positive, latent, compile_model, lora):
    wanted = sample(lora(load_wan()), positive, latent(7))
    assert torch.equal(sample(compile_model(lora(load_wan())), positive, latent(7)), wanted)


def test_attention_of_another_node_is_called_in_compiled_layers(sample, load_wan, positive, latent, compile_model):
    """With the number of the layer that is being computed. Seen to fail when the attention is compiled too."""
    blocks = []

    def override(attend, *args, **kwargs):
        blocks.append(kwargs["transformer_options"]["block_index"])
        return attend(*args, **kwargs)

    plain = load_wan()
    model = compile_model(plain)
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    assert torch.equal(sample(model, positive, latent(7)), sample(plain, positive, latent(7)))
    assert set(blocks) == {0, 1}


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so(
    pack, sample, load_wan, positive, latent, compile_model, monkeypatch, caplog
):
    """Seen to fail when the error ends the run, and when nothing is said."""
    model = compile_model(load_wan())
    model.model_options["torch_compile_kwargs"]["backend"] = "no such compiler"
    assert torch.equal(sample(model, positive, latent(7)), sample(load_wan(), positive, latent(7)))
    told = [record.message for record in caplog.records if "cannot compile" in record.message]
    assert len(told) == 1 and "no such compiler" in told[0]
