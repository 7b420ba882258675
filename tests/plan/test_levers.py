"""Levers (approximations): each does exactly what it says, and nothing else changes.

`reference_levers.py` computes the same approximations without caches.
"""

from dataclasses import replace

import pytest
import tiny
import torch
from laws.engine import FOUR, GRIDS, HISTREAM, NTK, SIZE, TWO, noise
from laws.reference_levers import reference_levers
from slow import slow

from histream_core.network.cache.tiers import make_caches
from histream_core.network.cache.window import CacheOptions
from histream_core.network.compile.layers import CompiledBlocks
from histream_core.network.forward import Denoiser, Text
from histream_core.network.layer import run_block
from histream_core.network.ops import sparse
from histream_core.network.ops.attention import sdpa
from histream_core.network.ops.linears import in_fp8
from histream_core.network.ops.sparse import sparse_attention
from histream_core.plan import blocks
from histream_core.plan.blocks import Blocks
from histream_core.plan.chunks import lengthen, replay
from histream_core.plan.levers import CLEAN_ANCHOR, LAST_STEP, POOLED_LOW, SPARSE, SURVIVORS
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.schedule import Scale
from histream_core.plan.window import Window
from histream_core.stream.inputs import Inputs
from histream_core.stream.prompts import Prompt
from histream_core.stream.stream import Stream

COMBINATIONS = [
    (LAST_STEP,),
    (CLEAN_ANCHOR,),
    (SURVIVORS,),
    (POOLED_LOW,),
    (LAST_STEP, SURVIVORS),
    (LAST_STEP, POOLED_LOW),
    (SURVIVORS, POOLED_LOW),
    (SPARSE,),
    (CLEAN_ANCHOR, SURVIVORS, POOLED_LOW, SPARSE),
]
FEW = [levers if len(levers) > 2 or levers == (LAST_STEP,) else slow(levers) for levers in COMBINATIONS]
BLOCKS = 12, 4
"""Tokens of a block of queries and of keys at most; a frame has 24 at HIGH."""

TEXT = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model():
    return tiny.lively()


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    for name, most in zip(("MOST_QUERIES", "MOST_KEYS"), BLOCKS, strict=True):
        monkeypatch.setattr(blocks, name, most)


def run_engine(model, plan, *, given=None, given_noisy=None, kv="full"):
    stream = open_stream(model, plan, given=given, given_noisy=given_noisy, kv=kv)
    return torch.cat(list(stream.chunks()), dim=2)


def open_stream(model, plan, *, given=None, given_noisy=None, kv="full", prompts=()):
    caches = make_caches(plan, model, CacheOptions(batch=2, kv=kv))
    prompts = prompts or [Prompt(Text(TEXT))]
    settings = {"channels": model.in_dim, "inputs": Inputs(given, given_noisy)}
    return Stream(plan, Denoiser(model), caches, noise, prompts, **settings)


def run_reference(model, levers, chunks, *, anchor=1, **settings):
    first = 0 if LAST_STEP in levers else sum(begin < anchor for begin in begins(chunks))
    keeps = {LAST_STEP, CLEAN_ANCHOR} & {*levers}
    return reference_levers(
        model,
        chunks,
        noise,
        **({"grids": GRIDS, "ntk": NTK, "window": (1, 2)} | settings),
        in_flight=[i for i in range(first, len(chunks)) if chunks[i][2]] if keeps else (),
        survivors=SURVIVORS in levers,
        pooled_low=POOLED_LOW in levers,
        blocks=BLOCKS if SPARSE in levers else None,
    )


def begins(chunks):
    return [sum(length for _, length, _ in chunks[:i]) for i in range(len(chunks))]


def assert_same(video, reference):
    assert video.shape == reference.shape
    assert reference.std() > 0.1
    torch.testing.assert_close(video, reference, atol=1e-5, rtol=0)


@pytest.mark.parametrize("levers", COMBINATIONS, ids="+".join)
def test_a_lever_is_the_approximation_that_it_says(model, levers):
    """Seen to fail with the clean pass left in (last-step), with the whole chunk cached (survivors), with the largest
    token in place of the mean (pooled-low), with chunk 0 kept in flight too (clean-anchor), and with the blocks that
    answer worst (sparse)."""
    plan = tiny.plan_of(HISTREAM, "histream-plus", num_frames=15, levers=levers, **SIZE)
    chunks = [(TEXT, 3, FOUR), *[(TEXT, 3, TWO)] * 4]
    exact = run_engine(model, tiny.plan_of(HISTREAM, "histream-plus", num_frames=15, **SIZE))
    video = run_engine(model, plan)
    assert_same(video, run_reference(model, levers, chunks, span=18))
    assert torch.equal(video[:, :, :3], exact[:, :, :3]), "the first chunk sees no past"
    assert (video - exact).abs().amax() > 1e-3, "it approximates something"


