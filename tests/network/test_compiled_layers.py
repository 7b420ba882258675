"""Compiled layers: an equal video, few graphs, which later runs share, and a warning where compiling fails."""

from dataclasses import replace

import pytest
import tiny
import torch

from histream_core.network.compile import layers as compiled
from histream_core.network.compile.layers import CompiledBlocks, common_shapes
from histream_core.network.forward import Denoiser
from histream_core.network.kernels import choose_kernels
from histream_core.network.layer import run_block
from histream_core.network.ops.attention import sdpa
from histream_core.network.ops.linears import in_fp8
from histream_core.plan.presets import find_preset
from histream_core.plan.speed import Speed
from histream_core.runs.weights import Weights
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.vae.model import WanVAE


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Forget all graphs that were compiled before."""
    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "_compiled", {})


def compiled_video(plan, *, backend="eager", attention=sdpa, block=run_block, **settings):
    """The video, the number of graphs that were compiled for it, and the warnings."""
    told = []
    blocks = CompiledBlocks(plan, told.append, backend=backend, run_block=block)
    model = settings.pop("model", None) or tiny.wan()
    denoise = Denoiser(model, attention=attention, block_forward=blocks)
    return tiny.video(plan, model=model, denoise=denoise, **settings), blocks.graphs, told


@pytest.mark.slow
def test_the_video_is_the_same_and_four_graphs_do_for_every_run_and_prompt():
    """With the part of the compiler that replaces in-place operations. Seen to fail when graphs are specialised for
    a layer, or for the run that they were compiled in."""
    plan = tiny.plan(num_frames=11)
    made, graphs, told = compiled_video(plan, backend="aot_eager")
    assert torch.equal(made, tiny.video(plan))
    assert (graphs, told) == (4, [])
    for prompt in (0, 7):
        prompts = [Prompt(tiny.text(prompt))]
        made, graphs, _ = compiled_video(plan, backend="aot_eager", model=tiny.wan(seed=2), prompts=prompts)
        assert torch.equal(made, tiny.video(plan, model=tiny.wan(seed=2), prompts=prompts))
        assert graphs == 0


def test_only_the_first_chunk_and_what_comes_again_is_compiled():
    """Seen to fail when every shape is compiled."""
    framewise = tiny.plan(num_frames=11, preset="causal-forcing-framewise")
    assert common_shapes(framewise) == {(1, 0), (1, 7)}
    assert common_shapes(tiny.plan("history", num_frames=9)) == {(3, 0)}
    asked = []

    def block(block, call):
        asked.append(call.pages.visible)
        return run_block(block, call)

    told = []
    blocks = CompiledBlocks(framewise, told.append, backend="eager", run_block=block)
    blocks._compiled = lambda kind: run_block
    tiny.video(framewise, denoise=Denoiser(tiny.wan(), block_forward=blocks))
    assert {visible.stop for visible in asked} == {2, 3, 4, 5, 6}


@pytest.mark.slow
def test_sizes_do_not_use_up_what_a_compiler_allows():
    """A compiler allows few graphs for one function. Seen to fail when all graphs are made of one function."""
    plan = tiny.plan("full", num_frames=9)
    with torch._dynamo.config.patch(recompile_limit=1):
        made, graphs, told = compiled_video(plan)
    assert (graphs, told) == (2, [])
    assert torch.equal(made, tiny.video(plan))


def test_products_in_fp8_are_compiled_too():
    """Seen to fail with tensor methods that a compiler cannot trace where functions are replaced."""
    plan, block = tiny.plan("full", num_frames=3), in_fp8(run_block)
    made, graphs, told = compiled_video(plan, block=block)
    assert (graphs, told) == (1, [])
    assert torch.equal(made, tiny.video(plan, denoise=Denoiser(tiny.wan(), block_forward=block)))


def test_another_attention_needs_no_other_graph():
    """Seen to fail when the attention is compiled too."""
    plan = tiny.plan("full", num_frames=3)

    def thrice(q, k, v):
        return sdpa(q, k, v) * 3

    compiled_video(plan)
    made, graphs, _ = compiled_video(plan, attention=thrice)
    assert graphs == 0
    assert torch.equal(made, tiny.video(plan, denoise=Denoiser(tiny.wan(), attention=thrice)))


def test_a_compiler_that_fails_is_told_of_once_and_changes_nothing():
    """Seen to fail when compiling is tried again in every layer, and when the error ends the run."""

    def broken(graph, inputs):
        raise RuntimeError("no kernels today\nand more")

    plan = tiny.plan("naive", num_frames=6)
    made, _, told = compiled_video(plan, backend=broken)
    assert torch.equal(made, tiny.video(plan))
    [words] = told
    assert "no kernels today" in words and "run uncompiled" in words and "\n" not in words


def test_an_error_of_the_network_is_not_taken_for_the_compilers():
    """Seen to fail when every error of a compiled layer is caught and the layer is run again."""
    calls = []

    def full(q, k, v):
        calls.append(q)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("full")
        return sdpa(q, k, v)

    plan = tiny.plan("naive", num_frames=3)
    with pytest.raises(torch.OutOfMemoryError):
        compiled_video(plan, attention=full)


def test_a_run_is_compiled_where_that_was_chosen(monkeypatch):
    """Seen to fail when the choice has no effect on the layers."""
    kernels = choose_kernels(Speed(compile="inductor"), torch.device("cpu"), torch.float32)
    assert kernels.compiler == {"backend": "inductor"} and kernels.in_use["compile"] == "inductor"
    assert choose_kernels(Speed(), torch.device("cpu"), torch.float32).block_forward(tiny.plan()) is run_block
    monkeypatch.setattr(Weights, "kernels", lambda self: replace(kernels, compiler={"backend": "eager"}))
    weights = Weights(tiny.wan(), WanVAE(dim=8), find_preset("demo"), torch.device("cpu"), torch.float32)
    plan = tiny.plan("full", num_frames=9)
    stream = weights.open_stream(plan, SeededNoise(1), [Prompt(tiny.text())], progress=weights.new_progress(plan))
    before = compiled._graph_count()
    assert torch.equal(torch.cat(list(stream.chunks()), dim=2), tiny.video(plan))
    assert compiled._graph_count() - before == 2


def test_a_long_video_shares_the_graphs_of_a_short_one_but_for_its_first_chunk():
    """An anchor that moves is written in the first chunk alone. Seen to fail with its room among what a graph knows."""
    kinds = []
    for num_frames in (15, 30):
        blocks = CompiledBlocks(tiny.plan(num_frames=num_frames), pytest.fail, backend="eager")
        asked = set()
        blocks._compiled = lambda kind, asked=asked: asked.add(kind) or run_block
        plan = tiny.plan(num_frames=num_frames)
        tiny.video(plan, denoise=Denoiser(tiny.wan(), block_forward=blocks))
        kinds.append(asked)
    assert plan.moving_anchor
    short, long = kinds
    assert len(short) == len(long) == 4
    assert len(long - short) == 2