@pytest.mark.parametrize("levers", FEW, ids="+".join)
def test_levers_and_anchors_that_move(model, levers):
    """Seen to fail with the un-rotated anchors left out of what is pooled, and with survivors that stand at times
    counted from the first of them."""
    window, temporal = Window(3, 2, 2), TemporalPolicy(span=4)
    plan = tiny.plan_of(HISTREAM, "histream", num_frames=15, window=window, temporal=temporal, levers=levers, **SIZE)
    reference = run_reference(model, levers, [(TEXT, 3, FOUR)] * 5, anchor=2, window=(2, 2), span=4)
    assert_same(run_engine(model, plan), reference)


@pytest.mark.parametrize("levers", FEW, ids="+".join)
def test_a_chunk_that_is_given_has_a_clean_pass(model, levers):
    """There is no last step whose keys could stay."""
    given = noise(99, 0, (2, 4, 1, 8, 12))
    settings = {"num_frames": 10, "given_frames": 1, "first_frame": True, "levers": levers}
    plan = tiny.plan_of(HISTREAM, "histream-plus", **settings, **SIZE)
    chunks = [(TEXT, 1, []), (TEXT, 3, FOUR), *[(TEXT, 3, TWO)] * 2]
    assert_same(run_engine(model, plan, given=given), run_reference(model, levers, chunks, given=given))


@pytest.mark.parametrize("kv", ["lean", slow("cpu")])
@pytest.mark.parametrize("levers", COMBINATIONS, ids="+".join)
def test_memory_tiers_give_the_same_frames_under_levers(model, levers, kv):
    """Seen to fail where a lean cache is not told that the last step is one to keep."""
    settings = {"num_frames": 18, "temporal": TemporalPolicy(span=4), "levers": levers}
    plan = tiny.plan_of(HISTREAM, "histream-plus", **settings, **SIZE)
    assert torch.equal(run_engine(model, plan, kv=kv), run_engine(model, plan))


@pytest.mark.parametrize("levers", FEW, ids="+".join)
def test_a_run_goes_on_bit_for_bit_from_latents_and_from_what_the_last_steps_began_with(model, levers):
    """Law 9 under levers. Seen to fail with the clean latent in the place of the noisy one."""
    plan = tiny.plan_of(HISTREAM, "histream-plus", num_frames=15, levers=levers, **SIZE)
    stream, noisy, wanted = open_stream(model, plan), [], []
    for clean in stream.chunks():
        wanted.append(clean)
        noisy.append(stream.noisy.clone())
    for done in (1, 3):
        given = torch.cat(wanted[:done], dim=2)
        got = run_engine(model, replay(plan, done), given=given, given_noisy=lambda chunk: noisy[chunk.index])
        assert torch.equal(got, torch.cat(wanted, dim=2))


def test_what_the_last_step_began_with_is_asked_for_where_its_keys_are_kept(model):
    plan = replay(tiny.plan_of(HISTREAM, "histream", num_frames=9, levers=[LAST_STEP], **SIZE), 1)
    with pytest.raises(ValueError, match="chunk 0 is given, but not what its last step began with"):
        run_engine(model, plan, given=noise(0, 0, (2, 4, 3, 8, 12)))


def test_recache_fills_low_from_high_where_low_is_pooled(model):
    """Seen to fail with a pass at LOW of its own."""
    plan = tiny.plan_of(HISTREAM, "histream", num_frames=9, levers=[POOLED_LOW], **SIZE)
    prompts = [Prompt(Text(TEXT)), Prompt(Text(TEXT.flip(0)), 1, recache=True)]
    stream = open_stream(model, plan, prompts=prompts)
    scales, denoise = [], stream.denoise

    def noted(latent, step, cache, text):
        scales.append((step.sigma == 0, step.scale))
        return denoise(latent, step, cache, text)

    stream.denoise = noted
    list(stream.chunks())
    assert [scale for clean, scale in scales if clean] == [Scale.HIGH] * 3
    assert stream.caches[Scale.LOW].frames == stream.caches[Scale.HIGH].frames


def test_a_last_step_enters_the_window_when_the_next_chunk_begins(model):
    """So an interrupted one leaves the window as it was. Seen to fail with the step committed at once."""
    plan = tiny.plan_of(HISTREAM, "histream", num_frames=12, levers=[LAST_STEP], **SIZE)
    stream = open_stream(model, plan)
    chunks = stream.chunks()
    next(chunks), next(chunks)
    assert stream.caches[Scale.HIGH].frames == (0, 1, 2)


@pytest.mark.slow
def test_compiled_layers_do_the_same_under_levers(model):
    """One graph for each kind of pass. Seen to fail with sparse attention left out of what is compiled."""
    levers = [CLEAN_ANCHOR, SURVIVORS, POOLED_LOW, SPARSE]
    plan, failures = tiny.plan_of(HISTREAM, "histream-plus", num_frames=15, levers=levers, **SIZE), []
    layers = CompiledBlocks(plan, failures.append, backend="eager")
    stream = open_stream(model, plan)
    stream.denoise = Denoiser(model, block_forward=layers)
    video = torch.cat(list(stream.chunks()), dim=2)
    assert layers.graphs > 4 and not failures
    assert torch.equal(video, run_engine(model, plan))


def test_blocks_of_queries_share_a_call_and_answer_as_each_alone(monkeypatch):
    """Seen to fail with one block in a call: a large GPU would be half idle."""
    q, k, v = torch.randn(3, 2, 60, 3, 8, generator=torch.Generator().manual_seed(2)).unbind(0)
    calls = []

    def attention(*tensors):
        calls.append([list(x.shape) for x in tensors])
        return sdpa(*tensors)

    together = sparse_attention(attention, Blocks(12, 4), q, k, v)
    assert [queries for queries, *_ in calls] == [[2 * 4, 12, 3, 8], [2 * 1, 12, 3, 8]]
    assert {keys[1] for _, keys, _ in calls} == {32}, "half of the blocks, rounded up"
    monkeypatch.setattr(sparse, "BLOCKS_AT_ONCE", 1)
    torch.testing.assert_close(sparse_attention(sdpa, Blocks(12, 4), q, k, v), together, rtol=1e-6, atol=1e-6)


def test_products_in_fp8_are_compiled_with_sparse_attention(model):
    """Seen to fail with the method `unflatten`, which compilers cannot trace where products are replaced."""
    plan, failures = tiny.plan_of(HISTREAM, "histream-plus", num_frames=9, levers=[SPARSE], **SIZE), []
    layers = CompiledBlocks(plan, failures.append, backend="eager", run_block=in_fp8(run_block))
    stream = open_stream(model, plan)
    stream.denoise = Denoiser(model, block_forward=layers)
    for _ in stream.chunks():
        pass
    assert layers.graphs and not failures


# Plans


def census(chunk):
    letters = {Scale.LOW: "L", Scale.HIGH: "H"}
    kept = "*" if chunk.kept else ""
    cached = "".join(letters[step.scale].lower() for step in chunk.cache_steps)
    return "".join(letters[step.scale] for step in chunk.steps) + kept + cached


@pytest.mark.parametrize(
    ("levers", "calls", "cached"),
    [
        ((), ["LHhl", "LHhl", "LH"], [3, 3, 0]),
        ((LAST_STEP,), ["LH*l", "LH*l", "LH"], [3, 3, 0]),
        ((CLEAN_ANCHOR,), ["LHhl", "LH*l", "LH"], [3, 3, 0]),
        ((SURVIVORS,), ["LHhl", "LHhl", "LH"], [3, 2, 0]),
        ((POOLED_LOW,), ["LHh", "LHh", "LH"], [3, 3, 0]),
        ((LAST_STEP, SURVIVORS), ["LH*l", "LH*l", "LH"], [3, 2, 0]),
        ((LAST_STEP, POOLED_LOW), ["LH*", "LH*", "LH"], [0, 0, 0]),
    ],
)
def test_the_census_of_network_calls_under_levers(levers, calls, cached):
    """Seen to fail with the last chunk's step kept too."""
    chunks = tiny.plan("naive", num_frames=9, levers=levers).chunks
    assert [census(chunk) for chunk in chunks] == calls
    assert [len(chunk.cached) for chunk in chunks] == cached


def test_a_window_that_keeps_whole_chunks_has_nothing_but_survivors():
    window = Window(3, 1, 6)
    assert [*tiny.plan(window=window, levers=[SURVIVORS]).chunks] == [*tiny.plan(window=window).chunks]


@pytest.mark.parametrize("levers", [(), *COMBINATIONS], ids="+".join)
@pytest.mark.parametrize("given", [{}, {"given_frames": 3}, {"given_frames": 1, "first_frame": True}], ids=str)
def test_a_plan_made_longer_keeps_its_levers(levers, given):
    """Seen to fail with the chunks made longer without them."""
    short, long = (tiny.plan("histream-plus", num_frames=frames, levers=levers, **given) for frames in (8, 20))
    assert lengthen(short, 20) == long


def test_levers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match='lever "fast" does not exist: use some of clean-anchor, last-step'):
        tiny.plan(levers=["fast"])
    with pytest.raises(ValueError, match="exclude each other"):
        tiny.plan(levers=[LAST_STEP, CLEAN_ANCHOR])
    with pytest.raises(ValueError, match="pooled-low needs steps at LOW"):
        tiny.plan("full", levers=[POOLED_LOW])


def test_the_order_in_which_levers_are_asked_for_does_not_matter():
    assert tiny.plan(levers=[SURVIVORS, LAST_STEP]) == tiny.plan(levers=[LAST_STEP, SURVIVORS])


def test_no_lever_is_what_was_always_computed():
    """The plan that is exact says so in every field."""
    for chunk in tiny.plan("histream", num_frames=21).chunks[:-1]:
        assert chunk == replace(chunk, cached=tuple(chunk.frames), kept=None)
        assert len(chunk.cache_steps) == 2
